"""Reading and changing the residual stream: the only place that registers forward hooks.

Changes when a site of a block is reached in another way, or a forward pass is laid out otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from corrsteer.errors import ModelError
from corrsteer.hook_points import HookPoint
from corrsteer.settings import Positions

Tap = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"] | None]
"""Sees the residual at a hook point; what it returns, unless None, takes its place."""


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of the language model's transformer blocks.

    Raises:
        ModelError: no list of as many modules as the configuration has layers.
    """
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    n_layers = getattr(config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        vision = any(part in name for part in ("vision", "visual", "audio", "encoder."))
        if isinstance(module, nn.ModuleList) and len(module) == n_layers and not vision:
            return module
    raise ModelError(
        f"no list of {n_layers} transformer blocks in {type(model).__name__}; "
        "expected a decoder-only model of transformers"
    )


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
    """The module whose output TransformerLens calls hook_mlp_out.

    Where a norm follows the MLP before its output is added (Gemma 2 and 3), it is that norm.
    """
    for name in ("post_feedforward_layernorm", "mlp"):
        module = getattr(block, name, None)
        if isinstance(module, nn.Module):
            return module
    raise ModelError(f"{type(block).__name__} has no mlp; use SAEs of resid_pre or resid_post")


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
    """Which positions of the current forward pass are steered, kept up to date by a hook.

    Generated positions are the last prompt position and all later ones. Inside the model's own
    `generate` the prompt's length is known, so chunked prefill, assisted decoding and decoding
    without a cache are all exact. Outside it, a pass over one token with a cache is a generated
    position; a pass without a cache that extends the ids of the pass before goes on with that
    prompt; any other pass is a prompt, of which the last unpadded position is steered.

    Attributes:
        mask: True at the steered positions, or None where all are; [batch, pos].
    """

    def __init__(self, positions: Positions):
        self.positions = positions
        self.mask: Bool[Tensor, "batch pos"] | None = None
        self.prompt_length: int | None = None
        self._ids: Tensor | None = None
        self._starts: Tensor | None = None

    def before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Work out the steered positions of the forward pass about to run."""
        inputs = args[0] if args else kwargs.get("input_ids")
        inputs = kwargs.get("inputs_embeds") if inputs is None else inputs
        batch, length = inputs.shape[:2]
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        positions = past + torch.arange(length, device=inputs.device)
        unpadded = self._unpadded(kwargs.get("attention_mask"), batch, past, length)
        if self.positions == "all":
            self.mask = unpadded
        elif self.prompt_length is not None:
            self.mask = (positions >= self.prompt_length - 1).expand(batch, length)
        elif past and length == 1:
            self.mask = None
        else:
            starts = self._prompt_ends(inputs, unpadded)
            self.mask = torch.arange(length, device=inputs.device) >= starts[:, None]
            if unpadded is not None:
                self.mask = self.mask & unpadded

    @staticmethod
    def _unpadded(
        attention_mask: Tensor | None, batch: int, past: int, length: int
    ) -> Bool[Tensor, "batch pos"] | None:
        """Where the 2-D mask has tokens; None where there is no such mask."""
        if attention_mask is None or attention_mask.dim() != 2:
            return None
        return attention_mask[:, past : past + length].bool()

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
        model: a causal language model of transformers.
        vectors: what to add.
        positions: see `Scope`.
    """
    if not vectors:
        yield
        return
    scope = Scope(positions)

    def adder(vector: Tensor) -> Tap:
        def tap(hidden: Tensor) -> Tensor:
            added = hidden + vector.to(hidden)
            if scope.mask is None:
                return added
            return torch.where(scope.mask[..., None].to(hidden.device), added, hidden)

        return tap

    with ExitStack() as stack:
        stack.enter_context(tapped(model, {hook: adder(v) for hook, v in vectors.items()}))
        handle = model.register_forward_pre_hook(scope.before_forward, with_kwargs=True)
        stack.callback(handle.remove)
        stack.enter_context(_watching_generate(model, scope))
        yield


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
