"""The tables of a study, as pure functions of its cells' results.

Changes when a table says something else. Shares are fractions, so that every number can be
computed with; how they look is up to who shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, Literal

from corrsteer.studies.paper.parts import POOLINGS
from corrsteer.studies.paper.published import published
from corrsteer.studies.paper.results import Study

Kind = Literal["text", "page", "percent", "points", "spread", "number", "p", "count"]
"""What a column holds: `page` is an address, `percent` a share, `points` a difference of two,
`spread` a standard deviation of either."""

Value = str | float | int | None
Row = tuple[Value, ...]
Result = Mapping[str, Any]

ARMS = ("S", "A", "P", "G", "dense", "denoised", "recommended", "fine-tuning")
BY_FEATURES = ("S", "A", "P", "G")
"""Arms by features that are looked at one by one."""
PAPER = ", paper"
"""Behind the name of a column of what the paper published."""

DEFAULT_METHOD = {"method": "corr", "sign": "positive", "coefficient": "positive"}
"""How the main runs select."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and what it holds."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """A table of a study.

    Attributes:
        name: of its files.
        title: what it shows.
        note: how to read it.
        columns: one a value of a row.
        rows: None where there is no such value.
    """

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def records(self) -> list[dict[str, Value]]:
        """The rows as JSON holds them."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


CHANGE = (
    Column("accuracy", "percent"),
    Column("low", "percent"),
    Column("high", "percent"),
    Column("change", "points"),
    Column("change low", "points"),
    Column("change high", "points"),
    Column("p", "p"),
    Column("SER", "number"),
)
"""What `_change` gives."""


def tables(study: Study) -> tuple[Table, ...]:
    """Every table that the study has rows for."""
    made = (
        accuracy(study),
        side_effects(study),
        arms(study),
        guards(study),
        features(study),
        paper_features(study),
        frequency(study),
        samples(study),
        transfer(study, "A"),
        transfer(study, "recommended"),
        transfer_detail(study),
        pooling(study),
        raw(study),
        methods(study),
        seeds(study),
        fine_tuning(study),
        left_out(study),
    )
    return tuple(table for table in made if table.rows)


def accuracy(study: Study) -> Table:
    """Accuracy by method and task, the paper's beside it."""
    theirs = published(study.model).get("accuracy", {})
    found = {
        task: {
            "baseline": main["baseline"]["accuracy"],
            **{name: arm["steered"]["accuracy"] for name, arm in task_arms(study, task).items()},
        }
        for task, main in study.each("main")
    }
    return _by_task(
        "accuracy",
        "Accuracy by method and task",
        "On the test split, all methods on the same samples. S, A and P are at strength 1, the "
        "others at the strength that the select split chose.",
        "percent",
        found,
        {task: {name: each / 100 for name, each in of.items()} for task, of in theirs.items()},
    )


def side_effects(study: Study) -> Table:
    """SER by method and task, the paper's beside it."""
    found = {
        task: {name: arm["side_effects"]["ser"] for name, arm in task_arms(study, task).items()}
        for task, _ in study.each("main")
    }
    return _by_task(
        "side-effects",
        "Side Effect Ratio by method and task",
        "Worsened / (worsened + improved), of the test samples whose outcome changed; empty where "
        "none did.",
        "number",
        found,
        published(study.model).get("ser", {}),
    )


def arms(study: Study) -> Table:
    """Every method on every task with intervals and counts."""
    effects = ("improved", "worsened", "changed_equal", "unchanged")
    rows: list[Row] = []
    for task, main in study.each("main"):
        base = main["baseline"]
        blank: Row = (None,) * (len(CHANGE) - 3 + len(effects))
        rows.append(
            (task, "baseline", None, None, base["accuracy"], *base["ci"], *blank, base["n"])
        )
        for name, arm in task_arms(study, task).items():
            counts = [arm["side_effects"][effect] for effect in effects]
            n = arm["steered"]["n"]
            rows.append((task, name, arm["strength"], arm["size"], *_change(arm), *counts, n))
        random = main["controls"]["random"]
        if random["draws"]:
            for which in ("mean", "best"):
                name = f"{which} of {random['draws']} random controls"
                rows.append((task, name, None, None, random[which], None, None, *blank, base["n"]))
    return Table(
        "arms",
        "Every method with its 95 % intervals",
        "The interval of the change is of pairs: the same samples with and without. Random "
        "controls are of what is recommended.",
        (
            Column("task"),
            Column("method"),
            Column("strength", "number"),
            Column("features", "count"),
            *CHANGE,
            *(Column(effect.replace("_", " "), "count") for effect in effects),
            Column("n", "count"),
        ),
        tuple(rows),
    )


