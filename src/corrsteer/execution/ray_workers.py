"""Units of work done by workers on a Ray cluster.

Ray places the workers, starts lost ones again and gives their units to them anew; results come in
the order of units, so it makes no difference who did what. The model and the SAEs are put into
Ray's object store once: workers on one machine share their memory, unless they move them to a GPU.

Changes when workers are started, fed or watched in another way.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corrsteer.errors import CorrSteerError, ModelError, SettingsError, WorkerError
from corrsteer.execution.units import AnyResult, AnyUnit, Job, PlacedJob
from corrsteer.lm.hooks import drop_capturing_hooks, is_hooked
from corrsteer.lm.models import LanguageModel
from corrsteer.progress import SILENT, Progress

RETRIES = 3
"""How often a unit whose worker died is tried again."""


OWN_CLUSTER = "local"
"""Ray's address of a cluster to start here; without it Ray would join that of `RAY_ADDRESS`."""


@dataclass(frozen=True)
class ClusterSettings:
    """Which workers to start.

    Attributes:
        workers: how many.
        address: of a running cluster; None to start one on this machine, for this run alone.
        gpus_per_worker: GPUs of each, as Ray counts them; 0 for workers on CPUs.
    """

    workers: int = 2
    address: str | None = None
    gpus_per_worker: float = 0.0


