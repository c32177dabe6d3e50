"""Loading SAEs: the only place that knows sae-lens.

Changes when SAEs come from another source. What the rest of the package needs of an SAE is
`SparseCoder`: encode residuals, and give single rows of `W_dec`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import SAEError
from corrsteer.hook_points import HookPoint


@runtime_checkable
class SparseCoder(Protocol):
    """What steering needs of an SAE.

    Attributes:
        d_sae: number of latents.
    """

    d_sae: int

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        """Activations of every latent, in float32 or wider."""
        ...

    def decoder_rows(self, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
        """Rows of `W_dec`, in float32 on the CPU."""
        ...


@dataclass(frozen=True)
class SAEHandle:
    """An SAE that can be loaded, and where it belongs.

    Attributes:
        layer: the layer that the SAE is named by.
        hook_point: where it is read and steered.
        source: id in its release, or folder; what a run records.
        load: reads the weights onto a device.
        neuronpedia: `model/source` of its pages there, or None.
    """

    layer: int
    hook_point: HookPoint
    source: str
    load: Callable[[torch.device], SparseCoder]
    neuronpedia: str | None = None


class LensSAE:
    """A sae-lens SAE behind the `SparseCoder` interface.

    It encodes in the SAE's own dtype, but no lower than float32. `W_dec`, half of the weights, is
    not needed to encode, so it is let go and read again when rows of it are asked for.
    """

    def __init__(self, name: str, read: Callable[[str], Any], device: torch.device):
        self._name, self._read = name, read
        self._sae = self._checked(str(device))
        self.d_sae = int(self._sae.cfg.d_sae)
        self._sae.W_dec.data = torch.empty(0)

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        """Activations by the SAE's own `encode`."""
        activations: Tensor = self._sae.encode(x)
        return activations

    def decoder_rows(self, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
        """Rows of `W_dec`, in float32 on the CPU."""
        rows: Tensor = self._checked("cpu").W_dec.detach()[list(latents)]
        return rows.float()

    def _checked(self, device: str) -> Any:
        """The whole SAE.

        Raises:
            SAEError: it cannot be loaded, is of a kind that cannot steer, or holds NaN.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # third-party deprecations at import
            try:
                sae = self._read(device)
            except Exception as error:  # loaders of many formats raise many kinds
                reason = " ".join(str(error).split())[:300]
                raise SAEError(
                    f"SAE {self._name} cannot be loaded: {reason}; check the network and download "
                    "it again"
                ) from error
        normalisation = sae.cfg.normalize_activations
        if normalisation not in ("none", None):
            raise SAEError(
                f"SAE {self._name} normalises activations by {normalisation!r}, so rows of W_dec "
                "are not in units of the residual stream; choose SAEs without normalisation"
            )
        if not all(torch.isfinite(tensor).all() for tensor in sae.state_dict().values()):
            raise SAEError(f"SAE {self._name} has NaN or infinity in its weights; download again")
        return (sae.float() if sae.dtype.itemsize < 4 else sae).requires_grad_(False)


class ResidualDimensions:
    """No SAE: every dimension of the residual stream is its own latent (`--raw`)."""

    def __init__(self, d_model: int):
        self.d_sae = d_model

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_model"]:
        """The residuals themselves, in float32."""
        return x.float()

    def decoder_rows(self, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
        """Unit vectors along the dimensions."""
        return torch.eye(self.d_sae)[list(latents)]


def raw_residuals(d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """One handle a block that takes the dimensions of resid_post themselves for latents."""
    handles = [
        SAEHandle(
            layer=layer,
            hook_point=HookPoint(layer + hook_shift, "resid_post"),
            source="raw",
            load=lambda device: ResidualDimensions(d_model),
        )
        for layer in range(n_layers)
    ]
    return fitting(handles, "raw", n_layers, hook_shift)


def local_saes(folder: Path, d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """The SAEs in a folder's subfolders, in sae-lens's format, in the order of layers.

    Args:
        folder: holds one folder an SAE, each with `cfg.json` and `sae_weights.safetensors`.
        d_model: width of the model they must fit.
        n_layers: number of its blocks.
        hook_shift: read and steer this many blocks later than the SAEs say.

    Raises:
        SAEError: none there, a malformed one, two at one place, or one that does not fit.
    """
    paths = sorted(folder.glob("*/cfg.json")) or sorted(folder.glob("cfg.json"))
    if not paths:
        raise SAEError(
            f"no SAE in {folder}; expected folders with cfg.json and sae_weights.safetensors"
        )
    handles = [
        _handle(str(path.parent), path.parent.name, _local_config(path), d_model, hook_shift, read)
        for path in paths
        for read in [_local_reader(path.parent)]
    ]
    return fitting(handles, str(folder), n_layers, hook_shift)


def _local_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SAEError(
            f"SAE {path.parent}: cfg.json cannot be read ({error}); expected JSON"
        ) from error
    if not isinstance(config, dict):
        raise SAEError(f"SAE {path.parent}: cfg.json cannot be read; expected a JSON object")
    return config


def _local_reader(folder: Path) -> Callable[[str], Any]:
    def read(device: str) -> Any:
        from sae_lens import SAE

        return SAE.load_from_disk(folder, device=device, dtype="float32")

    return read


def released_saes(spec: str, d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """The SAEs of a release in sae-lens's directory, one a layer.

    Args:
        spec: `RELEASE`, or `RELEASE:PATTERN` where the release has several SAEs a layer; PATTERN is
            an SAE id with `{L}` in the layer's place.
        d_model: width of the model they must fit.
        n_layers: number of its blocks; SAEs of later layers are refused.
        hook_shift: read and steer this many blocks later than the SAEs say.

    Raises:
        SAEError: no such release or pattern, or SAEs that do not fit the model.
    """
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    release, _, pattern = spec.partition(":")
    handles = []
    for sae_id in _released_ids(release, pattern):
        name = f"{release} {sae_id}"
        try:
            config = load_sae_config_from_huggingface(release, sae_id)
        except Exception as error:  # loaders of many formats raise many kinds
            reason = " ".join(str(error).split())[:300]
            raise SAEError(
                f"SAE {name} cannot be loaded: {reason}; check the network and that you are "
                "logged in if it is gated"
            ) from error
        read = _released_reader(release, sae_id)
        handles.append(_handle(name, sae_id, config, d_model, hook_shift, read))
    return fitting(handles, release, n_layers, hook_shift)


def is_release(spec: str) -> bool:
    """Whether sae-lens's directory has that release."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return spec.partition(":")[0] in get_pretrained_saes_directory()


def _released_ids(release: str, pattern: str) -> list[str]:
    """The SAE ids of a release that match the pattern, one a layer.

    Raises:
        SAEError: none does, or there are several a layer and no pattern.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    ids = list(get_pretrained_saes_directory()[release].saes_map)
    if pattern:
        wanted = re.compile(re.escape(pattern).replace(re.escape("{L}"), r"\d+"))
        ids = [sae_id for sae_id in ids if wanted.fullmatch(sae_id)]
        if not ids:
            raise SAEError(
                f"no SAE of {release} matches {pattern!r}; expected an id with {{L}} for the layer"
            )
    layers = [re.search(r"\d+", sae_id) for sae_id in ids]
    numbers = [match[0] for match in layers if match]
    if len(set(numbers)) < len(ids):
        raise SAEError(
            f"{release} has {len(ids)} SAEs, several a layer, such as {ids[0]!r}; "
            f"choose one a layer by --sae {release}:PATTERN with {{L}} in the layer's place"
        )
    return ids


def _released_reader(release: str, sae_id: str) -> Callable[[str], Any]:
    def read(device: str) -> Any:
        from sae_lens import SAE

        return SAE.from_pretrained(release, sae_id, device=device, dtype="float32")

    return read


def _handle(
    name: str,
    source: str,
    config: Mapping[str, Any],
    d_model: int,
    hook_shift: int,
    read: Callable[[str], Any],
) -> SAEHandle:
    """The handle of an SAE, placed by its own configuration.

    Raises:
        SAEError: it does not say where it belongs, writes elsewhere than it reads, or is of
            another width.
    """
    metadata = config.get("metadata") or {}
    hook_name = metadata.get("hook_name") or config.get("hook_name")
    if not isinstance(hook_name, str):
        raise SAEError(
            f"SAE {name} does not say where it belongs; expected metadata.hook_name in its cfg.json"
        )
    if metadata.get("hook_name_out") or config.get("hook_name_out"):
        raise SAEError(f"SAE {name} is a transcoder, which cannot steer; choose SAEs")
    if config.get("d_in") != d_model:
        raise SAEError(
            f"SAE {name} has d_in {config.get('d_in')}, but the model's residual stream has width "
            f"{d_model}; choose SAEs that were trained on this model"
        )
    hook_point = HookPoint.parse(hook_name)
    page = metadata.get("neuronpedia_id") or config.get("neuronpedia_id")
    return SAEHandle(
        layer=hook_point.layer,
        hook_point=hook_point.shifted(hook_shift),
        source=source,
        load=lambda device: LensSAE(name, read, device),
        neuronpedia=page if isinstance(page, str) else None,
    )


def fitting(
    handles: Sequence[SAEHandle], source: str, n_layers: int, hook_shift: int
) -> list[SAEHandle]:
    """Handles in the order of layers, those dropped that a shift moves out of the model.

    Raises:
        SAEError: one is of a layer that the model lacks, or two share a hook point.
    """
    for handle in handles:
        if not 0 <= handle.layer < n_layers:
            raise SAEError(
                f"SAE {handle.source} is of layer {handle.layer}, but the model has layers "
                f"0..{n_layers - 1}; choose SAEs of this model"
            )
    kept = [handle for handle in handles if 0 <= handle.hook_point.layer < n_layers]
    if not kept:
        raise SAEError(f"--hook-shift {hook_shift} moves every SAE of {source} out of the model")
    if len({handle.hook_point for handle in kept}) < len(kept):
        raise SAEError(f"{source} has two SAEs at one hook point; leave one for each")
    return sorted(kept, key=lambda handle: handle.hook_point.order)