def guards(study: Study) -> Table:
    """What is recommended, and fine-tuning, on the tasks that they should not harm."""
    rows = [
        (task, name, guard, of["baseline"], of["steered"], of["delta"]["value"], *of["delta"]["ci"])
        for task, _ in study.each("main")
        for name, part in (("recommended", "main"), ("fine-tuning", "sft"))
        for guard, of in ((study.get(part, task) or {}).get("guards") or {}).items()
        if part == "sft" or (study.get("main", task) or {})["recommended"]
    ]
    return Table(
        "guards",
        "What must not suffer",
        "Accuracy on the guard tasks' test splits.",
        (
            *map(Column, ("task", "method", "guard")),
            Column("baseline", "percent"),
            *CHANGE[:1],
            *CHANGE[3:6],
        ),
        tuple(rows),
    )


def features(study: Study) -> Table:
    """The features that any strategy uses."""
    rows: list[Row] = []
    for task, main in study.each("main"):
        used: dict[tuple[int, int], list[str]] = {}
        known: dict[tuple[int, int], Mapping[str, Any]] = {}
        for strategy, arm in main["strategies"].items():
            if strategy not in BY_FEATURES:  # denoised directions are of hundreds
                continue
            for each in arm["features"]:
                key = each["layer"], each["latent"]
                used.setdefault(key, []).append(strategy)
                known[key] = each
        for key in sorted(known, key=lambda key: (-known[key]["correlation"], key)):
            each = known[key]
            ci = each["correlation_ci"]
            numbers = each["coefficient"], each["correlation"], *ci, each["p_adjusted"]
            said = each.get("explanation")
            rows.append((task, *key, " ".join(used[key]), *numbers, each["url"], said))
    return Table(
        "features",
        "Discovered features",
        "All that S, A, P or G use, by r. Intervals of r are not corrected for selection; the "
        "adjusted p is, for all latents of all layers.",
        (
            Column("task"),
            Column("layer", "count"),
            Column("latent", "count"),
            Column("used by"),
            Column("coefficient", "number"),
            Column("r", "number"),
            Column("r low", "number"),
            Column("r high", "number"),
            Column("adjusted p", "p"),
            Column("page", "page"),
            Column("explanation"),
        ),
        tuple(rows),
    )


def paper_features(study: Study) -> Table:
    """The features that the paper names, with their r here."""
    rows = [
        (task, each["layer"], each["latent"], each["published"], each["measured"])
        for task, main in study.each("main")
        for each in main["published_features"]
    ]
    return Table(
        "paper-features",
        "The paper's features, and their r here",
        "r of the same latent over the fit samples; empty where no SAE here has it.",
        (
            Column("task"),
            Column("layer", "count"),
            Column("latent", "count"),
            Column("r" + PAPER, "number"),
            Column("r", "number"),
        ),
        tuple(rows),
    )


def frequency(study: Study) -> Table:
    """On how many samples the features of A are active."""
    rows = [
        (
            task,
            each["layer"],
            each["latent"],
            each["correlation"],
            each["frequency"],
            each["frequency_correct"],
            each["frequency_incorrect"],
        )
        for task, main in study.each("main")
        for each in main["strategies"]["A"]["features"]
    ]
    return Table(
        "frequency",
        "How often features are active",
        "Share of fit samples on which the best feature of a layer is active at a generated "
        "position: of all, of those answered right (outcome above 0), and of the rest.",
        (
            Column("task"),
            Column("layer", "count"),
            Column("latent", "count"),
            Column("r", "number"),
            Column("active", "percent"),
            Column("on right", "percent"),
            Column("on wrong", "percent"),
        ),
        tuple(rows),
    )


