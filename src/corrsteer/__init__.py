"""Steer language models by the SAE features that correlate with success.

`load_model`, `load_task`, `fit`, `evaluate` and `steer` are the whole of everyday use. Names are
imported when they are first used, so that `import corrsteer` and `corrsteer --help` load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corrsteer.artifacts import Run as Run
    from corrsteer.artifacts import load_run as load_run
    from corrsteer.config import FitSettings as FitSettings
    from corrsteer.correlation import StreamingCorrelation as StreamingCorrelation
    from corrsteer.errors import CorrSteerError as CorrSteerError
    from corrsteer.evaluation import Evaluation as Evaluation
    from corrsteer.evaluation import evaluate as evaluate
    from corrsteer.fitting import fit as fit
    from corrsteer.models import LanguageModel as LanguageModel
    from corrsteer.models import load_model as load_model
    from corrsteer.samples import Sample as Sample
    from corrsteer.scoring import Score as Score
    from corrsteer.scoring import load_scorer as load_scorer
    from corrsteer.steering import Steering as Steering
    from corrsteer.steering import steer as steer
    from corrsteer.tasks import Task as Task
    from corrsteer.tasks import load_task as load_task

_HOME = {
    "CorrSteerError": "errors",
    "Evaluation": "evaluation",
    "FitSettings": "config",
    "LanguageModel": "models",
    "Run": "artifacts",
    "Sample": "samples",
    "Score": "scoring",
    "Steering": "steering",
    "StreamingCorrelation": "correlation",
    "Task": "tasks",
    "evaluate": "evaluation",
    "fit": "fitting",
    "load_model": "models",
    "load_run": "artifacts",
    "load_scorer": "scoring",
    "load_task": "tasks",
    "steer": "steering",
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
