"""A chat as the model's own template writes it.

Changes when templates are given something else, or are kept from something else. A template is code
of the model's author: it may raise anything, never end, or leave out what it does not know.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from corrsteer.errors import ModelError
from corrsteer.samples import Message, Sample

MOST_STEPS = 2_000_000
"""Lines and calls that a template may take, some seconds of work. A chat of a thousand turns takes
some ten thousand."""

GIVEN_TO_TEMPLATES = ("tools", "documents")
"""Arguments of `apply_chat_template` that are handed on to the template."""

INSTRUCTIONS = ("system", "developer", "tool")
"""Roles that templates were not all made for."""


def rendered(tokenizer: Any, model: str, sample: Sample) -> str:
    """The text of a chat, up to where the reply begins.

    Args:
        tokenizer: the model's.
        model: what errors call it.
        sample: a chat.

    Raises:
        ModelError: there is no template, it refuses the chat or an option, leaves out something
            that the chat holds, or does not end.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"sample {sample.id!r} is a chat, but {model} has no chat template; "
            "give `prompt` instead of `messages`, or take an instruction-tuned model"
        )
    _check_options(tokenizer, model, sample)
    try:
        text = _render(tokenizer, sample)
    except Exception as error:  # a template may raise anything at all
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"sample {sample.id!r}: the chat template of {model} refuses the messages: {reason}"
        ) from error
    for what, without in _altered(sample.messages or ()):
        if _is_text(tokenizer, replace(sample, messages=without), text):
            raise ModelError(
                f"sample {sample.id!r}: the chat template of {model} leaves out {what}, so the "
                "model would not see it; take it out of the row, or take a model that knows it"
            )
    return text


def _check_options(tokenizer: Any, model: str, sample: Sample) -> None:
    """Refuse an option that the template does not read, or that is not for it."""
    if not sample.template_options:
        return
    own = inspect.signature(tokenizer.apply_chat_template).parameters
    template = tokenizer.get_chat_template()
    for name in sample.template_options:
        taken = name == "messages" or (name in own and name not in GIVEN_TO_TEMPLATES)
        if taken or not re.search(rf"\b{re.escape(name)}\b", template):
            raise ModelError(
                f"--template-option {name}: the chat template of {model} reads no such option; "
                "leave it out, or see the model's card for those it has"
            )


def _render(tokenizer: Any, sample: Sample) -> str:
    messages = [dict(message) for message in sample.messages or ()]
    with _ending():
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **sample.template_options
        )
    return str(text)


def _altered(messages: Sequence[Message]) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """What a template may leave out, and the messages with that changed."""
    for index, message in enumerate(messages):
        changes: dict[str, Message] = {}
        for field in ("tool_calls", "name"):
            if message.get(field) and message["role"] != "tool":  # a call names its tool already
                others = {key: value for key, value in message.items() if key != field}
                changes[f"`{field}` of the {message['role']}'s message"] = others
        if message["role"] in INSTRUCTIONS and message["content"]:
            other = {**message, "content": f"{message['content']}."}
            changes[f"the message of the role {message['role']!r}"] = other
        for what, changed in changes.items():
            yield what, (*messages[:index], changed, *messages[index + 1 :])


def _is_text(tokenizer: Any, sample: Sample, text: str) -> bool:
    """Whether a chat becomes that text; one that the template refuses does not."""
    try:
        return _render(tokenizer, sample) == text
    except Exception:  # as above
        return False


class _EndlessError(Exception):
    """A template takes more steps than any chat needs."""


@contextmanager
def _ending() -> Iterator[None]:
    """Stops what takes more than `MOST_STEPS`: loops in loops, or macros that call themselves.

    The lines of a template's compiled code are counted, and all calls, by Python's own tracing. A
    count of steps stops at the same place on every machine, and in any thread.

    Raises:
        _EndlessError: it was stopped.
    """
    steps = 0

    def count(frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal steps
        steps += 1
        if steps > MOST_STEPS:
            raise _EndlessError(f"it does not end within {MOST_STEPS:,} steps")
        return count if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
