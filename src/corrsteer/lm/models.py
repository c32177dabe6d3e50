"""Loading language models and tokenizers: the only place that knows how models are named.

Changes when a model gets a name of its own, or is loaded in another way.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corrsteer.errors import CorrSteerError, ModelError, SAEError
from corrsteer.files import check_weights, expanded, regular
from corrsteer.hook_points import HookPoint
from corrsteer.lm.chat_template import rendered
from corrsteer.lm.conventions import end_tokens, opening, prompt_tokens, reply_greedily
from corrsteer.lm.decoding import Decoder, greedy, length_batches
from corrsteer.lm.gguf import model_path
from corrsteer.lm.hooks import find_blocks
from corrsteer.lm.known_models import KNOWN_MODELS, RAW, check_model_name, without_saes
from corrsteer.lm.load_check import TEXTS, TOKENS, check_replies, residuals_of, shares_prefix
from corrsteer.lm.quiet import quiet_transformers
from corrsteer.lm.saes import SAEHandle, is_release, local_saes, raw_residuals, released_saes
from corrsteer.notebook import overview
from corrsteer.samples import Sample

AUTO_DEVICE = "auto"
"""Given as the device, spreads a model over all there are."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFacts:
    """What can be told of a model, and of what it is steered by, without its weights.

    Attributes:
        id, revision, saes, sae_source, hook_shift, prepend_bos: see `LanguageModel`.
        dtype: of the weights, as `float32`.
        switched_off: see `LanguageModel`; None where it is not loaded yet.
    """

    id: str
    revision: str | None
    dtype: str
    saes: Sequence[SAEHandle]
    sae_source: str | None
    hook_shift: int
    prepend_bos: bool
    switched_off: tuple[str, ...] | None = None


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer and SAEs.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        id: the known name, hub id or folder it was asked for by.
        revision: commit of the hub, or None.
        saes: handles of its SAEs in the order of layers; weights are not loaded yet.
        sae_source: release or folder the SAEs came from, or `raw`.
        hook_shift: blocks by which SAEs are read and steered later than they say.
        prepend_bos: whether prompts begin with BOS also where the tokenizer adds none.
        switched_off: its own generation settings that would have changed greedy replies.
        shares_prefix: see `Decoder`.
    """

    model: Any
    tokenizer: Any
    id: str
    revision: str | None = None
    saes: Sequence[SAEHandle] = field(default=(), repr=False)
    sae_source: str | None = None
    hook_shift: int = 0
    prepend_bos: bool = False
    switched_off: tuple[str, ...] = ()
    shares_prefix: bool = True

    @property
    def facts(self) -> ModelFacts:
        """What `facts_of` tells of it before it is loaded."""
        return ModelFacts(
            self.id,
            self.revision,
            _dtype_name(self.model.dtype),
            self.saes,
            self.sae_source,
            self.hook_shift,
            self.prepend_bos,
            self.switched_off,
        )

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(find_blocks(self.model))

    @property
    def device(self) -> torch.device:
        """Where the embeddings are, and so where prompts go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def device_of(self, hook_point: HookPoint) -> torch.device:
        """Where a block is, and so the SAE that reads it."""
        block = find_blocks(self.model)[hook_point.layer]
        return next(block.parameters()).device

    def decoder_for(self, letters: str) -> Decoder:
        """The decoder, with each reply's tokens chosen among these letters alone.

        Args:
            letters: with or without a space before them; "" for any token.

        Raises:
            ModelError: the tokenizer has no single token for one of them.
        """
        if not letters:
            return self.decoder
        allowed = set()
        for letter in letters:
            spellings = [
                self.tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (letter, f" {letter}")
            ]
            tokens = {ids[0] for ids in spellings if len(ids) == 1}
            tokens -= {self.tokenizer.unk_token_id}
            if not tokens:
                raise ModelError(
                    f"the tokenizer of {self.id} has no single token for {letter!r}; "
                    "leave --select-token out"
                )
            allowed |= tokens
        return replace(self.decoder, allowed=tuple(sorted(allowed)))

    @cached_property
    def decoder(self) -> Decoder:
        """Model and special ids, as decoding needs them.

        Raises:
            ModelError: the tokenizer has neither a padding nor an EOS token.
        """
        eos = end_tokens(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        if pad is None:
            if not eos:
                raise ModelError(
                    f"the tokenizer of {self.id} has neither a padding nor an EOS token; expected "
                    "one of them: set tokenizer.pad_token and save the tokenizer again"
                )
            pad = min(eos)
            log.info("%s: no padding token, batches are filled with EOS behind the mask", self.id)
        return Decoder(
            self.model,
            int(pad),
            frozenset(eos),
            most_positions=self.most_positions,
            shares_prefix=self.shares_prefix,
        )

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Token ids of a sample's prompt; special tokens begin it once, and none is put behind it.

        BOS comes first, also where the tokenizer adds none, if the SAEs were trained so.

        Raises:
            ModelError: a chat that the model's template does not take whole, a prompt without
                tokens, or one that is too long.
        """
        if sample.messages is None:
            self._check_length(sample)
        ids = self.tokens(sample)
        if not ids:
            raise ModelError(
                f"sample {sample.id!r}: the prompt has no tokens; expected at least one"
            )
        longest = self.most_positions
        if longest is not None and len(ids) > longest:
            raise ModelError(
                f"sample {sample.id!r}: the prompt has {len(ids)} tokens, and {self.id} takes at "
                f"most {longest}; shorten it"
            )
        return ids

    def tokens(self, sample: Sample, reply: str = "") -> list[int]:
        """Token ids of a sample's prompt, whether or not the model has positions for them.

        Args:
            sample: any.
            reply: a text that follows the prompt.

        Raises:
            ModelError: a chat that the model's template does not take whole, or a token that the
                model does not know.
        """
        text, first = sample.prompt, self._opening
        if sample.messages is not None:  # a template writes special tokens itself
            text, first = rendered(self.tokenizer, self.id, sample), []
        ids = prompt_tokens(self.tokenizer, text + reply, self._begun(first))
        self._check_known(ids, f"sample {sample.id!r}")
        return ids

    def pieces_of(self, text: str, length: int) -> list[list[int]]:
        """Token ids of a text of any length, cut into pieces; each begins as a prompt does.

        Args:
            text: which may be empty.
            length: the most tokens of a piece, those it begins with among them.

        Raises:
            ModelError: the tokenizer is not the model's own.
        """
        ids = prompt_tokens(self.tokenizer, text, [])
        self._check_known(ids, "the text")
        first = self._begun(self._opening)
        step = max(length - len(first), 1)
        return [[*first, *ids[start : start + step]] for start in range(0, len(ids), step)]

    def _begun(self, first: list[int]) -> list[int]:
        """What a prompt begins with, with BOS if the SAEs were trained so."""
        bos = self.tokenizer.bos_token_id
        return [bos, *first] if self.prepend_bos and bos not in (None, *first[:1]) else first

    def _check_known(self, ids: Sequence[int], what: str) -> None:
        known = self._n_embeddings
        if max(ids, default=0) >= known:
            raise ModelError(
                f"{what}: the tokenizer gives token {max(ids)}, and {self.id} has "
                f"embeddings of {known} tokens; take the model's own tokenizer"
            )

    def prompts_of(
        self, samples: Sequence[Sample], max_new_tokens: int, what: str
    ) -> list[list[int]]:
        """Token ids of samples' prompts; says so if replies will be cut to fit behind them.

        Args:
            samples: in any order.
            max_new_tokens: longest reply.
            what: the samples are called.

        Raises:
            ModelError: see `prompt_ids`.
        """
        prompts = [self.prompt_ids(sample) for sample in samples]
        rooms = [self.decoder.room(ids, max_new_tokens) for ids in prompts]
        cut = sum(room < max_new_tokens for room in rooms)
        if cut:
            log.info(
                "%s: %d of %d prompts leave room for fewer than %d tokens within the %d positions "
                "of %s; their replies end there, steered or not",
                *(what, cut, len(prompts), max_new_tokens, self.most_positions, self.id),
            )
        return prompts

    @property
    def check_prompts(self) -> list[list[int]]:
        """Two short prompts, with room for a reply, for what is to be tried on this model.

        Those of a vocabulary without words, as of numbers, are its first tokens.
        """
        most = self.most_positions and max(self.most_positions - 2 * TOKENS, 1)
        prompts = [self.tokens(Sample("check", text))[:most] for text in TEXTS]
        if all(prompts):
            return prompts
        return [list(range(min(size, self._n_embeddings)))[:most] for size in (3, 9)]

    @cached_property
    def _opening(self) -> list[int]:
        return opening(self.tokenizer)

    @property
    def most_positions(self) -> int | None:
        """How many positions the model was made for; None for any number."""
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return longest if isinstance(longest, int) else None

    def _check_length(self, sample: Sample) -> None:
        """Refuse a text that is too long even if it were of the longest tokens there are."""
        longest, size = self.most_positions, len(sample.prompt)
        if longest is None or size <= 16 * longest:
            return
        widest = max(map(len, self.tokenizer.get_vocab()))
        if size > widest * longest:
            raise ModelError(
                f"sample {sample.id!r}: the prompt has {size} characters, and {self.id} takes at "
                f"most {longest} tokens; shorten it"
            )

    @cached_property
    def _n_embeddings(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    def own_residuals(
        self, hook_points: Sequence[HookPoint]
    ) -> dict[HookPoint, Float[Tensor, "pos d_model"]]:
        """Residuals of a short prompt, for what is to be tried on residuals of this model."""
        return residuals_of(self.model, self.check_prompts[1], hook_points)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 32, batch_size: int = 32
    ) -> list[str]:
        """The greedy reply to each prompt.

        Args:
            prompts: texts; one text alone is taken for a list of one.
            max_new_tokens: longest reply.
            batch_size: prompts run at once.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        samples = [Sample(str(index), text) for index, text in enumerate(prompts)]
        ids = self.prompts_of(samples, max_new_tokens, "prompts")
        replies = [""] * len(ids)
        for batch in length_batches([len(prompt) for prompt in ids], batch_size):
            decoded = greedy(self.decoder, [ids[index] for index in batch], max_new_tokens)
            for index, reply in zip(batch, decoded, strict=True):
                replies[index] = self.decode(reply)
        return replies

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._facts().items())
        return f"LanguageModel({self.id!r}, {facts})"

    def _repr_html_(self) -> str:
        return overview(f"Language model {self.id}", self._facts())

    def _facts(self) -> dict[str, str]:
        saes = f"{len(self.saes)} of {self.sae_source}" if self.saes else "none"
        return {
            "class": type(self.model).__name__,
            "layers": str(self.n_layers),
            "d_model": str(self.d_model),
            "dtype": _dtype_name(self.model.get_input_embeddings().weight.dtype),
            "device": str(self.device),
            "saes": saes,
        }


