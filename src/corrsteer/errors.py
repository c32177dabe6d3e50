"""What the user can get wrong, one class for each kind.

Changes when there is a new kind of mistake. Every message is one line that names the value,
what was expected and the remedy; the command line prints it and exits with 2.
"""


class CorrSteerError(Exception):
    """A mistake in what was given to CorrSteer, as opposed to a bug in it."""


class SettingsError(CorrSteerError):
    """An option has a value that is not allowed, or two options exclude each other."""


class UnknownNameError(CorrSteerError):
    """A model, task, layer or scorer that nothing is known under."""


class DataError(CorrSteerError):
    """A task's rows cannot be used: malformed, missing a field, or an empty split."""


class InsufficientDataError(CorrSteerError):
    """Too few samples, or outcomes that do not vary, for the statistic asked for."""


class ScorerError(CorrSteerError):
    """A scorer cannot be loaded, raises, or returns what is not an outcome."""


class ModelError(CorrSteerError):
    """A language model or tokenizer cannot be loaded or used."""


class SAEError(CorrSteerError):
    """An SAE cannot be loaded, or does not fit the model."""


class NonFiniteError(CorrSteerError):
    """The model or an SAE produced NaN or infinity."""


class DeviceMemoryError(CorrSteerError):
    """A device has too little memory for even one sample."""


class WorkerError(CorrSteerError):
    """Workers on other processes or machines die."""


class ArtifactError(CorrSteerError):
    """A run folder or steering file is missing, corrupt, or belongs to something else."""


class ConsumerError(CorrSteerError):
    """A consumer cannot take a steering, is not installed, or does not do what it should."""


def unknown(kind: str, value: str, known: list[str], remedy: str) -> UnknownNameError:
    """The error for a name that is not known, with the nearest known one if any is near."""
    import difflib

    near = difflib.get_close_matches(value, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UnknownNameError(f"unknown {kind} {value[:300]!r}{hint}; {remedy}")
