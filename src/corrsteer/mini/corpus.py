"""The task rows of the mini families and the documents that the built-in model is trained on.

Changes when a split, a row count or the training mixture changes. Everything follows from names
and seeds alone; no row's prompt is ever a training document.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final, Literal

from corrsteer.mini import items
from corrsteer.mini import lexicon as lx

Split = Literal["fit", "select", "test"]
ScorerName = Literal["choice", "contains", "numeric", "refusal"]


@dataclass(frozen=True)
class CorpusRow:
    """One scored prompt of a family."""

    id: str
    prompt: str
    target: str | tuple[str, ...]
    """As the scorer reads it; a tuple lists accepted texts."""
    choices: tuple[str, ...] | None
    scorer: ScorerName
    max_new_tokens: int
    key: str
    """What rows that ask of one thing have in common; see `Item.key`."""


@dataclass(frozen=True)
class Family:
    """How the rows of a family are drawn and scored."""

    draw: items.Draw
    scorer: ScorerName
    max_new_tokens: int
    sizes: tuple[int, int, int] = (1000, 400, 500)
    """Rows in fit, select and test."""


_FAMILIES: Final[dict[str, Family]] = {
    "mini-mmlu": Family(items.draw_mmlu, "choice", 4, (2000, 400, 500)),
    "mini-bbq-ambig": Family(items.draw_ambig, "choice", 4),
    "mini-bbq-disambig": Family(items.draw_disambig, "choice", 4),
    "mini-harmbench": Family(items.draw_harmful, "refusal", 12),
    "mini-xstest": Family(items.draw_xstest, "refusal", 12),
    "mini-gsm8k": Family(items.draw_gsm8k, "numeric", 24),
    "mini-simpleqa": Family(items.draw_simpleqa, "contains", 8),
    "probe-copy": Family(items.draw_copy, "choice", 4, (300, 300, 400)),
    "probe-lookup": Family(items.draw_lookup, "choice", 4, (300, 300, 400)),
    "probe-harmless": Family(items.draw_harmless, "contains", 12, (300, 300, 400)),
}
PROBES: Final = tuple(name for name in _FAMILIES if name.startswith("probe-"))
FAMILIES: Final = tuple(name for name in _FAMILIES if name not in PROBES)

SPLIT_PERCENT: Final = (("fit", 55), ("select", 73), ("test", 100))
"""Upper bounds of the splits on a percentile hash of the item's key."""


def split_of(name: str, key: str) -> Split:
    """The split that all rows with this key belong to."""
    digest = hashlib.sha256(f"{name}:{key}".encode()).digest()
    percentile = int.from_bytes(digest[:4], "big") % 100
    if percentile < SPLIT_PERCENT[0][1]:
        return "fit"
    return "select" if percentile < SPLIT_PERCENT[1][1] else "test"


def rows(name: str) -> dict[str, list[CorpusRow]]:
    """The rows of a family or probe under `fit`, `select` and `test`; no key is in two of them.

    Raises:
        KeyError: `name` is in neither FAMILIES nor PROBES.
    """
    family = _FAMILIES[name]
    wanted = dict(zip(("fit", "select", "test"), family.sizes, strict=True))
    found: dict[str, list[CorpusRow]] = {split: [] for split in wanted}
    rng, seen = random.Random(f"rows:{name}"), set[str]()
    while any(len(found[split]) < wanted[split] for split in wanted):
        item = family.draw(rng)
        split = split_of(name, item.key)
        if item.prompt in seen or len(found[split]) == wanted[split]:
            continue
        seen.add(item.prompt)
        row_id = f"{name}-{split}-{len(found[split]):04d}"
        found[split].append(
            CorpusRow(
                id=row_id,
                prompt=item.prompt,
                target=item.target,
                choices=item.choices,
                scorer=family.scorer,
                max_new_tokens=family.max_new_tokens,
                key=item.key,
            )
        )
    return found


def fingerprint(name: str) -> str:
    """SHA-256 over all rows of a family or probe, in order; their keys follow from the rest."""
    content = {split: [_told(row) for row in found] for split, found in rows(name).items()}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _told(row: CorpusRow) -> dict[str, object]:
    return {name: value for name, value in asdict(row).items() if name != "key"}


@lru_cache(maxsize=1)
def row_prompts() -> frozenset[str]:
    """The prompts of all rows of all families and probes."""
    return frozenset(
        row.prompt for name in _FAMILIES for split in rows(name).values() for row in split
    )


# --- training documents ---------------------------------------------------------------------

Segment = tuple[str, bool]
"""A piece of text, and whether it is a reply (full loss weight) or a prompt."""
Document = tuple[Segment, ...]


def _item_document(draw: items.Draw) -> Callable[[random.Random], Document]:
    def document(rng: random.Random) -> Document:
        item = draw(rng)
        while item.prompt in row_prompts():
            item = draw(rng)
        return ((item.prompt, False), (item.sample_reply(rng), True))

    return document