def load_model(
    name: str,
    sae: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    hook_shift: int = 0,
    revision: str | None = None,
    prepend_bos: bool = False,
) -> LanguageModel:
    """A language model with handles to its SAEs.

    Args:
        name: a known name, a hub id or a folder.
        sae: a folder of SAEs in sae-lens's format, a release of its directory (`RELEASE` or
            `RELEASE:PATTERN`), or `raw` for none; a known model brings its own.
        dtype: float32, bfloat16 or float16; bfloat16 on a GPU and float32 on a CPU by default.
        device: cpu, cuda, cuda:1, mps; the best there is by default. `auto` spreads the blocks over
            all GPUs, and the memory beside them if need be (needs accelerate).
        hook_shift: read and steer this many blocks later than the SAEs say.
        revision: commit, tag or branch of a hub id; its main branch by default.
        prepend_bos: begin prompts with BOS also where the tokenizer adds none, as a run did whose
            SAEs, trained so, are not loaded here; those that are loaded ask for it themselves.

    Raises:
        UnknownNameError: nothing is known under that name.
        ModelError, SAEError: it cannot be loaded, or the parts do not fit.
    """
    if sys.flags.optimize > 1:
        raise ModelError(
            "Python runs without docstrings (-OO, PYTHONOPTIMIZE=2), which transformers needs; "
            "unset PYTHONOPTIMIZE, or use -O"
        )
    name = str(expanded(name))
    known = KNOWN_MODELS.get(name)
    spread = device == AUTO_DEVICE
    where = _device(None if spread else device)
    quiet_transformers()
    path = model_path(name)
    placing = _device_map() if spread else {}
    at = {"revision": revision} if revision else {}
    tokenizer = _load(name, path, "AutoTokenizer", **at)
    weights = {"use_safetensors": True, "dtype": _dtype(dtype, where)}  # never a pickle
    model = _load_network(name, path, revision, **weights, **placing)
    model = model.eval().requires_grad_(False)
    model = model if spread else model.to(where)
    lm = LanguageModel(
        model=model,
        tokenizer=tokenizer,
        id=name,
        revision=_revision(path, revision),
        hook_shift=hook_shift,
        prepend_bos=prepend_bos,
    )
    source = sae or (known.saes if known else None)
    if source is not None:
        lm.saes = find_saes(source, lm.d_model, lm.n_layers, hook_shift)
        lm.sae_source = name if known and sae is None else source
        lm.prepend_bos |= any(handle.prepend_bos for handle in lm.saes)
        _tell_if_trained_elsewhere(lm.saes, path)
    _settle(lm)
    return lm