def samples(study: Study) -> Table:
    """What fewer samples would have chosen, and what that does."""
    rows: list[Row] = []
    for task, result in study.each("samples"):
        for each in result["snapshots"]:
            s, a = (
                _arm(result, samples=each["samples"], strategy=strategy) for strategy in ("S", "A")
            )
            told = (
                each["largest"],
                each["threshold"],
                each["agreement"],
                "yes" if each["same_best"] else "no",
            )
            rows.append((task, each["samples"], *told, s["steered"]["accuracy"], *_change(a)))
    return Table(
        "samples",
        "Sample efficiency",
        "The first n of a run's fit samples in a seeded order, from its one pass: the largest |r|, "
        "the |r| above which a latent is significant family-wise, the share of layers whose best "
        "feature is that of all samples, whether S is, and the test accuracy of S and A chosen so.",
        (
            Column("task"),
            Column("samples", "count"),
            Column("largest r", "number"),
            Column("significant above", "number"),
            Column("same best of layers", "percent"),
            Column("same S"),
            Column("accuracy of S", "percent"),
            *_of("A"),
        ),
        tuple(rows),
    )


def transfer(study: Study, strategy: str) -> Table:
    """Source x target: accuracy on a task under the steering for another."""
    found = dict(study.each("transfer"))
    sources = dict.fromkeys(
        arm["source"] for result in found.values() for arm in _of_strategy(result, strategy)
    )
    theirs = published(study.model).get("transfer", {}) if strategy == "A" else {}
    columns = [Column("source")]
    rows: list[list[Value]] = [["baseline"], *([source] for source in sources)]
    for target, result in found.items():
        columns.append(Column(target, "percent"))
        of_source = {arm["source"]: arm for arm in _of_strategy(result, strategy)}
        base = (study.get("main", target) or {})["baseline"]["accuracy"]
        values = [base, *(of_source[source]["steered"]["accuracy"] for source in sources)]
        for row, value in zip(rows, values, strict=True):
            row.append(value)
        if target in theirs.get("baseline", {}):
            columns.append(Column(target + PAPER, "percent"))
            for row in rows:
                value = theirs.get(str(row[0]), {}).get(target)
                row.append(None if value is None else value / 100)
    what = "A at strength 1" if strategy == "A" else "what is recommended, at its own strength"
    return Table(
        "transfer" if strategy == "A" else f"transfer-{strategy}",
        f"Transfer: {what}",
        "Test accuracy of the task in the column under the steering for the task in the row.",
        tuple(columns),
        tuple(map(tuple, rows)) if sources else (),
    )


def transfer_detail(study: Study) -> Table:
    """The same, a row a pair, with intervals."""
    rows = [
        (arm["source"], target, arm["strategy"], arm["strength"], *_change(arm))
        for target, result in study.each("transfer")
        for arm in result["arms"]
    ]
    return Table(
        "transfer-detail",
        "Transfer with its 95 % intervals",
        "A row a pair of tasks.",
        (
            *map(Column, ("source", "target", "strategy")),
            Column("strength", "number"),
            *CHANGE,
        ),
        tuple(rows),
    )


def pooling(study: Study) -> Table:
    """Ways to pool."""
    theirs = published(study.model).get("pooling", {})
    rows: list[Row] = []
    for task, main in study.each("main"):
        ways = {"max": main, **{way: study.get(f"pool-{way}", task) for way in POOLINGS}}
        if any(result is None for result in ways.values()):
            continue
        for way, result in ways.items():
            for strategy in ("S", "A"):
                value = theirs.get(task, {}).get(way) if strategy == "A" else None
                paper = None if value is None else value / 100
                arm = _strategy(result or {}, strategy)
                rows.append((task, way, strategy, *_change(arm), paper))
    return Table(
        "pooling",
        "Pooling",
        "max (the default) and mean pool over generated positions; all takes the maximum over "
        "every position, the prompt's too, and steers at all of them. The paper's number stands "
        "beside A.",
        (
            *map(Column, ("task", "pooling", "strategy")),
            *CHANGE,
            Column("accuracy" + PAPER, "percent"),
        ),
        tuple(rows),
    )


