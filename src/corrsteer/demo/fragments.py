"""The parts of the page that are ours: heading, replies and feature cards, as HTML.

Changes when the page says something else. What models and data sets wrote is shown as text.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader, Template

from corrsteer.demo.exhibits import Exhibit
from corrsteer.demo.session import Frame
from corrsteer.report.page import environment
from corrsteer.report.text import Segment, Segments, marked

TEMPLATE = "demo.html.j2"


def heading(exhibit: Exhibit) -> str:
    """What a run is, and what it found."""
    return _macro("heading", exhibit)


def cards(exhibit: Exhibit, layers: Collection[str]) -> str:
    """Every feature of a run, and whether its hook point is among those that are on."""
    return _macro("cards", exhibit, frozenset(layers))


def replies(frame: Frame) -> str:
    """The replies side by side; once they are there, with the words marked that differ."""
    running = frame.state == "running"
    shown = [(reply, _parts(frame, index)) for index, reply in enumerate(frame.replies)]
    return _macro("replies", shown, running)


def note(frame: Frame) -> str:
    """One line on how far the replies are and how they differ."""
    if frame.state == "running":
        return _macro("note", "Replying …", False)
    stopped = "Stopped. " if frame.state == "stopped" else ""
    return _macro("note", stopped + " ".join(_differences(frame)), False)


def failure(reason: str) -> str:
    """One line on what went wrong."""
    return _macro("note", reason, True)


def _differences(frame: Frame) -> list[str]:
    """For every steered reply, how it differs from its baseline."""
    steered = [reply for reply in frame.replies if reply.arm == "steered"]
    lines = []
    for reply in steered:
        whose = f"Under {reply.source}: " if len(steered) > 1 else ""
        ours, theirs = marked(frame.replies[reply.baseline].text, reply.text)
        if _words(ours) == _words(theirs) == 0:
            lines.append(f"{whose}The steered reply is the baseline’s.")  # noqa: RUF001
        else:
            lines.append(
                f"{whose}Words of the baseline that are gone: {_words(ours)}; "
                f"new ones: {_words(theirs)}."
            )
    return lines


def _words(segments: Segments) -> int:
    return sum(len(segment.text.split()) for segment in segments if segment.kind == "changed")


def _parts(frame: Frame, index: int) -> Segments:
    """A reply, marked against its baseline; a baseline against the first that is held to it."""
    texts = [reply.text.lstrip() for reply in frame.replies]
    if frame.state == "running":
        return (Segment("same", texts[index]),) if texts[index] else ()
    reply = frame.replies[index]
    if reply.arm == "steered":
        return marked(texts[reply.baseline], texts[index])[1]
    followers = range(index + 1, len(texts))
    against = next(each for each in followers if frame.replies[each].baseline == index)
    return marked(texts[index], texts[against])[0]


def _macro(name: str, *arguments: Any) -> str:
    return str(getattr(_template().module, name)(*arguments)).strip()


@cache
def _template() -> Template:
    packages = ("corrsteer.demo", "corrsteer.report")
    loader = ChoiceLoader([PackageLoader(package, "templates") for package in packages])
    return environment().overlay(loader=loader).get_template(TEMPLATE)