def _settle(lm: LanguageModel) -> None:
    """Switch off what would change greedy replies, and hold decoding to the model's own.

    Raises:
        ModelError: see `check_replies`.
    """
    lm.switched_off = tuple(reply_greedily(lm.model, lm.tokenizer))
    if lm.switched_off:
        log.info(
            "%s: its generation settings %s change greedy replies and are off here",
            *(lm.id, ", ".join(lm.switched_off)),
        )
    check_replies(lm.decoder, lm.check_prompts, lm.id)
    lm.shares_prefix = shares_prefix(lm.decoder, lm.check_prompts)
    del lm.decoder  # which did not know yet
    if not lm.shares_prefix:
        log.info(
            "%s: %s cannot decode several arms behind one prefix; they run one by one",
            *(lm.id, type(lm.model).__name__),
        )


def _tell_if_trained_elsewhere(saes: Sequence[SAEHandle], model: str) -> None:
    """Say so where the SAEs name a model that neither is nor begins like this one.

    SAEs of a base model are often used on its instruction-tuned sibling, and one model goes by
    several names, so this is no reason to refuse.
    """
    asked = model.rpartition("/")[2].lower()
    for trained_on in {sae.trained_on for sae in saes if sae.trained_on}:
        named = trained_on.rpartition("/")[2].lower()
        if not Path(model).exists() and not (asked.startswith(named) or named.startswith(asked)):
            log.info("the SAEs say they were trained on %s, not on %s", trained_on, model)


