"""Reading and changing the residual stream: the only place that registers forward hooks.

Changes when a site of a block is reached in another way, or a forward pass is laid out otherwise.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from corrsteer.errors import ModelError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.conventions import decoder_blocks, mlp_output, steered
from corrsteer.settings import Positions

Tap = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"] | None]
"""Sees the residual at a hook point; what it returns, unless None, takes its place."""


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of the language model's transformer blocks.

    Raises:
        ModelError: no list of as many modules as the configuration has layers.
    """
    try:
        return decoder_blocks(model)
    except LookupError as error:
        raise ModelError(f"{error}; expected a decoder-only model of transformers") from error


@contextmanager
def tapped(model: nn.Module, taps: Mapping[HookPoint, Tap]) -> Iterator[None]:
    """While inside, each tap sees (and may replace) the residual at its hook point.

    All hooks are removed on leaving, also by an exception, also by one while they are set up.
    Hidden states that transformers is asked for inside are those that the taps leave behind.

    Raises:
        ModelError: the model has no such hook point.
    """
    blocks = find_blocks(model)
    drop_capturing_hooks(model)  # or those put there before would run before the taps
    with ExitStack() as stack:
        stack.enter_context(_as_written(model))
        for hook_point, tap in taps.items():
            if not 0 <= hook_point.layer < len(blocks):
                raise ModelError(
                    f"layer {hook_point.layer} is not in 0..{len(blocks) - 1} of "
                    f"{type(model).__name__}; choose layers from that range"
                )
            block = blocks[hook_point.layer]
            if hook_point.site == "resid_pre":
                handle = block.register_forward_pre_hook(_on_input(tap), with_kwargs=True)
            else:
                module = block if hook_point.site == "resid_post" else _mlp_out(block)
                handle = module.register_forward_hook(_on_output(tap))
            stack.callback(handle.remove)
        yield


def unwrapped(model: Any) -> Any:
    """The transformers model inside what peft, torch.compile or parallel modules put around it.

    Raises:
        ModelError: a wrapper adds positions, or runs copies, so that nobody knows what is steered.
    """
    while True:
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise ModelError("DataParallel runs copies of the model; steer its .module instead")
        if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
            raise ModelError(
                f"{type(model).__name__} puts learned positions before the prompt, where steering "
                "was not evaluated; steer a model with a LoRA adapter, or with none"
            )
        if callable(getattr(model, "get_base_model", None)):  # peft
            inner = model.get_base_model()
        else:
            inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module) or inner is model:
            return model
        model = inner


def _as_written(model: nn.Module) -> AbstractContextManager[object]:
    """While inside, what torch.compile made of the model is not used: it would not see hooks.

    Raises:
        ModelError: this version of torch cannot do so.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    if hasattr(torch.compiler, "set_stance"):
        eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eager
    if any(hasattr(each, "_orig_mod") or each._compiled_call_impl for each in model.modules()):
        raise ModelError("a compiled model can be steered from torch 2.6 on; give the one inside")
    return nullcontext()


def drop_capturing_hooks(model: nn.Module) -> None:
    """Take off the hooks by which transformers answers `output_hidden_states` and the like.

    Once such an output has been asked for they stay for good, idle; transformers puts them back
    when it misses them. Until then nothing tells that they were ever there.
    """
    for owner in model.modules():
        if not owner.__dict__.pop("_output_capturing_hooks_installed", False):
            continue
        for module in owner.modules():
            hooks = module._forward_hooks
            for key in [key for key, hook in hooks.items() if _is_capturing(hook)]:
                del hooks[key]


def _is_capturing(hook: Callable[..., Any]) -> bool:
    return getattr(hook, "__module__", None) == "transformers.utils.output_capturing"


def is_hooked(model: nn.Module) -> bool:
    """Whether anything reads or changes what its modules compute."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _mlp_out(block: nn.Module) -> nn.Module:
    try:
        return mlp_output(block)
    except LookupError as error:
        raise ModelError(f"{error}; use SAEs of resid_pre or resid_post") from error


def _on_output(tap: Tap) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return tap(output)
        changed = tap(output[0])
        return None if changed is None else (changed, *output[1:])

    return hook


def _on_input(tap: Tap) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            changed = tap(args[0])
            return None if changed is None else ((changed, *args[1:]), kwargs)
        changed = tap(kwargs["hidden_states"])
        return None if changed is None else (args, {**kwargs, "hidden_states": changed})

    return hook


