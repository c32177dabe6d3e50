"""Judging replies: scorers by rule, function or model, a module each."""

from corrsteer.scoring.base import Score, Scorer, score, score_batch
from corrsteer.scoring.numbers import numeric, read_number
from corrsteer.scoring.options import choice, read_option, target_letters
from corrsteer.scoring.refusals import is_refusal, refusal
from corrsteer.scoring.registry import load_scorer
from corrsteer.scoring.rules import RULES
from corrsteer.scoring.texts import contains, exact

__all__ = [
    "RULES",
    "Score",
    "Scorer",
    "choice",
    "contains",
    "exact",
    "is_refusal",
    "load_scorer",
    "numeric",
    "read_number",
    "read_option",
    "refusal",
    "score",
    "score_batch",
    "target_letters",
]