def raw(study: Study) -> Table:
    """SAE latents and residual dimensions."""
    rows: list[Row] = []
    for task, result in study.each("raw"):
        main = study.get("main", task) or {}
        for what, of, chosen in (
            ("SAE latents", main, main["strategies"]["A"]["features"]),
            ("residual dimensions", result, result["features"]),
        ):
            best = max((each["correlation"] for each in chosen), default=None)
            for strategy in ("S", "A"):
                rows.append((task, what, strategy, best, *_change(_strategy(of, strategy))))
    return Table(
        "raw",
        "SAE latents and residual dimensions",
        "The same method on the dimensions of the residual stream, in place of SAE latents.",
        (*map(Column, ("task", "features", "strategy")), Column("best r", "number"), *CHANGE),
        tuple(rows),
    )


def methods(study: Study) -> Table:
    """Ways to select."""
    rows: list[Row] = []
    for task, result in study.each("methods"):
        main = study.get("main", task) or {}
        own = [
            {**DEFAULT_METHOD, **_strategy(main, strategy), "strategy": strategy}
            for strategy in ("S", "A")
        ]
        default = {each["strategy"]: _keys(each["features"]) for each in own}
        for arm in (*own, *result["arms"]):
            shared = _keys(arm["features"]) & default[arm["strategy"]]
            ways = (arm[name] for name in DEFAULT_METHOD)
            share = (
                len(shared) / len(default[arm["strategy"]]) if default[arm["strategy"]] else None
            )
            rows.append((task, *ways, arm["strategy"], share, *_change(arm)))
    return Table(
        "methods",
        "Ways to select",
        "Chosen again from the statistics of the main run: by r, mutual information, Fisher ratio "
        "or contrast; of either sign; and with the contrastive coefficient. Shared: of the "
        "features that the first row chooses.",
        (
            *map(Column, ("task", *DEFAULT_METHOD, "strategy")),
            Column("shared", "percent"),
            *CHANGE,
        ),
        tuple(rows),
    )


def seeds(study: Study) -> Table:
    """Mean and spread over seeds."""
    theirs = published(study.model).get("seeds", {})
    rows: list[Row] = []
    for task in study.tasks:
        runs = [study.get(f"seed-{seed}", task) for seed in study.settings.seeds]
        done = [run for run in runs if run is not None]
        if not done:
            continue
        count, n_fit = len(done), min(run["n_fit"] for run in done)
        agreed = _agreement([_keys(run["features"]) for run in done])
        for name in ("baseline", "S", "A", "P"):
            chosen = [_arm(run, strategy="S" if name == "baseline" else name) for run in done]
            which = "baseline" if name == "baseline" else "steered"
            values = [arm[which]["accuracy"] for arm in chosen]
            steered = name != "baseline"
            changes = [arm["delta"]["value"] for arm in chosen] if steered else []
            sers = [arm["side_effects"]["ser"] for arm in chosen] if steered else []
            paper = theirs.get(task, {}).get(name)
            rows.append(
                (
                    task,
                    name,
                    count,
                    n_fit,
                    *_mean_and_spread(values),
                    min(values),
                    max(values),
                    *_mean_and_spread(changes),
                    *_mean_and_spread([ser for ser in sers if ser is not None]),
                    agreed if name == "A" else None,
                    None if paper is None else paper / 100,
                )
            )
    return Table(
        "seeds",
        "Spread over seeds",
        "Runs that differ by their seed: it cuts the splits of tasks that have none, and draws the "
        "fit samples, at most half of the split so that they differ. sd is that of a sample. "
        "Shared: layers with the same best feature, mean over pairs of seeds.",
        (
            Column("task"),
            Column("method"),
            Column("seeds", "count"),
            Column("fit samples", "count"),
            Column("accuracy", "percent"),
            Column("accuracy sd", "spread"),
            Column("lowest", "percent"),
            Column("highest", "percent"),
            Column("change", "points"),
            Column("change sd", "spread"),
            Column("SER", "number"),
            Column("SER sd", "number"),
            Column("shared", "percent"),
            Column("accuracy sd" + PAPER, "spread"),
        ),
        tuple(rows),
    )


