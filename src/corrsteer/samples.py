"""One prompt with what its reply is judged by.

Changes when a sample needs to carry more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, str]
"""One turn of a chat: `role` and `content`."""


@dataclass(frozen=True)
class Sample:
    """One prompt with what its reply is judged by.

    Attributes:
        id: unique within the task.
        prompt: the text given to the model; "" where `messages` is given.
        target: accepted answers; for refusals `refuse` or `answer`.
        choices: the options' texts, or None where there are none.
        messages: a chat, to be rendered by the model's own template.
        metadata: the row's other fields, for function scorers.
    """

    id: str
    prompt: str
    target: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    messages: tuple[Message, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The prompt as a person reads it; a chat turn by turn."""
        turns = (f"{message['role']}: {message['content']}" for message in self.messages or ())
        return self.prompt or "\n".join(turns)
