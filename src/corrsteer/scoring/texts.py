"""Scorers of texts: a reply that is, or contains, a target.

Changes when texts are compared in another way.
"""

from __future__ import annotations

import re

from corrsteer.samples import Sample
from corrsteer.scoring.base import Score


def exact(reply: str, sample: Sample) -> Score:
    """1 iff the reply, stripped of surrounding white space, is one of the targets."""
    answer = reply.strip()
    return Score(float(answer in {target.strip() for target in sample.target}), answer)


def contains(reply: str, sample: Sample) -> Score:
    """1 iff a target occurs in the reply as whole words, upper and lower case alike."""
    for target in sample.target:
        if re.search(rf"(?<!\w){re.escape(target.strip())}(?!\w)", reply, re.IGNORECASE):
            return Score(1.0, target)
    return Score(0.0)
