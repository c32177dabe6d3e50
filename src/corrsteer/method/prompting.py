"""What one would ask instead of steering: an instruction, or solved examples, before each prompt.

Changes when a task is posed in another way. Nothing is steered here, so nothing of it is ever
recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from corrsteer.errors import SettingsError
from corrsteer.samples import Message, Sample
from corrsteer.settings import FitSettings, Unsteered
from corrsteer.tasks import Task


@dataclass(frozen=True)
class Posed:
    """A task's test samples as an unsteered arm poses them.

    Attributes:
        samples: the test split.
        how: it asks, in words.
    """

    samples: tuple[Sample, ...]
    how: str


def posed(task: Task, settings: FitSettings) -> dict[Unsteered, Posed]:
    """A task's test samples as every unsteered arm asked for poses them.

    Raises:
        SettingsError: there are no examples to show.
    """
    made: dict[Unsteered, Callable[[], Posed]] = {
        "prompt": lambda: _instructed(task, settings.instruction),
        "few-shot": lambda: _with_examples(task, settings.shots),
    }
    return {arm: made[arm]() for arm in settings.unsteered_arms}


def _instructed(task: Task, instruction: str) -> Posed:
    """The instruction as a system turn of a chat, and as a paragraph of its own before a text."""

    def told(sample: Sample) -> Sample:
        if sample.messages is None:
            return replace(sample, prompt=f"{instruction}\n\n{sample.prompt}")
        turn = {"role": "system", "content": instruction}
        return replace(sample, messages=(turn, *sample.messages))

    return Posed(tuple(map(told, task.test)), f"instruction before each prompt: {instruction}")


def _with_examples(task: Task, shots: int) -> Posed:
    """The last fit samples, each with its right reply, before each prompt."""
    reference = task.reference
    if reference is None:
        raise SettingsError(
            f"{task.name} has no right replies to show as examples; leave few-shot out of --arms"
        )
    if shots > len(task.fit):
        raise SettingsError(
            f"shots is {shots}, but {task.name} has {len(task.fit)} fit samples; choose fewer"
        )
    examples = task.fit[-shots:]
    text = "".join(f"{each.prompt}{reference(each)}\n\n" for each in examples)
    turns = [turn for each in examples for turn in _solved(each, reference(each))]

    def told(sample: Sample) -> Sample:
        if sample.messages is None:
            return replace(sample, prompt=text + sample.prompt)
        return replace(sample, messages=(*turns, *sample.messages))

    chats = {each.messages is None for each in (*examples, *task.test)}
    if len(chats) > 1 or any(len(each.messages or ()) > 1 for each in examples):
        raise SettingsError(
            f"{task.name} has chats of several turns, which make no examples; leave few-shot out "
            "of --arms"
        )
    return Posed(tuple(map(told, task.test)), f"{shots} solved fit samples before each prompt")


def _solved(sample: Sample, reply: str) -> Sequence[Message]:
    """The turns of a chat of one message with its reply; none of a text."""
    turns = sample.messages or ()
    return [*turns, {"role": "assistant", "content": reply.strip()}] if turns else []