def _device_map() -> dict[str, str]:
    if find_spec("accelerate") is None:
        raise ModelError("--device auto needs accelerate; pip install accelerate")
    return {"device_map": AUTO_DEVICE}


def facts_of(
    name: str,
    sae: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    hook_shift: int = 0,
    revision: str | None = None,
    prepend_bos: bool = False,
) -> ModelFacts:
    """What `load_model` with these arguments would load, told by configurations alone.

    Raises:
        UnknownNameError, ModelError, SAEError: see `load_model`.
    """
    name = str(expanded(name))
    known = KNOWN_MODELS.get(name)
    where = _device(None if device == AUTO_DEVICE else device)
    source = name if known and known.saes and sae is None else sae
    saes = [] if source is None else saes_of(name, source, hook_shift, revision)
    return ModelFacts(
        name,
        _revision(model_path(name), revision),
        _dtype_name(_dtype(dtype, where)),
        saes,
        source,
        hook_shift,
        prepend_bos or any(handle.prepend_bos for handle in saes),
    )


def saes_of(
    model: str, source: str | None, hook_shift: int = 0, revision: str | None = None
) -> list[SAEHandle]:
    """Handles of the SAEs that a run used, by the model's configuration; no model is loaded.

    Args:
        model: `LanguageModel.id`.
        source: `LanguageModel.sae_source`.
        hook_shift: see `load_model`.
        revision: see `load_model`.

    Raises:
        SAEError: the run had no SAEs, or they are not there any more.
        UnknownNameError, ModelError: the model's configuration cannot be read.
    """
    if source is None:
        raise SAEError(f"{model} was run without SAEs; {without_saes(model)}")
    known = KNOWN_MODELS.get(model)
    at = {"revision": revision} if revision else {}
    config = _load(model, model_path(model), "AutoConfig", **at).get_text_config()
    own = known.saes if known and source == model else None
    return find_saes(own or source, config.hidden_size, config.num_hidden_layers, hook_shift)


