"""vLLM: steer at generated positions, with a strength of its own for every request.

Changes when vLLM's model runner or request check does (0.32 was read and run). vLLM loads
`register` as a general plugin in each of its processes. With `CORRSTEER_STEERING` set to a run, it

- adds the vectors to the outputs of the decoder layers, as tensors of the layer, so that compiled
  graphs hold them too;
- writes before each pass, behind vLLM's own `_prepare_inputs`, one strength a token: that of its
  request from the last prompt position on, 0 before. So chunked prefill, preemption and mixed
  batches are exact, and nothing can go wrong in the pass itself;
- checks `steer_strength` where vLLM checks requests, so that a bad one is refused to its
  sender and reaches no engine.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

STEERING = "CORRSTEER_STEERING"
"""Names the environment variable that holds a run folder or steering file; unset for none."""
STRENGTH = "steer_strength"
"""Key of `SamplingParams.extra_args`, over HTTP of `vllm_xargs`: the strength of one request. The
steering's own if it is not given; 0 for none."""


def register() -> None:
    """Make vLLM steer, where `CORRSTEER_STEERING` says by what."""
    source = os.environ.get(STEERING)
    if not source:
        return
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as NewModelRunner
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    _wrap(InputProcessor, "process_inputs", _checking)
    _wrap(GPUModelRunner, "_prepare_inputs", _filling)
    for runner in (GPUModelRunner, CPUModelRunner):
        _wrap(runner, "load_model", functools.partial(_installing, source))
    _wrap(NewModelRunner, "load_model", _refusing)


def _wrap(owner: type, name: str, wrapper: Callable[[Any], Any]) -> None:
    """Put a function around a method, once, even if the plugin is loaded again."""
    method = owner.__dict__[name]
    if not hasattr(method, "corrsteer"):
        wrapped = functools.wraps(method)(wrapper(method))
        wrapped.corrsteer = True  # type: ignore[attr-defined]
        setattr(owner, name, wrapped)


def _checking(process_inputs: Any) -> Any:
    """Refuse a request whose strength is no number, before it reaches the engine."""

    def checked(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kw: Any) -> Any:
        given = (getattr(params, "extra_args", None) or {}).get(STRENGTH)
        if given is not None and _number(given) is None:
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError(
                f"{STRENGTH} is {given!r}; give a number from -10000 to 10000"
            )
        return process_inputs(self, request_id, prompt, params, *args, **kw)

    return checked


def _number(value: Any) -> float | None:
    """The value as a strength; None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= 1e4 else None


def _installing(source: str, load_model: Any) -> Any:
    """Load the vectors into the layers once the model is there."""

    def loaded(self: Any, *args: Any, **kw: Any) -> Any:
        result = load_model(self, *args, **kw)
        if not hasattr(self, "corrsteer_strengths"):
            install(self, source)
        return result

    return loaded


def _refusing(load_model: Any) -> Any:
    """The newer model runner is laid out otherwise; it must not run unsteered in silence."""

    def refused(self: Any, *args: Any, **kw: Any) -> Any:
        raise RuntimeError(
            f"{STEERING} is set, and CorrSteer cannot steer vLLM's newer model runner yet; set "
            "VLLM_USE_V2_MODEL_RUNNER=0"
        )

    return refused


def install(runner: Any, source: str) -> None:
    """Make the layers of a runner's model add the vectors of a steering.

    Raises:
        CorrSteerError: the steering does not fit, or vLLM is set up so that it would go wrong.
    """
    import torch

    from corrsteer.errors import ConsumerError
    from corrsteer.export.base import block_outputs
    from corrsteer.runs.steering import Steering

    if runner.cache_config.enable_prefix_caching:
        raise ConsumerError(
            "prefix caching would hand steered keys and values to other requests; start vLLM "
            "with --no-enable-prefix-caching (enable_prefix_caching=False)"
        )
    if runner.parallel_config.pipeline_parallel_size > 1:
        raise ConsumerError("steering across pipeline stages is not supported; use 1")
    steering = Steering.load(source)
    layers, width = _layers(runner), int(runner.model_config.get_hidden_size())
    runner.corrsteer_all = steering.positions == "all"
    runner.corrsteer_default = steering.strength
    runner.corrsteer_strengths = torch.zeros(runner.max_num_tokens, device=runner.device)
    digest = hashlib.sha256()
    for block, vector in block_outputs(steering.at(1.0), "vllm").items():
        if block >= len(layers) or len(vector) != width:
            raise ConsumerError(
                f"the steering is for {steering.model or 'another model'}: block {block} with "
                f"d_model {len(vector)} does not fit {len(layers)} layers of d_model {width}"
            )
        _add_after(layers[block], vector.to(runner.device), runner.corrsteer_strengths)
        digest.update(f"{block}".encode() + vector.numpy().tobytes())
    # compiled graphs are cached by vLLM under a hash of its settings: steered ones go apart
    settings = runner.vllm_config.additional_config
    if isinstance(settings, dict):
        settings["corrsteer"] = digest.hexdigest()


def _layers(runner: Any) -> Any:
    """The decoder layers of a vLLM model."""
    from corrsteer.errors import ConsumerError
    from corrsteer.lm.conventions import decoder_blocks

    try:
        depth = runner.model_config.get_total_num_hidden_layers()
        return decoder_blocks(runner.get_model(), depth)
    except LookupError as error:
        raise ConsumerError(f"{error}: vLLM lays this model out otherwise") from error


def _add_after(layer: Any, vector: Any, strengths: Any) -> None:
    """Make a layer's output x + strength * vector, in float32, added in the layer's dtype.

    Most layers return what they add and the residual before it; the sum is what counts.
    """
    from corrsteer.lm.conventions import steered

    layer.register_buffer("corrsteer_vector", vector, persistent=False)
    layer.register_buffer("corrsteer_strengths", strengths, persistent=False)
    inner = layer.forward

    def forward(*args: Any, **kw: Any) -> Any:
        output = inner(*args, **kw)
        hidden = output[0] if isinstance(output, tuple) else output
        scale = layer.corrsteer_strengths[: hidden.shape[0], None]
        changed = steered(hidden, scale * layer.corrsteer_vector)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    layer.forward = forward


def _filling(prepare_inputs: Any) -> Any:
    """Write the strengths of the tokens of the pass that is being prepared."""

    def prepared(self: Any, scheduler_output: Any, num_scheduled_tokens: Any, *args: Any) -> Any:
        result = prepare_inputs(self, scheduler_output, num_scheduled_tokens, *args)
        import torch

        batch, values = self.input_batch, []
        for row, request_id in enumerate(batch.req_ids[: batch.num_reqs]):
            count, first = int(num_scheduled_tokens[row]), int(batch.num_computed_tokens_cpu[row])
            skipped = int(batch.num_prompt_tokens[row]) - 1 - first
            unsteered = 0 if self.corrsteer_all else min(max(skipped, 0), count)
            params = self.requests[request_id].sampling_params
            strength = strength_of(getattr(params, "extra_args", None), self.corrsteer_default)
            values += [0.0] * unsteered + [strength] * (count - unsteered)
        self.corrsteer_strengths.zero_()
        self.corrsteer_strengths[: len(values)] = torch.tensor(values).to(self.device)
        return result

    return prepared


def strength_of(extra_args: Mapping[str, Any] | None, default: float) -> float:
    """The strength that a request asks for, or the default; 0 for what was not let through."""
    given = (extra_args or {}).get(STRENGTH)
    if given is None:
        return default
    number = _number(given)
    return 0.0 if number is None else number