def fine_tuning(study: Study) -> Table:
    """The fine-tuning baseline, and how it was trained."""
    rows: list[Row] = [
        (
            task,
            result["training"]["method"],
            result["task"]["n_fit"],
            result["training"]["steps"],
            result["training"]["learning_rate"],
            result["baseline"]["accuracy"],
            *_change(result),
        )
        for task, result in study.each("sft")
    ]
    return Table(
        "fine-tuning",
        "Fine-tuning",
        "On the fit samples of the main run, evaluated by the same code on the same test samples.",
        (
            *map(Column, ("task", "weights")),
            Column("samples", "count"),
            Column("steps", "count"),
            Column("learning rate", "number"),
            Column("baseline", "percent"),
            *CHANGE,
        ),
        tuple(rows),
    )


def left_out(study: Study) -> Table:
    """What could not be had."""
    rows = tuple(study.unavailable())
    return Table(
        "left-out", "Left out", "What could not be had.", (Column("part"), Column("reason")), rows
    )


def task_arms(study: Study, task: str) -> dict[str, dict[str, Any]]:
    """Every method of a task: strength, number of features, and the comparison."""
    main, sft = study.get("main", task) or {}, study.get("sft", task)
    found: dict[str, dict[str, Any]] = {
        name: {**arm, "size": len(arm["features"])} for name, arm in main["strategies"].items()
    }
    recommended = main["recommended"]
    if recommended is not None:
        same = found[recommended["strategy"]]
        found["recommended"] = {**main, "strength": recommended["strength"], "size": same["size"]}
    if sft is not None:
        found["fine-tuning"] = {**sft, "strength": None, "size": None}
    return found


def _by_task(
    name: str,
    title: str,
    note: str,
    kind: Kind,
    found: Mapping[str, Mapping[str, Value]],
    theirs: Mapping[str, Mapping[str, Value]],
) -> Table:
    """A row a method and a column a task, with one of the paper's behind it where there is."""
    columns: list[Column] = [Column("method")]
    for task in found:
        columns.append(Column(task, kind))
        if task in theirs:
            columns.append(Column(task + PAPER, kind))
    rows: list[Row] = []
    for method in ("baseline", *ARMS):
        if any(method in values for values in found.values()):
            row: list[Value] = [method]
            for task, values in found.items():
                row.append(values.get(method))
                if task in theirs:
                    row.append(theirs[task].get(method))
            rows.append(tuple(row))
    return Table(name, title, note, tuple(columns), tuple(rows))


def _change(arm: Result) -> tuple[float | None, ...]:
    """The values of `CHANGE`."""
    steered, delta = arm["steered"], arm["delta"]
    return (
        steered["accuracy"],
        *steered["ci"],
        delta["value"],
        *delta["ci"],
        delta["p_value"],
        arm["side_effects"]["ser"],
    )


def _of(strategy: str) -> tuple[Column, ...]:
    """`CHANGE` of a strategy, where another's numbers stand beside it."""
    return tuple(Column(f"{column.name} of {strategy}", column.kind) for column in CHANGE)


def _strategy(result: Result, strategy: str) -> Result:
    """A strategy's arm of a main run or of a variant."""
    if "strategies" in result:
        found: Result = result["strategies"][strategy]
        return found
    return _arm(result, strategy=strategy)


def _arm(result: Result, **labels: Value) -> Result:
    """The arm with these labels."""
    (found,) = (
        arm for arm in result["arms"] if all(arm[name] == value for name, value in labels.items())
    )
    return dict(found)


def _of_strategy(result: Result, strategy: str) -> list[Result]:
    return [arm for arm in result["arms"] if arm["strategy"] == strategy]


def _keys(chosen: Iterable[Any]) -> set[tuple[str, int]]:
    """What tells features apart, given as such or as whole features."""
    pairs = (
        (each["hook_point"], each["latent"]) if isinstance(each, Mapping) else tuple(each)
        for each in chosen
    )
    return set(pairs)


def _mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation of a sample; None where there are too few."""
    return fmean(values) if values else None, stdev(values) if len(values) > 1 else None


def _agreement(chosen: Sequence[set[tuple[str, int]]]) -> float | None:
    """Share of features that two runs have in common, mean over pairs; None for one run."""
    shares = [len(a & b) / max(len(a), len(b), 1) for a, b in combinations(chosen, 2)]
    return fmean(shares) if shares else None
