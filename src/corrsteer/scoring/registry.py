"""Scorers by name, pattern or function.

Changes when scorers are named in another way.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corrsteer.errors import ScorerError, unknown
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score, Scorer, checked_outcome, shown, unread
from corrsteer.scoring.rated import RATED
from corrsteer.scoring.rules import RULES, RuleScorer

JUDGES = {
    "refusal-model": "corrsteer.scoring.judges:REFUSAL_MODEL",
    "semantic": "corrsteer.scoring.judges:SEMANTIC",
}
"""Scorers that run a model, by where they are imported from once they are asked for."""


def load_scorer(spec: str) -> Scorer:
    """The scorer that `--scorer` names.

    Args:
        spec: a name of `RULES` or `JUDGES`; `rated`, for replies that were rated already;
            `regex:PATTERN`; or `package.module:function`, one of
            `(reply, sample)` that returns a float in [0, 1], or None where it cannot judge.
            It is imported and run, so name only code you trust.

    Raises:
        UnknownNameError: no such rule.
        ScorerError: the pattern is malformed, or the function cannot be imported.
    """
    if spec in RULES:
        return RULES[spec]
    if spec == RATED.name:
        return RATED
    if spec in JUDGES:
        module_name, _, name = JUDGES[spec].partition(":")
        judge: Scorer = getattr(importlib.import_module(module_name), name)
        return judge
    if spec.startswith("regex:"):
        return _regex_scorer(spec)
    check_scorer_name(spec)
    return _function_scorer(spec)


def check_scorer_name(spec: str) -> None:
    """Refuse what names no scorer; a function is not imported.

    Raises:
        UnknownNameError: no such rule.
    """
    known = [*RULES, *JUDGES, RATED.name]
    if spec not in known and ":" not in spec:
        remedy = f"choose {', '.join(known)}, regex:PATTERN or package.module:function"
        raise unknown("scorer", spec, known, remedy)


def _regex_scorer(spec: str) -> RuleScorer:
    """1 iff the pattern occurs; if it has a group and the sample a target, iff they are equal."""
    try:
        pattern = re.compile(spec.removeprefix("regex:"))
    except (re.error, OverflowError, RecursionError) as error:
        raise ScorerError(f"--scorer {spec[:300]!r} is no regular expression: {error}") from error

    def rule(reply: str, sample: Sample) -> Score:
        match = pattern.search(reply)
        captures = bool(pattern.groups and sample.target)
        if match is None:
            return unread("the pattern does not occur") if captures else Score(0.0)
        if not captures:
            return Score(1.0, match[0])
        answer = (match[1] or "").strip()
        return Score(float(answer in {target.strip() for target in sample.target}), answer)

    return RuleScorer(spec, rule, needs_target=False)


def _function_scorer(spec: str) -> RuleScorer:
    module_name, _, function_name = spec.partition(":")
    here, own = str(Path.cwd()), _OwnFolder()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        with own.entered():
            function = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise ScorerError(
            f"--scorer {spec[:300]!r} cannot be imported ({shown(error)}); expected "
            "package.module:function, importable from here"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(function):
        raise ScorerError(f"--scorer {spec!r} is not a function; expected (reply, sample) -> float")

    def rule(reply: str, sample: Sample) -> Score:
        try:
            with own.entered():
                value = function(reply, sample)
        except (Exception, SystemExit) as error:  # foreign code may raise anything
            raise ScorerError(
                f"scorer {spec} raised {type(error).__name__} on sample {sample.id!r}: "
                f"{shown(error)}; correct the function"
            ) from error
        return Score(checked_outcome(value, spec, sample))

    return RuleScorer(spec, rule, needs_target=False, source=_source_digest(function, module_name))


def _source_digest(function: object, module_name: str) -> str:
    """A digest of the files of the modules that a function is defined in and imported from."""
    names = {module_name, getattr(function, "__module__", None) or type(function).__module__}
    paths = {getattr(sys.modules.get(name), "__file__", None) or "" for name in names}
    found = hashlib.sha256()
    for path in sorted(paths):
        if os.path.isfile(path):  # noqa: PTH113 - built-in modules have none
            found.update(Path(path).read_bytes())
    return found.hexdigest()[:16]


class _OwnFolder:
    """The working directory of foreign code: where it changes to is its own business alone."""

    def __init__(self) -> None:
        self._path: str | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """While inside, the working directory is where it was left the last time."""
        here = os.getcwd()  # noqa: PTH109
        if self._path is not None:
            os.chdir(self._path)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):  # it may have removed it
                left = os.getcwd()  # noqa: PTH109
                self._path = None if left == here else left
            os.chdir(here)
