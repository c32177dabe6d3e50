"""Loading SAEs: the only place that knows sae-lens.

Changes when SAEs come from another source. What the rest of the package needs of an SAE is
`SparseCoder`: encode residuals, and give single rows of `W_dec`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
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
        source: release and id, or folder; what a run records.
        load: reads the weights onto a device.
    """

    layer: int
    hook_point: HookPoint
    source: str
    load: Callable[[torch.device], SparseCoder]


class LensSAE:
    """A sae-lens SAE behind the `SparseCoder` interface.

    It encodes in the SAE's own dtype, but no lower than float32.
    """

    def __init__(self, sae: Any):
        self._sae = sae.float() if sae.dtype.itemsize < 4 else sae
        self.d_sae = int(sae.cfg.d_sae)

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        """Activations by the SAE's own `encode`."""
        activations: Tensor = self._sae.encode(x)
        return activations

    def decoder_rows(self, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
        """Rows of `W_dec`."""
        rows: Tensor = self._sae.W_dec.detach()[list(latents)]
        return rows.float().cpu()


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
    configs = sorted(folder.glob("*/cfg.json")) or sorted(folder.glob("cfg.json"))
    if not configs:
        raise SAEError(
            f"no SAE in {folder}; expected folders with cfg.json and sae_weights.safetensors"
        )
    handles = [_local_handle(path, d_model, hook_shift) for path in configs]
    kept = [handle for handle in handles if 0 <= handle.hook_point.layer < n_layers]
    if not hook_shift and len(kept) < len(handles):
        wrong = next(handle for handle in handles if handle not in kept)
        raise SAEError(
            f"SAE {wrong.source} is of layer {wrong.layer}, but the model has layers "
            f"0..{n_layers - 1}; choose SAEs of this model"
        )
    places = [handle.hook_point for handle in kept]
    if len(set(places)) < len(places):
        raise SAEError(f"{folder} has two SAEs at one hook point; leave one for each")
    return sorted(kept, key=lambda handle: handle.hook_point.order)


def _local_handle(config_path: Path, d_model: int, hook_shift: int) -> SAEHandle:
    folder = config_path.parent
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        hook_name = (config.get("metadata") or {}).get("hook_name") or config.get("hook_name")
        d_in = config.get("d_in")
    except (OSError, ValueError, AttributeError) as error:
        raise SAEError(f"SAE {folder}: cfg.json cannot be read ({error}); expected JSON") from error
    if not isinstance(hook_name, str):
        raise SAEError(
            f"SAE {folder} does not say where it belongs; expected metadata.hook_name in cfg.json"
        )
    if d_in != d_model:
        raise SAEError(
            f"SAE {folder} has d_in {d_in}, but the model's residual stream has width {d_model}; "
            "choose SAEs that were trained on this model"
        )
    hook_point = HookPoint.parse(hook_name)
    return SAEHandle(
        layer=hook_point.layer,
        hook_point=hook_point.shifted(hook_shift),
        source=folder.name,
        load=lambda device: _load_local(folder, device),
    )


def _load_local(folder: Path, device: torch.device) -> LensSAE:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations at import
        from sae_lens import SAE
        from safetensors import SafetensorError
    try:
        sae = SAE.load_from_disk(folder, device=str(device), dtype="float32")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise SAEError(f"SAE {folder} cannot be loaded: {reason}; download it again") from error
    if not all(torch.isfinite(tensor).all() for tensor in sae.state_dict().values()):
        raise SAEError(f"SAE {folder} has NaN or infinity in its weights; download it again")
    return LensSAE(sae.requires_grad_(False))


def raw_residuals(d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """One handle a block that takes the dimensions of resid_post themselves for latents."""
    return [
        SAEHandle(
            layer=layer,
            hook_point=HookPoint(layer + hook_shift, "resid_post"),
            source="raw",
            load=lambda device: ResidualDimensions(d_model),
        )
        for layer in range(n_layers)
        if 0 <= layer + hook_shift < n_layers
    ]
