"""What a study is asked for, checked when it is made.

Changes when a study gets another option.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from corrsteer.errors import SettingsError
from corrsteer.settings import FitSettings

PARTS = ("methods", "pooling", "raw", "samples", "transfer", "seeds", "sft")
"""What a study does beside its main runs; each can be skipped."""

OF_CALL = ("seeds", "skip")
"""Settings that may differ when a study is continued: but for the first seed, they only say which
cells are done."""


@dataclass(frozen=True)
class StudySettings:
    """How a study is run.

    Attributes:
        seeds: the first is that of everything but the runs over seeds.
        samples: the most fit samples of a run.
        val_limit: the most select samples; None for all.
        test_limit: the most test samples; None for all.
        permutations: of the outcomes, for family-wise p-values.
        controls: number of random-feature controls of what is recommended.
        batch_size: prompts run at once.
        skip: parts to leave out, of `PARTS`.
        lora: whether the fine-tuning baseline trains LoRA adapters instead of every weight.
    """

    seeds: tuple[int, ...] = (42, 43, 44)
    samples: int = FitSettings.samples
    val_limit: int | None = None
    test_limit: int | None = None
    permutations: int = FitSettings.permutations
    controls: int = FitSettings.controls
    batch_size: int = FitSettings.batch_size
    skip: tuple[str, ...] = ()
    lora: bool = False

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            SettingsError: names the setting, its value and what is allowed.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError(f"seeds is {self.seeds}; give one or more different numbers")
        for part in self.skip:
            if part not in PARTS:
                raise SettingsError(f"skip has {part!r}; choose from {', '.join(PARTS)}")
        for seed in self.seeds:
            self.fit(seed=seed)
        if self.permutations < 1:
            raise SettingsError(f"permutations is {self.permutations}; choose 1 or more")

    @property
    def seed(self) -> int:
        """The seed of everything but the runs over seeds."""
        return self.seeds[0]

    def wanted(self, part: str) -> bool:
        """Whether a part is to be done."""
        return part not in self.skip

    def fit(self, **changes: Any) -> FitSettings:
        """The settings of a main run, with some changed."""
        own = {
            "samples": self.samples,
            "least_select": 0,  # the paper's own splits
            "val_limit": self.val_limit,
            "test_limit": self.test_limit,
            "permutations": self.permutations,
            "controls": self.controls,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }
        return FitSettings.of(**{**own, **changes})

    def header(self) -> dict[str, Any]:
        """What must be the same when a study is continued, as JSON."""
        same = {name: value for name, value in asdict(self).items() if name not in OF_CALL}
        return {**same, "seed": self.seed}