def find_saes(source: str, d_model: int, n_layers: int, hook_shift: int = 0) -> list[SAEHandle]:
    """Handles of the SAEs that `--sae` names.

    Args:
        source: a folder, a release of sae-lens's directory, or `raw`.
        d_model: width of the model.
        n_layers: its number of blocks.
        hook_shift: see `load_model`.

    Raises:
        SAEError: nothing there, or it does not fit the model.
    """
    source = str(expanded(source))
    if source == RAW:
        return raw_residuals(d_model, n_layers, hook_shift)
    if os.path.isdir(source):  # noqa: PTH112
        return local_saes(Path(source), d_model, n_layers, hook_shift)
    if is_release(source):
        return released_saes(source, d_model, n_layers, hook_shift)
    raise SAEError(
        f"no SAEs at {source[:300]!r}; expected a folder of SAEs, a release of sae-lens's "
        "directory, or --raw for none"
    )


def _load(name: str, path: str, kind: str, **options: Any) -> Any:
    """A tokenizer, configuration or model by transformers, with its errors made ours."""
    check_model_name(name)
    import transformers

    with _loading(name, path):
        return getattr(transformers, kind).from_pretrained(path, trust_remote_code=False, **options)


def _load_network(name: str, path: str, revision: str | None, **options: Any) -> Any:
    """The model of a hub id or folder; of an adapter, its base model with the adapter in it.

    Raises:
        ModelError: it cannot be loaded, or its files hold other weights than it has.
    """
    check_model_name(name)
    from transformers.utils import cached_file, find_adapter_config_file

    at = {"revision": revision} if revision else {}
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with _loading(name, path):
        adapter = find_adapter_config_file(path, **at)
        config = json.loads(Path(adapter).read_text(encoding="utf-8")) if adapter else {}
        base = config.get("base_model_name_or_path") or path
        if base == path:
            model, weights = _load(name, path, "AutoModelForCausalLM", **options, **told, **at)
            check_weights(f"model {name[:300]!r}", weights, ModelError)
            return model
        cached_file(path, "adapter_model.safetensors", **at)  # or a pickle would do
    model = _load_network(base, base, None, **options)
    with _loading(name, path):
        weights = model.load_adapter(path, adapter_kwargs=at)
    check_weights(f"adapter {name[:300]!r}", vars(weights), ModelError)
    return model


@contextmanager
def _loading(name: str, path: str) -> Iterator[None]:
    """While inside, errors of transformers are made ours, and its deprecations are not heard."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            regular(Path(path))
            yield
    except CorrSteerError:
        raise
    except Exception as error:  # transformers raises many kinds for a model that is not there
        reason = " ".join(str(error).split())
        raise ModelError(
            f"model {name[:300]!r} cannot be loaded: {reason[:300]}; check the name, the network "
            "and that you are logged in if it is gated"
        ) from error


def _revision(path: str, asked: str | None) -> str | None:
    """The commit of the hub that a model was read at; None for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(path).exists():
        return None
    config = try_to_load_from_cache(path, "config.json", revision=asked)
    return Path(config).parent.name if isinstance(config, str) else None


def _device(device: str | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {device!r} cannot be used ({reason}); try cpu") from error
    return where


def _dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in known:
        raise ModelError(f"unknown dtype {dtype!r}; choose {', '.join(known)}")
    return known[dtype]


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
