"""The settings of a run, checked when they are made and saved whole with its results.

Changes when the method gets another setting.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from pydantic import TypeAdapter, ValidationError

from corrsteer.errors import SettingsError

Strategy = Literal["S", "A", "P", "G", "dense", "denoised", "probe", "topk"]
"""An arm that steers."""
Unsteered = Literal["prompt", "few-shot"]
"""An arm that asks in another way instead."""
ArmName = Strategy | Unsteered
DEFAULT_ARMS: tuple[Strategy, ...] = ("S", "A", "P", "G", "dense", "denoised")
Pool = Literal["max", "mean", "first"]
Positions = Literal["generated", "all"]
Coefficient = Literal["positive", "contrast", "active"]
Method = Literal["corr", "mi", "fisher", "contrast"]
Sign = Literal["positive", "negative", "both"]
SAEDtype = Literal["float32", "bfloat16"]

DEFAULT_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 2.0, 4.0)
"""Offered to `auto` and G. At strength 1 the coefficients of all layers add up and often
overshoot, hence more values below 1 than above."""

MIN_SAMPLES = 4
"""Fisher's interval for r has standard error 1 / sqrt(n - 3)."""


@dataclass(frozen=True)
class FitSettings:
    """How features are found, chosen and tried out.

    Attributes:
        strategy: one arm, or `auto` to try several and recommend.
        arms: those that `auto` tries: S, A, P and G by features; `dense` by the difference of means
            of the residual; `denoised` by that difference rebuilt from the latents of largest
            contrast; `probe` by a logistic direction; `topk` by several features of every layer.
            Beside them, and never recommended, `prompt` and `few-shot` ask in another way.
        layers: SAE layers to use; None for all.
        samples: the most fit samples to use.
        pool: how activations are pooled over positions for the correlation: their largest, their
            mean, or the `first` alone, where the model decides how the reply begins. Latents that
            read what was replied cannot act on it; at the first position there is nothing to read.
        steer_pool: the same for the coefficient.
        positions: `generated`, or `all` to read and steer every prompt position too.
        coefficient: `positive` is the mean pooled activation over samples with outcome > 0;
            `contrast` subtracts the mean over samples with outcome 0; `active` leaves out the
            samples on which the feature is not active.
        method: what features are ranked by: `corr` is Pearson's r, `mi` mutual information,
            `fisher` the Fisher ratio, `contrast` the contrastive difference.
        sign: whether features may go with success, with failure, or with either.
        instruction: what the arm `prompt` puts before each prompt.
        shots: solved fit samples that the arm `few-shot` puts before each prompt.
        strength: multiplies the coefficients where no strength is searched for.
        strengths: the strengths that `auto` and G choose from.
        near_ties: how many features a layer, the best one included, G may choose from: those
            whose r lies within one standard error of the layer's best.
        controls: number of random-feature controls.
        guard_tolerance: the accuracy a guard task may lose, as a fraction.
        alpha: significance level of the recommendation, over the whole search.
        power: with which a gain is called detectable; it changes what is said of what could have
            been seen, and no result.
        least_select: select samples that there are to be: where a task's own split has fewer, fit
            samples are moved to it, up to half of both or a little more. 0 leaves splits as they
            are.
        val_limit: the most select samples to use; None for all.
        test_limit: the most test samples to use; None for all.
        min_frequency: share of fit samples on which a feature must be active to be selected.
        sae_dtype: of the products in which SAEs encode; `bfloat16` is faster, adds up in float32,
            and the log says by how much it changes activations.
        log: whether to keep every sample's pooled activations, which permutations need.
        permutations: of the outcomes, for family-wise p-values; 0 for Bonferroni's bound.
        seed: of every random choice.
        batch_size: prompts run at once.
    """

    strategy: Strategy | Literal["auto"] = "auto"
    arms: tuple[ArmName, ...] = DEFAULT_ARMS
    instruction: str = ""
    shots: int = 4
    layers: tuple[int, ...] | None = None
    samples: int = 4000
    pool: Pool = "max"
    steer_pool: Pool = "max"
    positions: Positions = "generated"
    coefficient: Coefficient = "positive"
    method: Method = "corr"
    sign: Sign = "positive"
    strength: float = 1.0
    strengths: tuple[float, ...] = DEFAULT_STRENGTHS
    near_ties: int = 3
    controls: int = 10
    guard_tolerance: float = 0.03
    alpha: float = 0.05
    power: float = 0.8
    least_select: int = 200
    val_limit: int | None = None
    test_limit: int | None = None
    min_frequency: float = 0.0
    sae_dtype: SAEDtype = "float32"
    log: bool = True
    permutations: int = 1000
    seed: int = 42
    batch_size: int = 32

    @property
    def chooses(self) -> bool:
        """Whether there are several strengths and strategies, or one, to choose from."""
        return self.strategy not in ("S", "A", "P")

    @property
    def tried_arms(self) -> tuple[Strategy, ...]:
        """The arms that are tried: those of `auto` that steer, or the one asked for."""
        if self.strategy != "auto":
            return (self.strategy,)
        return tuple(arm for arm in self.arms if arm != "prompt" and arm != "few-shot")

    @property
    def unsteered_arms(self) -> tuple[Unsteered, ...]:
        """The arms of `auto` that ask in another way instead of steering."""
        arms = self.arms if self.strategy == "auto" else ()
        return tuple(arm for arm in arms if arm == "prompt" or arm == "few-shot")

    @property
    def searched_strengths(self) -> tuple[float, ...]:
        """Strengths that are tried: all of them where one is chosen, else the one that was set."""
        if self.chooses:
            return tuple(sorted({*self.strengths, self.strength}))
        return (self.strength,)

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            SettingsError: names the setting, its value and what is allowed.
        """
        _at_least("samples", self.samples, MIN_SAMPLES)
        _at_least("near_ties", self.near_ties, 1)
        _at_least("controls", self.controls, 0)
        _at_least("permutations", self.permutations, 0)
        _at_least("least_select", self.least_select, 0)
        _at_least("batch_size", self.batch_size, 1)
        for name, limit in (("val_limit", self.val_limit), ("test_limit", self.test_limit)):
            if limit is not None:
                _at_least(name, limit, 1)
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"seed is {self.seed}; choose 0 to {2**32 - 1}")
        _check_strength("strength", self.strength)
        for strength in self.strengths:
            _check_strength("strengths", strength)
        if self.positions == "all" and "first" in (self.pool, self.steer_pool):
            raise SettingsError(
                "pool first is the last prompt position, and positions all begins with the first; "
                "leave one of them out"
            )
        if not self.arms or len({*self.arms}) < len(self.arms):
            raise SettingsError(f"arms is {self.arms}; name one or more, each once")
        if not self.tried_arms:
            raise SettingsError(f"arms is {self.arms}, none of which steers; name one that does")
        if ("prompt" in self.arms) != bool(self.instruction.strip()):
            raise SettingsError(
                f"arms is {self.arms} and instruction is {self.instruction!r}; the arm prompt and "
                "--instruction belong together"
            )
        _at_least("shots", self.shots, 1)
        if not self.strengths:
            raise SettingsError("strengths is empty; give at least one number")
        if not 0 < self.power < 1:
            raise SettingsError(f"power is {self.power}; choose a fraction above 0 and below 1")
        for name in ("guard_tolerance", "alpha", "min_frequency"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise SettingsError(f"{name} is {share}; choose a fraction from 0 to 1")

    @classmethod
    def of(cls, **settings: Any) -> FitSettings:
        """Settings from keyword arguments, their types checked; lists become tuples.

        Raises:
            SettingsError: a name that is no setting, or a value that is not allowed.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise SettingsError(f"unknown setting {name!r}; choose from {', '.join(known)}")
        try:
            return TypeAdapter(cls).validate_python(settings)
        except ValidationError as error:
            first = error.errors()[0]
            expected = first["msg"].removeprefix("Input ")
            raise SettingsError(
                f"{first['loc'][0]} is {first['input']!r}; it {expected}"
            ) from error


class FitKeywords(TypedDict, total=False):
    """The fields of `FitSettings` as keyword arguments; see there."""

    strategy: Strategy | Literal["auto"]
    arms: tuple[ArmName, ...]
    instruction: str
    shots: int
    layers: tuple[int, ...] | None
    samples: int
    pool: Pool
    steer_pool: Pool
    positions: Positions
    coefficient: Coefficient
    method: Method
    sign: Sign
    strength: float
    strengths: tuple[float, ...]
    near_ties: int
    controls: int
    guard_tolerance: float
    alpha: float
    power: float
    least_select: int
    val_limit: int | None
    test_limit: int | None
    min_frequency: float
    sae_dtype: SAEDtype
    log: bool
    permutations: int
    seed: int
    batch_size: int


def check_strength(strength: float) -> float:
    """The strength itself, refused if steering by it could only give NaN.

    Raises:
        SettingsError: it is not a finite number of sensible size.
    """
    _check_strength("strength", strength)
    return strength


def _check_strength(name: str, strength: float) -> None:
    if not abs(strength) <= 1e4:
        raise SettingsError(f"{name} has {strength}; choose numbers between -10000 and 10000")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise SettingsError(f"{name} is {value}; choose {least} or more")
