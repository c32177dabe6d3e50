"""Cutting samples into fit, select and test, in the order that the paper's code gives them.

Changes when the cut changes. The permutations are `datasets`' own, taken on positions: rows that
were loaded elsewhere come in the same order, and nothing is written to its cache. One seed goes
through the whole run, so that no fit sample is ever tested.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corrsteer.errors import DataError
from corrsteer.samples import Sample, group_ids

TEST_SHARE = 0.7
"""Of the rows of a data set that comes in one piece."""

OWN_SHARES = 0.5, 0.2
"""Of a user's own rows, those that fit and those that select; the others test."""

SELECT_SHARE = 0.1
"""Of the rows that are not for testing."""


@dataclass(frozen=True)
class Splits:
    """The three splits of a task.

    Attributes:
        fit: samples that correlations and coefficients come from.
        select: samples that features and strengths are validated on.
        test: samples that are only ever reported on.
    """

    fit: tuple[Sample, ...]
    select: tuple[Sample, ...]
    test: tuple[Sample, ...]


def cut(parts: Sequence[Sequence[Sample]], seed: int) -> Splits:
    """Splits of a data set: one part is cut by `cut_all`, train and test by `cut_train`.

    Three parts are fit, select and test already, and are shuffled.

    Raises:
        DataError: too few samples for three splits.
    """
    if len(parts) == 1:
        return cut_all(parts[0], seed)
    if len(parts) == 2:
        return cut_train(parts[0], parts[1], seed)
    fit, select, test = parts
    return Splits(shuffled(fit, seed), shuffled(select, seed), shuffled(test, seed))


def cut_all(samples: Sequence[Sample], seed: int) -> Splits:
    """Splits of a data set that comes in one piece: 27 % fit, 3 % select, 70 % test.

    Shuffled, then 0.7 of it for test, then 0.1 of the remainder for select, as
    https://github.com/seonglae/CorrSteer, corrsteer/utils.py at 1ebf252, `load_dataloaders`.

    Raises:
        DataError: too few samples for three splits.
    """
    shuffled = _positions(len(samples)).shuffle(seed=seed)
    rest, test = _cut(shuffled, TEST_SHARE, seed)
    fit, select = _cut(rest, SELECT_SHARE, seed)
    return Splits(_at(samples, fit), _at(samples, select), _at(samples, test))


def cut_train(train: Sequence[Sample], test: Sequence[Sample], seed: int) -> Splits:
    """Splits of a data set that has a test split: 0.1 of its train split is for select.

    Raises:
        DataError: too few samples for three splits.
    """
    fit, select = _cut(_positions(len(train)).shuffle(seed=seed), SELECT_SHARE, seed)
    return Splits(_at(train, fit), _at(train, select), shuffled(test, seed))


def cut_groups(samples: Sequence[Sample], seed: int) -> Splits:
    """Splits of own rows: 50 % fit, 20 % select, 30 % test, groups whole.

    Shares go by the seed's order of groups; a group lies where its middle falls.
    """
    members: dict[int, list[Sample]] = {}
    for sample, group in zip(samples, group_ids(samples), strict=True):
        members.setdefault(group, []).append(sample)
    groups = list(members.values())
    random.Random(seed).shuffle(groups)
    first = round(OWN_SHARES[0] * len(samples))
    second = first + round(OWN_SHARES[1] * len(samples))
    fit: list[Sample] = []
    select: list[Sample] = []
    test: list[Sample] = []
    begin = 0
    for together in groups:
        middle = begin + len(together) / 2
        part = fit if middle < first else select if middle < second else test
        part += together
        begin += len(together)
    return Splits(tuple(fit), tuple(select), tuple(test))


def shuffled(samples: Sequence[Sample], seed: int) -> tuple[Sample, ...]:
    """The samples in the order of the seed.

    Raises:
        DataError: there are none.
    """
    if not samples:
        raise DataError("a split has no rows; expected at least one in each")
    return _at(samples, _positions(len(samples)).shuffle(seed=seed))


def _positions(count: int) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"position": list(range(count))})


def _cut(positions: Any, share: float, seed: int) -> tuple[Any, Any]:
    """What is left, and the share that is cut off."""
    too_few = f"{len(positions)} rows are too few to cut {share:.0%} off them; give more rows"
    if not len(positions):
        raise DataError(too_few)
    try:
        parts = positions.train_test_split(test_size=share, seed=seed)
    except ValueError as error:  # one of the parts would be empty
        raise DataError(too_few) from error
    return parts["train"], parts["test"]


def _at(samples: Sequence[Sample], positions: Any) -> tuple[Sample, ...]:
    return tuple(samples[position] for position in positions["position"])