@contextmanager
def workers_of(settings: ClusterSettings, progress: Progress = SILENT) -> Iterator[Workers]:
    """The workers, until the context is left.

    Raises:
        SettingsError: Ray is not installed, there is no cluster at the address, or it is smaller
            than asked for.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "--engine ray needs Ray; install it by: pip install 'corrsteer[ray]'"
        ) from error
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if settings.address is None:  # of our own, and reached from this machine alone
        how |= {"num_cpus": max(settings.workers, os.cpu_count() or 1), "include_dashboard": False}
        # Ray's own default makes way for everything else on the machine
        how |= {"_node_ip_address": "127.0.0.1", "_system_config": {"worker_niceness": 0}}
    try:
        host, _, port = (settings.address or "").rpartition(":")
        if port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host.removeprefix("ray://"), int(port)), 10).close()
        ray.init(settings.address or OWN_CLUSTER, **how)
    except OSError as error:
        if settings.address is None:
            raise
        raise SettingsError(
            f"no Ray cluster at {settings.address}; start one by `ray start --head`, or leave "
            "--ray-address out"
        ) from error
    try:
        _register()
        with redirect_stdout(sys.stderr):  # where Ray tells of workers that died
            yield Workers(settings, _threads(settings, ray.cluster_resources()), progress)
    finally:
        ray.shutdown()


def _threads(settings: ClusterSettings, resources: dict[str, float]) -> int:
    """CPU threads of each worker.

    Raises:
        SettingsError: the cluster is smaller than asked for.
    """
    count, gpus = settings.workers, settings.gpus_per_worker
    cpus = int(resources.get("CPU", 0))
    if count > cpus or count * gpus > resources.get("GPU", 0):
        raise SettingsError(
            f"{count} workers with {gpus:g} GPUs each do not fit on {cpus} CPUs and "
            f"{resources.get('GPU', 0):g} GPUs; choose fewer --workers or --gpus-per-worker"
        )
    return cpus // count


class Workers:
    """Does the units of a pass on a cluster; see `workers_of`."""

    def __init__(self, settings: ClusterSettings, threads: int, progress: Progress):
        self._settings, self._threads, self._progress = settings, threads, progress
        self._actors: list[Any] = []
        self._serves: LanguageModel | None = None
        self._model: Any = None

    def map(
        self, lm: LanguageModel, job: Job[AnyUnit, AnyResult], units: Sequence[AnyUnit]
    ) -> Iterator[AnyResult]:
        """The result of each unit, in their order.

        Raises:
            WorkerError: a worker died on one unit again and again.
            ModelError: there are hooks on the model.
            CorrSteerError: what the job raises.
        """
        if not units:
            return
        import ray
        from ray.exceptions import RayActorError, RayTaskError
        from ray.util import ActorPool

        self._serve(lm)
        references = [self._model, ray.put(job)]  # in a list, or Ray fetches them for every unit
        done = ActorPool(self._actors).map(
            lambda actor, unit: actor.run.remote(references, unit), list(units)
        )
        with ExitStack() as stages:
            tell = [
                stages.enter_context(self._progress.stage(f"worker {number + 1}: units", None))
                for number in range(len(self._actors))
            ]
            try:
                for worker, result in done:
                    tell[worker](1)
                    yield result
            except RayTaskError as error:
                if isinstance(error.cause, CorrSteerError):
                    raise error.cause from None
                raise
            except RayActorError as error:
                raise WorkerError(
                    f"workers died {RETRIES + 1} times on one unit (out of memory?); choose fewer "
                    "--workers or a smaller --batch-size"
                ) from error

    def _serve(self, lm: LanguageModel) -> None:
        """Offer the workers this model, and start them if there are none.

        Raises:
            ModelError: hooks of this process change the model, which workers would not know of.
        """
        drop_capturing_hooks(lm.model)
        if is_hooked(lm.model):
            raise ModelError(
                f"forward hooks are on {lm.id}, and workers would run it without them; leave "
                "`with steer(...)`, or remove the hooks, before work is given to workers"
            )
        if self._serves is lm:
            return
        import ray

        self._model, self._serves = ray.put(replace(lm, saes=())), lm
        if not self._actors:
            gpus = self._settings.gpus_per_worker
            options = {"max_restarts": -1, "max_task_retries": RETRIES, "num_gpus": gpus}
            actor = ray.remote(num_cpus=self._threads, **options)(_Worker)
            self._actors = [
                actor.remote(number, self._threads, gpus > 0, str(Path.cwd()))
                for number in range(self._settings.workers)
            ]


class _Worker:
    """One worker: the model, and the job that it is at."""

    def __init__(self, number: int, threads: int, gpu: bool, folder: str):
        sys.path.insert(0, folder)  # where a scorer of the user's own may lie
        torch.set_num_threads(threads)
        _register()
        self._number, self._gpu = number, gpu
        self._references: list[Any] = [None, None]
        self._lm: Any = None
        self._job: Any = None

    def run(self, references: list[Any], unit: Any) -> tuple[int, Any]:
        """The worker's number, and the result of a unit by the model and job referred to."""
        import ray

        model, job = references
        if model != self._references[0]:
            self._lm = ray.get(model)
            if self._gpu:
                self._lm.model.to("cuda")
        if job != self._references[1]:
            sent = ray.get(job)
            self._job = sent.placed(self._lm) if isinstance(sent, PlacedJob) else sent
        self._references = references
        return self._number, self._job(self._lm, unit)


def _register() -> None:
    """Have Ray hand tensors over as arrays, which processes of one machine can share."""
    import ray

    for kind, rebuilt in ((Tensor, _tensor), (torch.nn.Parameter, _parameter)):
        ray.util.register_serializer(kind, serializer=_array, deserializer=rebuilt)


def _array(tensor: Tensor) -> tuple[str, list[int], Any]:
    """Name of the dtype, shape, and bytes as an array on the CPU."""
    there = tensor.detach().cpu().contiguous()
    name = str(there.dtype).removeprefix("torch.")
    return name, list(there.shape), there.reshape(-1).view(torch.uint8).numpy()


def _tensor(content: tuple[str, list[int], Any]) -> Tensor:
    name, shape, array = content
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        flat = torch.from_numpy(array)
    return flat.view(getattr(torch, name)).reshape(shape)


def _parameter(content: tuple[str, list[int], Any]) -> torch.nn.Parameter:
    return torch.nn.Parameter(_tensor(content), requires_grad=False)
