"""Texts that are nearly the same.

Changes when other texts count as nearly the same. Two do if they differ in nothing but case, white
space, punctuation and, where they have words enough, digits; or if of their shingles, runs of three
words, at least 0.8 are in both (Broder 1997). Pairs are found by minhashes in bands, so that
100,000 texts take seconds, and are compared in full afterwards. What a tenth of the texts have, as
the wording of an instruction, is left out of the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

NEAR = 0.8
"""Share of shingles in both texts, of those in either."""
WORDS = 3
"""Of a shingle."""
FEWEST = 6
"""Shingles of a text that is compared by them, and words of one whose digits do not count: of
fewer, each would decide."""
BANDS, ROWS = 8, 5
"""Of minhashes. Texts with a share s of common shingles agree in one of the bands with probability
1 - (1 - s ** 5) ** 8: 0.96 at 0.8, 0.998 at 0.9."""
SAMPLE, COMMON = 2000, 0.1
"""Texts that are looked at for what a share of all has."""
MOST_TRIED = 20
"""Texts of one band that a text is compared with."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+")
"""A word, or a character of a script that has no spaces between words."""


def near_repeats(texts: Sequence[str], parts: Sequence[int]) -> dict[int, int]:
    """Index of a text -> index of one in an earlier part that it nearly repeats, where there is.

    Args:
        texts: all texts, part by part.
        parts: the part of each.
    """
    if not texts:
        return {}
    words = [_words(text) for text in texts]
    shingles = _without_common(_shingled(words))
    bands = _bands(shingles)
    seen: dict[Hashable, list[int]] = {}
    found: dict[int, int] = {}
    for index, part in enumerate(parts):
        keys: list[Hashable] = [words[index], *bands[index]]
        earlier = (other for key in keys for other in seen.get(key, ()) if parts[other] < part)
        match = _first_near(index, earlier, words, shingles)
        if match is not None:
            found[index] = match
        for key in keys:
            homes = seen.setdefault(key, [])
            if len(homes) < MOST_TRIED:
                homes.append(index)
    return found


def _first_near(
    index: int, others: Iterable[int], words: Sequence[str], shingles: Sequence[Hashes]
) -> int | None:
    """The first of the others that a text is nearly the same as."""
    for other in others:
        if words[index] == words[other]:
            return other
        ours, theirs = set(shingles[index].tolist()), set(shingles[other].tolist())
        if ours and len(ours & theirs) >= NEAR * len(ours | theirs):
            return other
    return None


def _words(text: str) -> str:
    """The words in lower case, a space between them; of few words, digits and all other signs."""
    folded = text.casefold()
    words = _WORD.findall(folded)
    if len(words) < FEWEST:
        words = re.findall(r"\w+", folded) or [folded]
    return " ".join(words)


def _shingled(words: Sequence[str]) -> list[Hashes]:
    """A hash of each shingle of each text."""
    numbers: dict[str, int] = {}
    split = (text.split() for text in words)
    coded = [[numbers.setdefault(word, len(numbers)) for word in text] for text in split]
    ends = np.cumsum([len(text) for text in coded])
    codes = np.fromiter(chain.from_iterable(coded), dtype=np.uint64)
    hashes = np.zeros_like(codes)
    for place in range(WORDS):  # those that reach into the next text are left out
        hashes = _mixed(hashes + np.roll(codes, -place) + np.uint64(1))
    return [
        hashes[end - len(text) : max(end - len(text), end - WORDS + 1)]
        for text, end in zip(coded, ends.tolist(), strict=True)
    ]


def _without_common(shingles: list[Hashes]) -> list[Hashes]:
    """The shingles that few texts have, of texts with enough of them; none of others."""
    looked_at = [np.unique(each) for each in shingles[:: max(1, len(shingles) // SAMPLE)]]
    values, counts = np.unique(np.concatenate(looked_at), return_counts=True)
    common = values[counts > max(3.0, COMMON * len(looked_at))]
    if len(common):
        rare = np.isin(np.concatenate(shingles), common, invert=True)
        ends = np.cumsum([len(each) for each in shingles])
        masks = np.split(rare, ends[:-1])
        shingles = [each[mask] for each, mask in zip(shingles, masks, strict=True)]
    return [each if len(each) >= FEWEST else _NONE for each in shingles]


def _bands(shingles: Sequence[Hashes]) -> list[list[Hashable]]:
    """The minhashes of each text, a key a band; none of a text without shingles."""
    sizes = np.array([len(each) for each in shingles])
    keys: list[list[Hashable]] = [[] for _ in shingles]
    full = np.flatnonzero(sizes)
    if not len(full):
        return keys
    joined = np.concatenate([*shingles])
    starts = (np.cumsum(sizes) - sizes)[full]
    odd = _mixed(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)) | np.uint64(1)
    for band, factors in enumerate(odd.reshape(BANDS, ROWS)):
        key = np.zeros(len(full), dtype=np.uint64)
        for factor in factors:  # products of mixed numbers order them as if by chance
            key = _mixed(key + np.minimum.reduceat(joined * factor, starts))
        for index, value in zip(full.tolist(), key.tolist(), strict=True):
            keys[index].append((band, value))
    return keys


def _mixed(values: Hashes) -> Hashes:
    """Each number as another that looks drawn at random (the finaliser of SplitMix64)."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


_NONE = np.array([], dtype=np.uint64)
