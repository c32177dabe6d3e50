"""Steer language models by the SAE features that correlate with success.

`load_model`, `load_task`, `fit`, `evaluate` and `steer` are the whole of everyday use. Names are
imported when they are first used, so that `import corrsteer` and `corrsteer --help` load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corrsteer.errors import CorrSteerError as CorrSteerError
    from corrsteer.lm.models import LanguageModel as LanguageModel
    from corrsteer.lm.models import load_model as load_model
    from corrsteer.method.evaluation import evaluate as evaluate
    from corrsteer.method.fit import fit as fit
    from corrsteer.runs.evaluation import Evaluation as Evaluation
    from corrsteer.runs.folder import load_run as load_run
    from corrsteer.runs.run import Run as Run
    from corrsteer.runs.steer import steer as steer
    from corrsteer.runs.steering import Steering as Steering
    from corrsteer.samples import Sample as Sample
    from corrsteer.scoring.base import Score as Score
    from corrsteer.scoring.registry import load_scorer as load_scorer
    from corrsteer.settings import FitSettings as FitSettings
    from corrsteer.stats.correlation import StreamingCorrelation as StreamingCorrelation
    from corrsteer.tasks import Task as Task
    from corrsteer.tasks import load_task as load_task

_HOME = {
    "CorrSteerError": "errors",
    "Evaluation": "runs.evaluation",
    "FitSettings": "settings",
    "LanguageModel": "lm.models",
    "Run": "runs.run",
    "Sample": "samples",
    "Score": "scoring.base",
    "Steering": "runs.steering",
    "StreamingCorrelation": "stats.correlation",
    "Task": "tasks",
    "evaluate": "method.evaluation",
    "fit": "method.fit",
    "load_model": "lm.models",
    "load_run": "runs.folder",
    "load_scorer": "scoring.registry",
    "load_task": "tasks",
    "steer": "runs.steer",
}
__all__ = sorted(_HOME)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'corrsteer' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"corrsteer.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
