"""Texts to train on and texts held out: read from files, or written by the model itself.

Changes when texts come from elsewhere, or are cut or held out in another way.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from corrsteer.errors import DataError
from corrsteer.files import regular
from corrsteer.lm.decoding import greedy
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.texts import Documents
from corrsteer.progress import Advance
from corrsteer.sae_training.prompts import requests
from corrsteer.sae_training.settings import SAESettings
from corrsteer.samples import Sample, group_ids

HELD_OUT = 0.1
"""Of the groups of texts, the share that is held out; and of the positions."""

PIECE = 256
"""Tokens of the pieces that longer texts are cut into."""


@dataclass(frozen=True)
class TextSource:
    """A text, or a prompt that the model's reply makes a text of.

    Attributes:
        sample: its text is what belongs together is told by, with its group.
        is_prompt: whether the model replies to it.
    """

    sample: Sample
    is_prompt: bool


@dataclass(frozen=True)
class Piece:
    """Token ids of a piece of a text, or of a prompt.

    Attributes:
        ids: at least one.
        is_prompt: whether the model replies to it.
    """

    ids: tuple[int, ...]
    is_prompt: bool


@dataclass(frozen=True)
class Pieces:
    """Everything there is to train on and to hold out, in the order in which it is used.

    Attributes:
        train: pieces to train on.
        held_out: those of other texts.
        skip: positions at the beginning of a piece that are left out. They are the same in all
            pieces, as a chat template's system message; the first one, which models use as an
            attention sink of another size than all others, is always among them.
    """

    train: Sequence[Piece]
    held_out: Sequence[Piece]
    skip: int

    def digest(self) -> str:
        """Tells them from others."""
        told = [[each.ids, each.is_prompt] for each in (*self.train, *self.held_out)]
        return hashlib.sha256(json.dumps([len(self.train), told]).encode()).hexdigest()


def texts_of(files: Iterable[Path]) -> list[TextSource]:
    """The texts in some files: each row's `text` in a .jsonl file, the whole file in any other.

    Raises:
        DataError: a file cannot be read, or holds no text; or there is one text alone.
    """
    found = [
        TextSource(Sample(where, text), is_prompt=False)
        for path in files
        for where, text in _texts_in(path)
    ]
    if len({source.sample.prompt for source in found}) < 2:
        raise DataError(
            f"{found[0].sample.id} is the only text, and some must be held out; give --text two "
            "files, or a .jsonl file with a `text` a row"
        )
    return found


def _texts_in(path: Path) -> list[tuple[str, str]]:
    """(place, text) of every text in a file."""
    try:
        content = regular(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {str(path)[:300]}: {reason}; check --text") from error
    if path.suffix != ".jsonl":
        texts = [(str(path), content)] if content.strip() else []
    else:
        lines = enumerate(content.split("\n"), start=1)
        texts = [
            (f"{path}, line {number}", _text_in(line, f"{path}, line {number}"))
            for number, line in lines
            if line.strip()
        ]
    if not texts:
        raise DataError(f"{path} holds no text; expected some, or leave --text out")
    return texts


def _text_in(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise DataError(f'{where}: expected an object like {{"text": "..."}}') from error
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: `text` is not a text, or is empty; expected some text")
    return text


def own_prompts(lm: LanguageModel) -> list[TextSource]:
    """Our own requests, as a chat where the model has a template; one group a subject."""
    chats = bool(getattr(lm.tokenizer, "chat_template", None))
    return [
        TextSource(
            Sample(
                request,
                "" if chats else f"{request}\n",
                messages=({"role": "user", "content": request},) if chats else None,
                group=subject,
            ),
            is_prompt=True,
        )
        for subject, request in requests()
    ]


def prompts_of(samples: Sequence[Sample]) -> list[TextSource]:
    """The prompts of a task's samples."""
    return [TextSource(sample, is_prompt=True) for sample in samples]


def pieces_of(lm: LanguageModel, kinds: Sequence[Sequence[TextSource]], seed: int) -> Pieces:
    """The pieces of sources of several kinds, which take turns.

    Whole groups are held out; a text or prompt that stands there twice is on one side.

    Args:
        lm: the model, for its tokens.
        kinds: sources of each kind.
        seed: of the order, and of what is held out.

    Raises:
        DataError: nothing is left to train on, or to hold out.
        ModelError: a prompt that the model cannot take.
    """
    rng = random.Random(seed)
    shuffled = [rng.sample(kind, len(kind)) for kind in kinds]
    sources = [each for turn in zip_longest(*shuffled) for each in turn if each is not None]
    groups = group_ids([source.sample for source in sources])
    names = list(range(max(groups, default=-1) + 1))
    held = set(rng.sample(names, max(1, round(HELD_OUT * len(names)))) if names else ())
    train: list[Piece] = []
    held_out: list[Piece] = []
    for source, group in zip(sources, groups, strict=True):
        (held_out if group in held else train).extend(_cut(lm, source))
    if not train or not held_out:
        raise DataError("there is one text alone, and some must be held out; give more texts")
    return Pieces(train, held_out, max(1, _common([each.ids for each in (*train, *held_out)])))


def _common(texts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all texts begin with alike."""
    first, last = min(texts), max(texts)  # whatever lies between them begins as both do
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))


def _cut(lm: LanguageModel, source: TextSource) -> list[Piece]:
    if source.is_prompt:
        return [Piece(tuple(lm.prompt_ids(source.sample)), is_prompt=True)]
    length = min(PIECE, lm.most_positions or PIECE)
    return [
        Piece(tuple(ids), is_prompt=False) for ids in lm.pieces_of(source.sample.prompt, length)
    ]


def documents_of(
    pieces: Sequence[Piece],
    skip: int,
    tokens: int,
    batch_size: int,
    replied: Callable[[int, Sequence[Piece]], list[list[int]]],
    advance: Advance,
) -> Documents:
    """As many pieces as hold so many positions, prompts with the model's replies.

    Args:
        pieces: in the order in which they are used.
        skip: see `Pieces`.
        tokens: positions wanted.
        batch_size: pieces done at once.
        replied: the ids of a batch of pieces, given its number.
        advance: told of positions.
    """
    found = Documents([], skip)
    for number, start in enumerate(range(0, len(pieces), batch_size)):
        before = found.positions
        if before >= tokens:
            break
        batch = replied(number, pieces[start : start + batch_size])
        found = Documents([*found.ids, *batch], skip)
        advance(found.positions - before)
    return found


def with_replies(
    lm: LanguageModel, settings: SAESettings, pieces: Sequence[Piece]
) -> list[list[int]]:
    """Token ids of pieces, prompts with the model's greedy replies."""
    prompts = [piece.ids for piece in pieces if piece.is_prompt]
    replies = iter(greedy(lm.decoder, prompts, settings.max_new_tokens) if prompts else ())
    return [list(chain(piece.ids, next(replies) if piece.is_prompt else ())) for piece in pieces]
