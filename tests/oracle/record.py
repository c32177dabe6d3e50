"""Runs the paper's own code on the hub and writes down what it computes.

    python record.py CHECKOUT HUB [CASE...]

CHECKOUT is a copy of the paper's code and HUB what `hub.py` lays out. It runs in an environment of
its own, with the libraries of the paper's day (README.md); nothing of CorrSteer, and nothing that
`make test` needs, is in it. Of the paper's code nothing is changed; three things are put in place:

- `corrsteer.dataset.MathDataLoader`, which it imports and does not have, is an empty class;
- `datasets` caches nothing, and reads the feature type `List` under its older name;
- functions are wrapped so that what they return is written down.
"""

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

CASES = {
    "mmlu_global": {"task": "mmlu", "layer": "global"},
    "mmlu_foreach": {"task": "mmlu", "layer": "foreach"},
    "mmlu_raw": {"task": "mmlu", "layer": "global", "raw": True},
    "mmlu_caa": {"task": "mmlu", "layer": "global", "caa": True},
}
PACKAGES = ("torch", "transformers", "sae-lens", "datasets", "tokenizers", "numpy", "accelerate")
SUMS = ("sum_x", "sum_xx", "sum_xy", "sum_x_pos")
OUT = Path(__file__).parent / "cases"


def prepare(checkout: Path, hub: Path) -> None:
    """Has the libraries read the hub alone, and the paper's code importable."""
    os.environ["HF_HOME"] = str(hub)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    sys.path.insert(0, str(checkout))

    import datasets
    import torch

    datasets.disable_caching()
    datasets.features.features._FEATURE_TYPES["List"] = datasets.Sequence
    torch.set_num_threads(1)

    import corrsteer.dataset as loaders

    loaders.MathDataLoader = type("MathDataLoader", (loaders.DataLoader,), {})


def recorded(owner, name: str, calls: list) -> None:
    """Wraps a method: its object, arguments and return value go into `calls`."""
    original = getattr(owner, name)

    def method(self, *args, **kwargs):
        value = original(self, *args, **kwargs)
        calls.append((self, args, value))
        return value

    setattr(owner, name, method)


def run(flags: dict) -> tuple[dict, dict]:
    """What goes into a case's JSON, and the arrays of its npz."""
    import numpy as np
    from eval import EvalController
    from train import CorrSteerController

    calls: dict[str, list] = {}
    originals = {}
    for owner, name in (
        (EvalController, "evaluate_loop"),
        (CorrSteerController, "_validate_baseline"),
        (CorrSteerController, "_validate_feature"),
    ):
        originals[owner, name] = getattr(owner, name)
        recorded(owner, name, calls.setdefault(name, []))
    controller = CorrSteerController()
    try:
        result = controller.train(model="llama8", dtype="float32", **flags)
    finally:
        for (owner, name), original in originals.items():
            setattr(owner, name, original)
    evaluation, arguments, (steered, _, _) = calls["evaluate_loop"][0]
    evaluation.layers = []
    baseline, _, _ = evaluation.evaluate_loop(*arguments)
    arrays = {}
    for layer, sums in controller.accumulators.items():
        arrays[f"L{layer}_corr"] = sums.correlations().numpy()
        arrays[f"L{layer}_count_active"] = sums.count_active.numpy().astype(np.int32)
        arrays |= {f"L{layer}_{name}": getattr(sums, name).numpy() for name in SUMS}
    any_sums = next(iter(controller.accumulators.values()))
    case = {
        "flags": {"model": "llama8", "dtype": "float32", **flags},
        "versions": {name: version(name) for name in PACKAGES},
        "n": any_sums.n,
        "sum_y": any_sums.sum_y,
        "steers": result["steers"],
        "top": {
            layer: [
                {key: row[key] for key in ("feature_index", "coefficient", "correlation")}
                for row in found["top_positive"][:5]
            ]
            for layer, found in result["results"].items()
        },
        "validated": [
            {"layer": args[0], "feature_index": args[1], "coefficient": args[2], "accuracy": value}
            for _, args, value in calls["_validate_feature"]
        ],
        "validated_baseline": [value for _, _, value in calls["_validate_baseline"]],
        "ground_truth": [row["ground_truth"] for row in baseline],
        "baseline": [row["predicted"] for row in baseline],
        "steered": [row["predicted"] for row in steered],
    }
    return case, arrays


def main() -> None:
    checkout, hub, *names = sys.argv[1:]
    prepare(Path(checkout).resolve(), Path(hub).resolve())
    import numpy as np

    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)  # it writes into where it is started
        for name in names or CASES:
            case, arrays = run(CASES[name])
            text = json.dumps(case, indent=1).replace("\n  ", " ").replace("\n ]", " ]")
            (OUT / f"{name}.json").write_text(text + "\n")
            np.savez_compressed(OUT / f"{name}.npz", **arrays)
            changed = sum(map(str.__ne__, case["baseline"], case["steered"]))
            print(f"{name}: {case['n']} samples, layers {case['steers']}, {changed} changed")


if __name__ == "__main__":
    main()
