"""Loading SAEs by sae-lens: the only place that knows where they come from.

Changes when SAEs come from another source. What the rest of the package needs of an SAE is to
encode residuals (`SparseCoder`), and single rows of `W_dec` (`SAEHandle.decoder_rows`).
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from corrsteer.errors import SAEError
from corrsteer.files import regular
from corrsteer.hook_points import HookPoint

_SITE = re.compile(r"hook_\w+")
"""What tells SAEs of one layer apart in the ids of releases that have several sites."""

CHECKED_LATENTS = 4
"""So many latents' vectors are held to the SAE's own decode when it is loaded: the most active."""

UNFOLDED = {
    "expected_average_only_in": "fold_activation_norm_scaling_factor",
    "covariance_whitening": "fold_activation_whitening",
}
"""What is done to residuals outside of the SAE until it is folded in, and sae-lens's method that
does so."""

log = logging.getLogger(__name__)


@runtime_checkable
class SparseCoder(Protocol):
    """What collecting needs of an SAE.

    Attributes:
        d_sae: number of latents.
    """

    d_sae: int

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        """Activations of every latent, in float32 or wider."""
        ...


@runtime_checkable
class Load(Protocol):
    """Reads an encoder."""

    def __call__(
        self, device: torch.device, residuals: Float[Tensor, "rows d_model"] | None = None
    ) -> SparseCoder:
        """The encoder on a device; see `LensSAE` for the residuals."""
        ...


@runtime_checkable
class LoadVisiting(Protocol):
    """Reads an encoder into main memory."""

    def __call__(self, residuals: Float[Tensor, "rows d_model"] | None = None) -> SparseCoder:
        """The encoder; see `LensSAE` for the residuals."""
        ...


@dataclass(frozen=True)
class SAEHandle:
    """An SAE that can be loaded, and where it belongs.

    Attributes:
        layer: the layer that the SAE is named by.
        hook_point: where it is read and steered.
        source: id in its release, or folder; what a run records.
        load: reads the encoder onto a device.
        load_visiting: reads the encoder into main memory, for an SAE that visits the device; None
            where it takes no memory worth sparing.
        decoder_rows: reads what the SAE's decode adds for one unit of each latent, which are rows
            of `W_dec` (of unit norm where decode divides by it), in float32 on the CPU;
            [latents, d_model].
        neuronpedia: `model/source` of its pages there, or None.
        trained_on: the model that it says it was trained on, or None.
        prepend_bos: whether it was trained on texts that begin with the BOS token.
        files: what it is read from, of one in a folder.
        revision: commit of the repository that it is read from, where that is known.
    """

    layer: int
    hook_point: HookPoint
    source: str
    load: Load
    load_visiting: LoadVisiting | None = field(default=None, kw_only=True)
    decoder_rows: Callable[[Sequence[int]], Tensor]
    neuronpedia: str | None = None
    trained_on: str | None = None
    prepend_bos: bool = False
    files: tuple[Path, ...] = ()
    revision: str | None = None


def bfloat16_product(
    x: Float[Tensor, "rows d_model"], weights: Float[Tensor, "d_model d_sae"]
) -> Float[Tensor, "rows d_sae"]:
    """The product of both rounded to bfloat16, added up in float32.

    On a CPU oneDNN decides whether it rounds: where that gains nothing, it does not.
    """
    if x.device.type == "cuda":
        return torch.mm(x.bfloat16(), weights.bfloat16(), out_dtype=torch.float32)
    backends: Any = torch.backends.mkldnn
    settings = backends.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        return x @ weights
    finally:
        settings.fp32_precision = before


class LensSAE:
    """A sae-lens SAE behind the `SparseCoder` interface.

    It encodes in the SAE's own dtype, but no lower than float32. Where encoding does not read
    `W_dec`, half of the weights, that is let go.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[str], Any],
        device: torch.device,
        residuals: Float[Tensor, "rows d_model"] | None = None,
    ):
        """Read the SAE, and see that it is here what it is to sae-lens.

        Args:
            name: what errors call it.
            read: reads it onto a device.
            device: where it is to encode.
            residuals: what is encoded and decoded for that, best the model's own; drawn at random
                if None.

        Raises:
            SAEError: it cannot be loaded, or one vector a latent is not what its decode adds.
        """
        self._name = name
        self._sae = _read_sae(name, read, str(device))
        self.d_sae = int(self._sae.cfg.d_sae)
        self._lowered: Literal["no", "unmeasured", "yes"] = "no"
        _check_finite(name, self._sae.state_dict())
        x = _drawn_residuals(self._sae.cfg.d_in) if residuals is None else residuals
        x = x.to(device)
        expected = _checked_activations(name, self._sae, x)
        self._architecture = _plain_architecture(self._sae)
        if self._architecture and not torch.equal(self._encode(x, torch.matmul), expected):
            self._architecture = None
        if self._architecture or not _reads_decoder(self._sae, x, expected):
            self._sae.W_dec.data = torch.empty(0)

    def multiply_in_bfloat16(self) -> None:
        """Do so from now on, and say once by how much that changes activations.

        Raises:
            SAEError: the SAE is neither a standard nor a JumpReLU one.
        """
        if self._architecture is None:
            raise SAEError(
                f"SAE {self._name} is a {type(self._sae).__name__}, for which there is no "
                "--sae-dtype bfloat16; leave it at float32"
            )
        self._lowered = "unmeasured"

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        """Activations by the SAE's own `encode`, bit for bit unless it multiplies in bfloat16."""
        if self._architecture is None:
            activations: Tensor = self._sae.encode(x)
            return activations
        if self._lowered == "no":
            return self._encode(x, torch.matmul)
        z = self._encode(x, bfloat16_product)
        if self._lowered == "unmeasured":
            self._lowered = "yes"
            exact = self._encode(x, torch.matmul)
            log.info(
                "SAE %s in bfloat16: of %d rows' activations, up to %.3g, the largest change is "
                "%.2g",
                self._name,
                len(x),
                exact.max(),
                (z - exact).abs().max(),
            )
        return z

    @torch.no_grad()
    def _encode(
        self, x: Float[Tensor, "rows d_model"], product: Callable[[Tensor, Tensor], Tensor]
    ) -> Float[Tensor, "rows d_sae"]:
        """The steps of sae-lens 6, in place: on a CPU new memory costs more than using it."""
        sae = self._sae
        z = product(sae.process_sae_in(x), sae.W_enc).add_(sae.b_enc)
        if self._architecture == "standard":
            return z.relu_()
        above = z > sae.threshold
        return z.relu_().mul_(above)

    def weights(self) -> dict[str, Tensor]:
        """All that it encodes with."""
        return dict(self._sae.state_dict())

    def put(self, weights: Mapping[str, Tensor] | None) -> None:
        """Encode with these weights from now on; None lets go of those there are."""
        if weights is None:
            weights = {name: tensor.to("meta") for name, tensor in self.weights().items()}
        self._sae.load_state_dict(weights, assign=True)


