"""From what a visitor asks for to a stream of replies: runs, their models, and who is whose turn.

Changes when a visitor can ask for something else. Visitors share models but never steer for one
another: hooks are on a model only for one forward pass at a time, under its lock, and what a
visitor has chosen comes with the request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from corrsteer.demo.exhibits import Exhibit
from corrsteer.errors import DataError, ModelError, unknown
from corrsteer.lm.decoding import stream
from corrsteer.lm.hooks import adding
from corrsteer.lm.known_models import RAW
from corrsteer.lm.models import LanguageModel, load_model
from corrsteer.method.provenance import check_own_model
from corrsteer.runs.run import Run
from corrsteer.runs.steer import check_fit
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample

SETTLE = 0.12
"""Seconds that a request waits for a newer one, as a slider sends many on its way."""

BASELINES = 32
"""Unsteered replies that a session remembers."""

BaselineKey = tuple[str, str, str, int]
"""Model, prompt, the sample it becomes, longest reply: what an unsteered reply depends on."""

HALF_CHARACTER = "\ufffd"
"""What the tokens of a character that is not whole yet are decoded to."""


class SharedModel:
    """A model that replies to several people at once, a forward pass at a time.

    Attributes:
        lm: the model.
        ended: set once it is to reply to nobody any more.
    """

    def __init__(self, lm: LanguageModel, ended: threading.Event | None = None):
        self.lm = lm
        self.ended = ended or threading.Event()
        self._lock = threading.Lock()

    def reply(
        self, sample: Sample, max_new_tokens: int, steering: Steering | None = None
    ) -> Iterator[str]:
        """The greedy reply as far as it is decoded, token by token; the last one is whole.

        It is what `generate` gives to the same prompt, alone or inside `steer`.

        Raises:
            ModelError: the steering is for another model, the prompt is too long, or the demo has
                ended.
        """
        if steering is not None:
            check_fit(self.lm.model, steering)
        vectors = {} if steering is None else steering.scaled()
        positions = "generated" if steering is None else steering.positions

        @contextmanager
        def turn() -> Iterator[None]:
            with self._lock, adding(self.lm.model, vectors, positions):
                if self.ended.is_set():
                    raise ModelError("the demo has ended; start it again")
                yield

        ids = self._prompt_ids(sample, max_new_tokens)
        tokens: list[int] = []
        for token in stream(self.lm.decoder, ids, max_new_tokens, turn):
            tokens.append(token)
            yield self.lm.decode(tokens).rstrip(HALF_CHARACTER)
        yield self.lm.decode(tokens)

    def _prompt_ids(self, sample: Sample, max_new_tokens: int) -> list[int]:
        ids = self.lm.prompt_ids(sample)
        most = self.lm.most_positions
        if most is not None and len(ids) + max_new_tokens > most:
            raise ModelError(
                f"the prompt has {len(ids)} tokens; {self.lm.id} reads at most "
                f"{most - max_new_tokens} before a reply of {max_new_tokens}: shorten it"
            )
        return ids


class Shelf:
    """The runs of a demo, and their models, each loaded when it is first needed.

    Attributes:
        exhibits: name -> run.
        ended: once set, replies end before their next token.
    """

    def __init__(self, exhibits: Sequence[Exhibit], load: Callable[[Run], LanguageModel]):
        self.exhibits: Mapping[str, Exhibit] = {each.name: each for each in exhibits}
        self.ended = threading.Event()
        self._load = load
        self._models: dict[str, SharedModel] = {}
        self._loading = threading.Lock()

    @property
    def first(self) -> Exhibit:
        """What the page opens with."""
        return next(iter(self.exhibits.values()))

    def exhibit(self, name: str) -> Exhibit:
        """The run of a name.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self.exhibits:
            known = list(self.exhibits)
            raise unknown("run", name, known, f"choose from {', '.join(known)}")
        return self.exhibits[name]

    def model(self, exhibit: Exhibit) -> SharedModel:
        """The model of a run; runs of the same model share it.

        Raises:
            CorrSteerError: it cannot be loaded, or the run does not fit it.
        """
        if exhibit.model not in self._models:
            with self._loading:
                if exhibit.model not in self._models:
                    self._models[exhibit.model] = SharedModel(self._load(exhibit.run), self.ended)
        found = self._models[exhibit.model]
        check_fit(found.lm.model, exhibit.run.steering)
        return found


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for.

    Attributes:
        prompt: the text to reply to.
        run: name of the run that steers.
        layers: names of the hook points that are on.
        strength: what the vectors are multiplied with.
        beside: name of another run, shown whole and at its own strength, or None.
    """

    prompt: str
    run: str
    layers: tuple[str, ...]
    strength: float
    beside: str | None = None


@dataclass(frozen=True)
class ArmReply:
    """One reply of several side by side.

    Attributes:
        arm: whether it is steered.
        source: name of the model, or of the run that steers.
        setting: what steers, in a few words.
        text: the reply as far as it is there.
        ended: whether that is all of it.
        baseline: index of the reply that it is held against; its own for a baseline.
    """

    arm: Literal["baseline", "steered"]
    source: str
    setting: str
    baseline: int
    text: str = ""
    ended: bool = False


@dataclass(frozen=True)
class Frame:
    """All replies at a moment.

    Attributes:
        replies: side by side.
        state: `running`, `done`, or `stopped` by the visitor.
    """

    replies: tuple[ArmReply, ...]
    state: Literal["running", "done", "stopped"] = "running"


@dataclass
class Session:
    """One visitor's: of several requests only the newest goes on.

    Attributes:
        ticket: number of the newest request.
        stopped: whether the visitor has stopped it.
        baselines: what was asked of which model -> unsteered reply, so that a slider does not ask
            again.
    """

    ticket: int = 0
    stopped: bool = False
    baselines: dict[BaselineKey, str] = field(default_factory=dict)

    def stop(self) -> None:
        """End the request that is running, keeping what it has said."""
        self.stopped = True

    def replies(self, shelf: Shelf, wish: Wish, settle: float = SETTLE) -> Iterator[Frame]:
        """What there is to see after each token, until a newer request takes over.

        Args:
            shelf: where runs and models are.
            wish: what is asked for.
            settle: seconds to wait for a newer request first.

        Raises:
            CorrSteerError: the prompt, run or strength cannot be used, or a model not be loaded.
        """
        self.ticket += 1
        self.stopped = False
        ticket = self.ticket
        time.sleep(settle)
        if ticket != self.ticket:
            return
        if not wish.prompt.strip():
            raise DataError("the prompt is empty; type one, or pick an example")
        yield from self._frames(ticket, *self._start(shelf, wish))

    def _frames(
        self, ticket: int, frame: Frame, sources: Sequence[Iterator[str]]
    ) -> Iterator[Frame]:
        replies = list(frame.replies)
        yield frame
        while not all(reply.ended for reply in replies):
            for index, source in enumerate(sources):
                text = next(source, None)
                if text is None:
                    replies[index] = replace(replies[index], ended=True)
                else:
                    replies[index] = replace(replies[index], text=text)
                if ticket != self.ticket:
                    return
            if self.stopped:
                yield Frame(tuple(replies), "stopped")
                return
            yield Frame(tuple(replies))
        yield Frame(tuple(replies), "done")

    def _start(self, shelf: Shelf, wish: Wish) -> tuple[Frame, list[Iterator[str]]]:
        """The empty frame, and what fills each of its replies."""
        chosen = shelf.exhibit(wish.run)
        asked = [(chosen, chosen.steering(wish.layers, wish.strength))]
        if wish.beside is not None:
            other = shelf.exhibit(wish.beside)
            asked.append((other, other.run.steering))
        longest = max(exhibit.run.provenance.max_new_tokens for exhibit, _ in asked)
        replies: list[ArmReply] = []
        sources: list[Iterator[str]] = []
        baselines: dict[BaselineKey, int] = {}
        for exhibit, steering in asked:
            model, sample = shelf.model(exhibit), exhibit.sample(wish.prompt)
            key = (exhibit.model, wish.prompt, repr(sample), longest)
            if key not in baselines:
                baselines[key] = len(replies)
                replies.append(ArmReply("baseline", exhibit.model, "not steered", len(replies)))
                sources.append(self._baseline(key, model.reply(sample, longest)))
            setting = _setting(exhibit, steering)
            replies.append(ArmReply("steered", exhibit.name, setting, baselines[key]))
            sources.append(model.reply(sample, longest, steering))
        return Frame(tuple(replies)), sources

    def _baseline(self, key: BaselineKey, replying: Iterator[str]) -> Iterator[str]:
        """The reply that is remembered, or one that is remembered from now on."""
        if key in self.baselines:
            yield self.baselines[key]
            return
        text = ""
        for text in replying:
            yield text
        while len(self.baselines) >= BASELINES:
            self.baselines.pop(next(iter(self.baselines)))
        self.baselines[key] = text


def load_for(run: Run, device: str | None = None) -> LanguageModel:
    """The model of a run, at its commit, without the SAEs, which steering does not need.

    Raises:
        CorrSteerError: the model cannot be loaded.
    """
    made = run.provenance
    check_own_model(run)
    return load_model(
        made.model, RAW, device=device, revision=made.revision, prepend_bos=made.prepend_bos
    )


def _setting(exhibit: Exhibit, steering: Steering) -> str:
    on, total = len(steering.vectors), len(exhibit.switches)
    layers = f"{on} of {total} layers" if on < total else f"all {total} layers"
    layers = layers if total > 1 else ("its layer" if on else "no layer")
    return f"{layers}, strength {steering.strength:g}"
