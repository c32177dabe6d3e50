"""Fields of rows, as tables write them.

Changes when another way to write nothing, or a whole number, is met. Libraries for tables fill a
field that a row does not have with null or NaN, and make floats of a column of whole numbers in
which a row has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

PlacedRow = tuple[str, dict[str, Any]]
"""Place of a row in its file, for messages of errors, and what stands there."""

EXACT = 2**53
"""Up to here a float that is whole is one number and no other."""


_NESTED = (float, dict, list)
"""What of a list needs another look; most of a long one does not."""


def filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without fields of null or NaN, its whole floats as whole numbers.

    So are objects within it; a list keeps its places, with None for NaN.
    """
    values = {key: _value(value) for key, value in row.items()}
    return {key: value for key, value in values.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, dict):
        return filled(value)
    if isinstance(value, list):
        return [_value(each) if isinstance(each, _NESTED) else each for each in value]
    return value