def _plain_architecture(sae: Any) -> Literal["standard", "jumprelu"] | None:
    """Which of the two architectures it has that do nothing but threshold one product, if any."""
    from sae_lens import JumpReLUSAE, StandardSAE

    if type(sae) is JumpReLUSAE:
        return "jumprelu"
    return "standard" if type(sae) is StandardSAE else None


@torch.no_grad()
def _checked_activations(
    name: str, sae: Any, x: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows d_sae"]:
    """The activations of some residuals by an untouched SAE, whose decode is held to our vectors.

    Raises:
        SAEError: it does not encode one residual at a time, or what its decode adds for one latent
            is not the one vector that we would steer by.
    """
    kind = f"SAE {name} is a {type(sae).__name__}"
    try:
        z: Tensor = sae.encode(x)
    except Exception as error:  # of any class that sae-lens knows, now or later
        raise SAEError(
            f"{kind}, which does not encode single residuals ({_one_line(error)}); choose SAEs "
            "that do"
        ) from error
    busy = torch.topk(z.abs().amax(0), min(CHECKED_LATENTS, z.shape[1])).indices
    vectors = _decoded_rows(sae, busy.tolist())
    # so many units at once that b_dec, which is taken away again, does not drown them
    units = 1 + float(sae.b_dec.abs().max()) / max(float(vectors.abs().max()), 1e-12)
    raised = units * functional.one_hot(busy, z.shape[1]).to(z)
    added = (sae.decode(raised) - sae.decode(torch.zeros_like(raised))) / units
    difference = float((added - vectors).abs().max())
    if not difference <= 1e-3 * float(vectors.abs().max()):
        raise SAEError(
            f"{kind}, whose decode adds for one latent something else than its row of W_dec (up to "
            f"{difference:.3g} off), so no vector steers as it says; choose other SAEs"
        )
    return z


def _decoded_rows(sae: Any, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
    """What an SAE's decode adds for one unit of each latent, bit for bit.

    Its decode is given these latents alone, and no `b_dec` that rounding would leave a trace of.
    """
    whole, bias = sae.W_dec.data, sae.b_dec.data
    sae.W_dec.data, sae.b_dec.data = whole[list(latents)], torch.zeros_like(bias)
    try:
        added: Tensor = sae.decode(torch.eye(len(latents), dtype=whole.dtype, device=whole.device))
    finally:
        sae.W_dec.data, sae.b_dec.data = whole, bias
    return added.detach()


def _reads_decoder(
    sae: Any, x: Float[Tensor, "rows d_model"], expected: Float[Tensor, "rows d_sae"]
) -> bool:
    """Whether encoding looks at `W_dec`: then NaN in its place shows."""
    whole = sae.W_dec.data
    sae.W_dec.data = whole.new_full((), torch.nan).expand(whole.shape)
    try:
        return not torch.equal(sae.encode(x), expected)
    finally:
        sae.W_dec.data = whole


def _drawn_residuals(d_model: int) -> Float[Tensor, "rows d_model"]:
    """Residuals from the size of embeddings to that of late layers."""
    drawn = torch.randn(4, d_model, generator=torch.Generator().manual_seed(0))
    return drawn * torch.tensor([1.0, 3.0, 10.0, 100.0])[:, None]


class VisitingSAE:
    """A sae-lens SAE that waits in main memory, and is on its block's device only while it encodes.

    For SAEs that do not all fit beside the model.
    """

    def __init__(self, waiting: LensSAE):
        """Have an SAE that is in main memory visit from now on."""
        self.d_sae = waiting.d_sae
        self._weights = waiting.weights()
        self._visitor = waiting
        self._visitor.put(None)
        self._coming: dict[str, Tensor] | None = None
        self._there = False
        self._stream: torch.cuda.Stream | None = None

    def multiply_in_bfloat16(self) -> None:
        """See `LensSAE.multiply_in_bfloat16`."""
        self._visitor.multiply_in_bfloat16()

    def fetch(self, device: torch.device) -> None:
        """Begin the transfer to a device, beside what it works on; it stays until `leave`."""
        if self._there or self._coming is not None:
            return
        if device.type == "cuda" and self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # a transfer runs beside other work from pinned memory only
            for name in list(self._weights):
                self._weights[name] = self._weights[name].pin_memory()
        with torch.cuda.stream(self._stream):
            self._coming = {
                name: weight.to(device, non_blocking=True) for name, weight in self._weights.items()
            }

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_sae"]:
        """Activations by `LensSAE.encode`, on the device of `x`."""
        fetched = self._there or self._coming is not None
        try:
            self.fetch(x.device)
            self._arrive(x.device)
            return self._visitor.encode(x)
        finally:
            if not fetched:
                self.leave()

    def _arrive(self, device: torch.device) -> None:
        """Wait for the transfer and put its weights in place."""
        if self._coming is None:
            return
        if self._stream is not None:
            here = torch.cuda.current_stream(device)
            here.wait_stream(self._stream)
            for weight in self._coming.values():
                weight.record_stream(here)
        self._visitor.put(self._coming)
        self._coming, self._there = None, True

    def leave(self) -> None:
        """Let go of the weights on the device."""
        self._visitor.put(None)
        self._coming, self._there = None, False


def _lens_rows(
    name: str, read: Callable[[str], Any], latents: Sequence[int]
) -> Float[Tensor, "latents d_model"]:
    """What a sae-lens SAE's decode adds for one unit of each latent, in float32 on the CPU.

    Raises:
        SAEError: it cannot be loaded, has no such latent, or one of them holds NaN.
    """
    sae = _read_sae(name, read, "cpu")
    _check_latents(f"SAE {name}", len(sae.W_dec), latents)
    rows = _decoded_rows(sae, latents).float()
    _check_finite(name, {"W_dec": rows})
    return rows


def _check_latents(name: str, d_sae: int, latents: Sequence[int]) -> None:
    last = max(latents, default=-1)
    if last >= d_sae:
        raise SAEError(
            f"{name} has {d_sae} latents and none of number {last}; the run was made with "
            "another: train again"
        )


def _read_sae(name: str, read: Callable[[str], Any], device: str) -> Any:
    """The whole SAE.

    Raises:
        SAEError: it cannot be loaded, or is of a kind that cannot steer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations at import
        try:
            sae = read(device)
        except SAEError:
            raise
        except Exception as error:  # loaders of many formats raise many kinds
            raise SAEError(
                f"SAE {name} cannot be loaded: {_one_line(error)}; check the network and download "
                "it again"
            ) from error
    normalisation = sae.cfg.normalize_activations
    if normalisation in UNFOLDED:
        raise SAEError(
            f"SAE {name} is a {type(sae).__name__} that normalises activations by "
            f"{normalisation!r}, and its files do not say by how much; fold that in by sae-lens's "
            f"{UNFOLDED[normalisation]} and save it again"
        )
    if normalisation not in ("none", None):
        raise SAEError(
            f"SAE {name} is a {type(sae).__name__} that normalises activations by "
            f"{normalisation!r}, so what its decode adds for one latent differs from residual to "
            "residual, and no one vector is it; choose SAEs without normalisation"
        )
    return (sae.float() if sae.dtype.itemsize < 4 else sae).requires_grad_(False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _check_finite(name: str, weights: Mapping[str, Tensor]) -> None:
    for tensor in weights.values():
        # the extremes say it in one pass over the weights, without a mask of their size
        if tensor.numel() and not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
            raise SAEError(f"SAE {name} has NaN or infinity in its weights; download it again")


class ResidualDimensions:
    """No SAE: every dimension of the residual stream is its own latent (`--raw`)."""

    def __init__(self, d_model: int):
        self.d_sae = d_model

    def encode(self, x: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_model"]:
        """The residuals themselves, in float32."""
        return x.float()


def raw_residuals(d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """One handle a block that takes the dimensions of resid_post themselves for latents."""
    handles = [
        SAEHandle(
            layer=layer,
            hook_point=HookPoint(layer + hook_shift, "resid_post"),
            source="raw",
            load=lambda device, residuals=None: ResidualDimensions(d_model),
            decoder_rows=lambda latents: _raw_rows(d_model, latents),
        )
        for layer in range(n_layers)
    ]
    return fitting(handles, "raw", n_layers, hook_shift)


def _raw_rows(d_model: int, latents: Sequence[int]) -> Float[Tensor, "latents d_model"]:
    _check_latents("the model", d_model, latents)
    return torch.eye(d_model)[list(latents)]


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
    handles = [_local_handle(path, d_model, hook_shift) for path in paths]
    return fitting(handles, str(folder), n_layers, hook_shift)


def _local_handle(path: Path, d_model: int, hook_shift: int) -> SAEHandle:
    folder, config = path.parent, _local_config(path)
    read = _local_reader(folder, config)
    handle = _handle(str(folder), folder.name, config, d_model, hook_shift, read)
    return replace(handle, files=(path, folder / "sae_weights.safetensors"))


def _local_config(path: Path) -> dict[str, Any]:
    try:
        regular(path.parent)
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SAEError(
            f"SAE {path.parent}: cfg.json cannot be read ({error}); expected JSON"
        ) from error
    if not isinstance(config, dict):
        raise SAEError(f"SAE {path.parent}: cfg.json cannot be read; expected a JSON object")
    return config


def _local_reader(folder: Path, config: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(device: str) -> Any:
        from sae_lens import SAE
        from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

        kind = config.get("architecture")
        if kind in SAE_TRAINING_CLASS_REGISTRY and kind not in SAE_CLASS_REGISTRY:
            raise SAEError(
                f"SAE {folder} is a {kind} one as it is trained, whose activations depend on the "
                "batch; save it by sae-lens's save_inference_model"
            )
        dtype = "float64" if str(config.get("dtype")).endswith("float64") else "float32"
        return SAE.load_from_disk(folder, device=device, dtype=dtype)

    return read


def released_saes(spec: str, d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """The SAEs of a release in sae-lens's directory, one a layer.

    Args:
        spec: `RELEASE`, or `RELEASE:PATTERN` where the release has several SAEs a layer; PATTERN is
            an SAE id with `{L}` in the layer's place.
        d_model: width of the model they must fit.
        n_layers: number of its blocks. SAEs of later layers are left out, with a notice, so that a
            model cut short can be steered by the SAEs of the whole one.
        hook_shift: read and steer this many blocks later than the SAEs say.

    Raises:
        SAEError: no such release or pattern, or SAEs that do not fit the model.
    """
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    release, _, pattern = spec.partition(":")
    ids = _released_ids(release, pattern)
    within = {sae_id: layer for sae_id, layer in ids.items() if layer < n_layers}
    if len(within) < len(ids):
        log.info(
            "%s: %d SAEs are of layers after the model's last, %d, and are left out",
            release,
            len(ids) - len(within),
            n_layers - 1,
        )
    handles = []
    for sae_id in within:
        name = f"{release} {sae_id}"
        try:
            config = load_sae_config_from_huggingface(release, sae_id)
        except Exception as error:  # loaders of many formats raise many kinds
            raise SAEError(
                f"SAE {name} cannot be loaded: {_one_line(error)}; check the network and that you "
                "are logged in if it is gated"
            ) from error
        read = _released_reader(release, sae_id)
        handle = _handle(name, sae_id, config, d_model, hook_shift, read)
        handles.append(replace(handle, revision=_released_commit(release)))
    return fitting(handles, release, n_layers, hook_shift)


def is_release(spec: str) -> bool:
    """Whether sae-lens's directory has that release."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return spec.partition(":")[0] in get_pretrained_saes_directory()


def _released_ids(release: str, pattern: str) -> dict[str, int]:
    """The SAE ids of a release that match the pattern, one a layer, with their layers.

    Raises:
        SAEError: none does, or there are several a layer and no pattern.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    everything = get_pretrained_saes_directory()[release].saes_map
    wanted = re.compile(re.escape(pattern).replace(re.escape("{L}"), r"(\d+)"))
    matches = {
        sae_id: wanted.fullmatch(sae_id) if pattern else re.search(r"(\d+)", sae_id)
        for sae_id in everything
    }
    ids = {sae_id: int(match[1]) for sae_id, match in matches.items() if match}
    if not ids:
        raise SAEError(
            f"no SAE of {release} matches {pattern!r}; expected an id with {{L}} for the layer, as "
            f"in {next(iter(everything))!r}"
        )
    sites = {(layer, *_SITE.findall(sae_id)) for sae_id, layer in ids.items()}
    if len(sites) < len(ids):
        raise SAEError(
            f"{release} has {len(ids)} SAEs, several a layer, such as {next(iter(ids))!r}; "
            f"choose one a layer by --sae {release}:PATTERN with {{L}} in the layer's place"
        )
    return ids


def _released_commit(release: str) -> str | None:
    """The commit of a release's repository in the hub's cache; None where it is not there yet."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    repository = get_pretrained_saes_directory()[release].repo_id
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    try:
        return (Path(HF_HUB_CACHE) / folder / "refs" / "main").read_text().strip()
    except OSError:
        return None


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
    # loaders of older formats put these beside the sizes, not under "metadata"
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise SAEError(f"SAE {name}: metadata in its cfg.json is no object; download it again")
    said = {**config, **metadata}
    hook_name = said.get("hook_name")
    if not isinstance(hook_name, str):
        raise SAEError(
            f"SAE {name} does not say where it belongs; expected metadata.hook_name in its cfg.json"
        )
    if said.get("hook_name_out") or "transcoder" in str(config.get("architecture")):
        raise SAEError(f"SAE {name} is a transcoder, which cannot steer; choose SAEs")
    if config.get("d_in") != d_model:
        raise SAEError(
            f"SAE {name} has d_in {config.get('d_in')}, but the model's residual stream has width "
            f"{d_model}; choose SAEs that were trained on this model"
        )
    hook_point = HookPoint.parse(hook_name)
    page, trained_on = said.get("neuronpedia_id"), said.get("model_name")
    return SAEHandle(
        layer=hook_point.layer,
        hook_point=hook_point.shifted(hook_shift),
        source=source,
        load=lambda device, residuals=None: LensSAE(name, read, device, residuals),
        load_visiting=lambda residuals=None: VisitingSAE(
            LensSAE(name, read, torch.device("cpu"), residuals)
        ),
        decoder_rows=lambda latents: _lens_rows(name, read, latents),
        neuronpedia=page if isinstance(page, str) else None,
        trained_on=trained_on if isinstance(trained_on, str) else None,
        prepend_bos=said.get("prepend_bos") is True,
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
