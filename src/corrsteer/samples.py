"""One prompt with what its reply is judged by.

Changes when a sample needs to carry more than that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""One turn of a chat: `role`, `content`, and what else a template may show, as `tool_calls`."""


@dataclass(frozen=True)
class RatedReply:
    """A reply that somebody recorded, and what it was rated.

    Attributes:
        text: the reply.
        outcome: its score, in [0, 1]; None where it has none.
    """

    text: str
    outcome: float | None = None


@dataclass(frozen=True)
class Sample:
    """One prompt with what its reply is judged by.

    Attributes:
        id: unique within the task.
        prompt: the text given to the model; "" where `messages` is given.
        target: accepted answers; for refusals `refuse` or `answer`.
        choices: the options' texts, or None where there are none.
        messages: a chat, to be rendered by the model's own template.
        template_options: what the template is given beside them, as `enable_thinking`.
        group: what it belongs together with, as a topic or a template; None for nothing known.
        metadata: the row's other fields, for function scorers.
        rated: a reply that came with the row, or None.
    """

    id: str
    prompt: str
    target: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    messages: tuple[Message, ...] | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rated: RatedReply | None = None

    @property
    def text(self) -> str:
        """The prompt as a person reads it; a chat turn by turn."""
        return self.prompt or "\n".join(map(_turn, self.messages or ()))


def _turn(message: Message) -> str:
    """A message with its tool calls, as `user: ...`."""
    calls = [each["function"] for each in message.get("tool_calls", ())]
    told = [f"{call['name']}({json.dumps(call['arguments'])})" for call in calls]
    return f"{message['role']}: {' '.join([message['content'], *told]).strip()}"


def group_ids(samples: Sequence[Sample]) -> list[int]:
    """The group of each sample, numbered from 0 in the order of their first samples.

    Samples belong together if they name the same group or have the same prompt, and so do those
    that others link. Everything that cuts splits or draws samples keeps groups whole.
    """
    owner: dict[tuple[str, str], int] = {}
    parent = list(range(len(samples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, sample in enumerate(samples):
        keys = [("prompt", sample.text)]
        if sample.group is not None:
            keys.append(("group", sample.group))
        for key in keys:
            first = owner.setdefault(key, index)
            one, other = sorted((root(first), root(index)))
            parent[other] = one
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(samples))]


def group_labels(samples: Sequence[Sample]) -> dict[str, str]:
    """Sample id -> id of the first sample of its group: a label that parts of a task share."""
    labels: dict[int, str] = {}
    numbers = group_ids(samples)
    for number, sample in zip(numbers, samples, strict=True):
        labels.setdefault(number, sample.id)
    return {s.id: labels[number] for number, s in zip(numbers, samples, strict=True)}