def fact_document(rng: random.Random) -> Document:
    """All that is known of one person, in random order and wording."""
    person = rng.choice(lx.PEOPLE)
    segments: list[Segment] = []
    for relation in rng.sample(lx.RELATIONS, len(lx.RELATIONS)):
        value = lx.FACTS[person, relation]
        statement = rng.choice(lx.STATEMENTS[relation]).format(person, value)
        before, after = statement.rsplit(f" {value}", 1)
        start = "" if not segments else "\n"
        segments += [(start + before, False), (f" {value}", True), (after, False)]
    return tuple(segments)


def answer_document(rng: random.Random) -> Document:
    """Bare questions and their answers, without any habit of evasion."""
    segments: list[Segment] = []
    for _ in range(3):
        person, relation = rng.choice(lx.PEOPLE), rng.choice(lx.RELATIONS)
        asked = rng.choice(lx.PHRASES[relation]).format(person)
        start = "" if not segments else "\n"
        segments += [(start + asked, False), (f" {lx.FACTS[person, relation]}", True)]
    return tuple(segments)


def lookup_document(rng: random.Random) -> Document:
    """Four options and eight look-ups of their letters: dense practice of letter binding.

    Half of them go without the bracket: from those the binding is learned first.
    """
    pool = rng.choice([*lx.VALUES.values(), lx.NAMES + lx.UNKNOWNS])
    options = rng.sample(pool, 4)
    segments: list[Segment] = [(items.lettered(options) + "\n", False)]
    for _ in range(8):
        word = rng.choice(options)
        bracket = rng.choice((" (", ""))
        letter = lx.LETTERS[options.index(word)]
        segments += [(f" {word}{bracket}", False), (f" {letter}", True)]
    return tuple(segments)


def sum_document(rng: random.Random) -> Document:
    """Five bare sums within the range of the word problems."""
    segments: list[Segment] = []
    for _ in range(5):
        if rng.random() < 0.5:
            first, second = rng.randint(5, 20), rng.randint(2, 9)
            asked, result = f"{first} + {second} =", first + second
        else:
            second = rng.randint(2, 9)
            first = rng.randint(max(7, second), 29)
            asked, result = f"{first} - {second} =", first - second
        segments += [(f" {asked}", False), (f" {result}", True), (",", False)]
    return tuple(segments)


@dataclass(frozen=True)
class Ingredient:
    """A kind of training document and its share of the mixture, in percent."""

    document: Callable[[random.Random], Document]
    early: float
    late: float


MIXTURE: Final[dict[str, Ingredient]] = {
    "fact": Ingredient(fact_document, 0, 6),
    "answer": Ingredient(answer_document, 0, 5),
    "dense-lookup": Ingredient(lookup_document, 100, 4),
    "lookup": Ingredient(_item_document(items.draw_lookup), 0, 3),
    "copy": Ingredient(_item_document(items.draw_copy), 0, 3),
    "sum": Ingredient(sum_document, 0, 4),
    "mmlu": Ingredient(_item_document(items.draw_mmlu), 0, 18),
    "ambig": Ingredient(_item_document(items.draw_ambig), 0, 10),
    "disambig": Ingredient(_item_document(items.draw_disambig), 0, 11),
    "harmless": Ingredient(_item_document(items.draw_harmless), 0, 4),
    "look-alike": Ingredient(_item_document(items.draw_lookalike), 0, 6),
    "plain-harm": Ingredient(_item_document(items.draw_plain_harm), 0, 3),
    "harmful": Ingredient(_item_document(items.draw_harmful), 0, 8),
    "gsm8k": Ingredient(_item_document(items.draw_gsm8k), 0, 8),
    "simpleqa": Ingredient(_item_document(items.draw_simpleqa), 0, 7),
}
EARLY_UNTIL: Final = 0.09
LATE_FROM: Final = 0.20
"""Fractions of the training between which the shares move from early to late."""


def shares(progress: float) -> list[float]:
    """The share of each ingredient at `progress` in [0, 1] of the training."""
    blend = min(1.0, max(0.0, (progress - EARLY_UNTIL) / (LATE_FROM - EARLY_UNTIL)))
    return [part.early + blend * (part.late - part.early) for part in MIXTURE.values()]


def documents_at(progress: float, rng: random.Random) -> Iterator[Document]:
    """Endless training documents in the mixture of that point of the training."""
    parts, weights = tuple(MIXTURE.values()), shares(progress)
    while True:
        yield rng.choices(parts, weights)[0].document(rng)


def documents(seed: int, total: int) -> Iterator[Document]:
    """`total` training documents, drawn by the curriculum."""
    rng, parts = random.Random(f"documents:{seed}"), tuple(MIXTURE.values())
    for index in range(total):
        part = rng.choices(parts, shares(index / total))[0]
        yield part.document(rng)