class Scope:
    """Which positions of the current forward pass are steered, kept up to date by hooks.

    Generated positions are the last prompt position and all later ones. Inside the model's own
    `generate` the prompt's length is known, so chunked prefill, assisted decoding and decoding
    without a cache are all exact. Outside it, a pass over one token with a cache is a generated
    position; a pass without a cache that extends the ids of the pass before goes on with that
    prompt; any other pass is a prompt, of which the last unpadded position is steered.
    """

    def __init__(self, positions: Positions):
        self.positions = positions
        self.prompt_length: int | None = None
        self._mask: Bool[Tensor, "batch pos"] | None = None
        self._depth = 0  # of modules within one another whose forward is running
        self._ids: Tensor | None = None
        self._starts: Tensor | None = None

    @property
    def mask(self) -> Bool[Tensor, "batch pos"] | None:
        """True at the steered positions, or None where all are.

        Raises:
            ModelError: the pass did not come by the model.
        """
        if not self._depth:
            raise ModelError(
                "a block is run outside of its model's forward pass, so that which of its "
                "positions are steered is not known; call the model itself"
            )
        return self._mask

    def before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Work out the steered positions of the forward pass about to run.

        The outermost module knows most; those within are heard where it was passed over, as by
        wrappers that call `forward` alone.
        """
        self._depth += 1
        if self._depth > 1:
            return
        inputs = args[0] if args else kwargs.get("input_ids")
        inputs = kwargs.get("inputs_embeds") if inputs is None else inputs
        batch, length = inputs.shape[:2]
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        if self.positions == "all":
            self._mask = self._unpadded(mask, past, length)
        elif self.prompt_length is not None:
            positions = past + torch.arange(length, device=inputs.device)
            self._mask = (positions >= self.prompt_length - 1).expand(batch, length)
        elif past and length == 1:
            self._mask = None
        elif mask is not None and not _is_flat(mask):
            raise ModelError(
                "where prompts end cannot be told by an attention mask that is not "
                "[batch, positions]; give such a one, or use generate"
            )
        else:
            unpadded = self._unpadded(mask, past, length)
            starts = self._prompt_ends(inputs, unpadded)
            self._mask = torch.arange(length, device=inputs.device) >= starts[:, None]
            if unpadded is not None:
                self._mask = self._mask & unpadded

    def after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forget the pass that has run, also if it failed."""
        self._depth -= 1

    @staticmethod
    def _unpadded(mask: Any, past: int, length: int) -> Bool[Tensor, "batch pos"] | None:
        """Where the 2-D mask has tokens; None where there is no such mask."""
        return mask[:, past : past + length].bool() if _is_flat(mask) else None

    def _prompt_ends(self, inputs: Tensor, unpadded: Tensor | None) -> Tensor:
        """Position P-1 of every row: that of the pass before, if this pass goes on with it."""
        ids = inputs if inputs.dim() == 2 else None
        before, self._ids = self._ids, ids
        if (
            ids is not None
            and before is not None
            and self._starts is not None
            and before.shape[0] == ids.shape[0]
            and before.shape[1] < ids.shape[1]
            and torch.equal(before, ids[:, : before.shape[1]])
        ):
            return self._starts
        length = inputs.shape[1]
        if unpadded is None:
            self._starts = torch.full((inputs.shape[0],), length - 1, device=inputs.device)
        else:
            last = length - 1 - unpadded.int().flip(1).argmax(1)
            self._starts = last
        return self._starts


def _is_flat(mask: Any) -> bool:
    return isinstance(mask, Tensor) and mask.dim() == 2


@contextmanager
def adding(
    model: nn.Module,
    vectors: Mapping[HookPoint, Float[Tensor, " d_model"]],
    positions: Positions = "generated",
) -> Iterator[None]:
    """While inside, each vector is added to the residual at its hook point.

    Vectors are cast to the residual's dtype and added there; with no vectors nothing is hooked,
    so the model is bitwise itself.

    Args:
        model: a causal language model of transformers, or a wrapper of one.
        vectors: what to add.
        positions: see `Scope`.

    Raises:
        ModelError: see `unwrapped`, and `tapped`.
    """
    if not vectors:
        yield
        return
    scope, inner = Scope(positions), unwrapped(model)
    with ExitStack() as stack:
        stack.enter_context(adding_where(inner, vectors, lambda: scope.mask))
        for module in _passed_through(inner):
            before = module.register_forward_pre_hook(scope.before_forward, with_kwargs=True)
            stack.callback(before.remove)
            after = module.register_forward_hook(scope.after_forward, always_call=True)
            stack.callback(after.remove)
        stack.enter_context(_watching_generate(inner, scope))
        yield


def adding_where(
    model: nn.Module,
    vectors: Mapping[HookPoint, Tensor],
    where: Callable[[], Bool[Tensor, "batch pos"] | None] = lambda: None,
) -> AbstractContextManager[None]:
    """While inside, each vector is added at the positions that `where` gives; at all for None.

    Args:
        model: a causal language model of transformers.
        vectors: what to add, of a shape that goes with [batch, pos, d_model].
        where: called in every forward pass.
    """

    def adder(vector: Tensor) -> Tap:
        return lambda hidden: steered(hidden, vector, where())

    return tapped(model, {hook: adder(vector) for hook, vector in vectors.items()})


def _passed_through(model: nn.Module) -> list[nn.Module]:
    """The model, the one inside without the head, and the module that holds the blocks."""
    blocks = find_blocks(model)
    holder = next(m for m in model.modules() if any(c is blocks for c in m.children()))
    found = (model, getattr(model, getattr(model, "base_model_prefix", ""), model), holder)
    return list(dict.fromkeys(found))


@contextmanager
def _watching_generate(model: nn.Module, scope: Scope) -> Iterator[None]:
    """While inside, `model.generate` tells `scope` how long the prompt is."""
    generate: Any = getattr(model, "generate", None)
    if generate is None:
        yield
        return
    shadowed = model.__dict__.get("generate")

    @functools.wraps(generate)
    def watched(inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        given = (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        prompt = next((tensor for tensor in given if tensor is not None), None)
        outer = scope.prompt_length
        scope.prompt_length = None if prompt is None else prompt.shape[1]
        try:
            return generate(inputs, *args, **kwargs)
        finally:
            scope.prompt_length = outer

    model.__dict__["generate"] = watched
    try:
        yield
    finally:
        if shadowed is None:
            del model.__dict__["generate"]
        else:
            model.__dict__["generate"] = shadowed
