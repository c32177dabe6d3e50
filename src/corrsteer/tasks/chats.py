"""Prompts as chats, for the model's own chat template.

Changes when a prompt is turned into a chat in another way.
"""

from __future__ import annotations

from dataclasses import replace

from corrsteer.samples import Sample
from corrsteer.tasks.base import Task


def as_chat(task: Task) -> Task:
    """The task with every prompt, solved examples included, as one message of the user.

    Samples that are chats already stay as they are.
    """
    return replace(
        task,
        fit=tuple(map(_chat, task.fit)),
        select=tuple(map(_chat, task.select)),
        test=tuple(map(_chat, task.test)),
    )


def _chat(sample: Sample) -> Sample:
    if sample.messages is not None:
        return sample
    message = {"role": "user", "content": sample.prompt}
    return replace(sample, prompt="", messages=(message,))
