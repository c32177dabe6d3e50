"""Few-shot prompts: solved samples in front of every prompt.

Changes when examples are chosen or laid out in another way.
"""

from __future__ import annotations

from dataclasses import replace

from corrsteer.errors import SettingsError
from corrsteer.samples import Sample
from corrsteer.tasks.base import Task


def with_examples(task: Task, few: int) -> Task:
    """The task with its last `few` fit samples, solved, in front of every prompt.

    An example is the sample's own prompt with its reference reply; a blank line follows it. The
    samples shown leave the fit split: the model is not asked what it has just been told. (The
    paper's code also takes the last ones, but leaves them in, and shows them in evaluation only.)

    Raises:
        SettingsError: a negative number, more than there are fit samples to spare, or a task whose
            rows hold no reply to show.
    """
    if few == 0:
        return task
    if few < 0:
        raise SettingsError(f"few is {few}; choose 0 or more")
    if task.reference is None:
        raise SettingsError(
            f"{task.name} has no reference replies to show as examples; leave --few out"
        )
    if few >= len(task.fit):
        raise SettingsError(
            f"few is {few}, but {task.name} has {len(task.fit)} fit samples; choose fewer"
        )
    shown, fit = task.fit[-few:], task.fit[:-few]
    if any(sample.messages for sample in (*task.fit, *task.select, *task.test)):
        raise SettingsError(f"{task.name} has chats, which take no examples; leave --few out")
    opening = "".join(f"{sample.prompt}{task.reference(sample)}\n\n" for sample in shown)
    return replace(
        task,
        fit=_prefixed(fit, opening),
        select=_prefixed(task.select, opening),
        test=_prefixed(task.test, opening),
    )


def _prefixed(samples: tuple[Sample, ...], opening: str) -> tuple[Sample, ...]:
    return tuple(replace(sample, prompt=opening + sample.prompt) for sample in samples)
