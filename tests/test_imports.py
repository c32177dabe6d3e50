"""What modules may do: import downwards and in no circle, reach for files, take so many lines."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from source_rules import PACKAGE, circle, imports_among, powers, sizes

# What a room may import stands in a line above its own; order within a line means nothing.
# `corrsteer` itself, what is public, re-exports and may be imported by nobody here.
FLOORS = [
    ["errors", "progress", "timing", "samples", "mini", "notebook", "json_text"],
    ["hook_points", "files", "settings", "features", "everyday"],
    ["stats", "scoring"],
    ["lm", "tasks"],
    ["runs"],
    ["execution"],
    ["method", "sae_training"],
    ["studies"],
    ["report", "export"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}

NO_MODEL_LIBRARY = ["errors", "progress", "timing", "samples", "notebook", "json_text", "files"]
NO_MODEL_LIBRARY += ["hook_points", "settings", "features", "stats", "scoring"]
"""Rooms that import none of transformers, sae-lens and datasets."""

PRINTS = ("cli", "report")
"""Rooms that may print."""

ROOMS_WITH_FILES = ("files", "lm", "tasks", "runs", "execution")
ROOMS_WITH_FILES += ("studies", "report", "export", "demo", "cli")
MAY_REACH = {
    # sums kept before, or in another run; the source of scorer functions; the weights of judges
    "files": (
        *(*ROOMS_WITH_FILES, "method/collect.py", "method/train.py", "method/provenance.py"),
        *("scoring/registry.py", "scoring/judges.py"),
        *("sae_training/documents.py", "sae_training/dictionary.py", "sae_training/training.py"),
    ),
    "processes": ("export/verify.py", "export/probes", "lm/fetching.py"),
    "network": (
        *(
            "lm/models.py",
            "lm/saes.py",
            "scoring/judges.py",
            "runs/steering.py",
        ),  # the hub's models
        *("tasks/hub.py", "tasks/splits.py", "studies/fine_tuning.py"),  # its data sets
        "runs/explanations.py",  # Neuronpedia
        "execution/ray_workers.py",
        *("demo", "cli/demo.py"),  # a server, and the browser that is sent there
    ),
}
"""Rooms and modules that may do more than compute; all others are given what they work on."""

DEFERRED = {("corrsteer.runs.run", "corrsteer.runs.folder")}
"""Imports inside a function that close a circle: `Run.save` writes what `load_run` reads."""

MOST_LINES, USUAL_LINES, MOST_PARAMETERS, MOST_FLOORS, MOST_IN_ROOT = 80, 35, 8, 12, 12

HOOKS = "lm/hooks.py"
STANDALONE = "runs/card/steer.py"
"""A script that is copied beside a shared steering, with what it imports of ours written out."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(code: str) -> set[str]:
    """Rooms that a module imports, also inside functions and by `import_module`.

    Raises:
        ValueError: it imports relatively.
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno} imports relatively")
            module = node.module or ""
            if module.startswith("corrsteer."):
                found.add(module.split(".")[1])
            elif module == "corrsteer":
                found |= {alias.name for alias in node.names} & set(RANK)
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "corrsteer" and len(name) > 1}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= registered(node.value)
    return found


def registered(text: str) -> set[str]:
    """The room that a text names as a module of ours, as registries do."""
    first, _, rest = text.partition(".")
    room = rest.replace(":", ".").split(".")[0]
    looks_like_module = all(part.isidentifier() for part in text.replace(":", ".").split("."))
    return {room} if first == "corrsteer" and looks_like_module and room in RANK else set()


def upward(room: str, code: str) -> list[str]:
    """Rooms that a module in `room` imports though they do not stand below it."""
    return sorted(other for other in imported_rooms(code) - {room} if RANK[other] >= RANK[room])


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = room_of(path)
    assert room in RANK, f"give {room} a place in FLOORS"
    assert upward(room, path.read_text(encoding="utf-8")) == []


def test_the_house_is_small():
    assert len([*PACKAGE.glob("*.py")]) <= MOST_IN_ROOT
    assert len(FLOORS) <= MOST_FLOORS


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_modules_import_in_a_circle():
    graph = imports_among({module_of(path): path.read_text(encoding="utf-8") for path in FILES})
    for module, other in DEFERRED:
        graph[module].remove(other)
    assert circle(graph) == []


def places_allowing(path: Path, power: str) -> list[str]:
    """Entries of the list by which a module may."""
    name = path.relative_to(PACKAGE).as_posix()
    places = (name, name.removesuffix(".py"))
    return [
        entry
        for entry in MAY_REACH[power]
        if any(place == entry or place.startswith(f"{entry}/") for place in places)
    ]


def test_what_only_computes_reaches_for_nothing():
    reached = {
        (power, path) for path in FILES for power in powers(path.read_text(encoding="utf-8"))
    }
    assert not [(power, str(path)) for power, path in reached if not places_allowing(path, power)]
    used = {(power, entry) for power, path in reached for entry in places_allowing(path, power)}
    listed = {(power, entry) for power, entries in MAY_REACH.items() for entry in entries}
    assert listed - used == set(), "take off MAY_REACH what does not need to be there"


def test_functions_are_short_and_take_few_parameters():
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}:{size.name}": size
        for path in FILES
        for size in sizes(path.read_text(encoding="utf-8"))
    }
    assert {name for name, size in found.items() if size.lines > MOST_LINES} == set()
    wide = {name for name, size in found.items() if size.parameters > MOST_PARAMETERS}
    assert wide == set()
    assert statistics.quantiles([size.lines for size in found.values()], n=20)[-1] <= USUAL_LINES


def test_only_hooks_registers_hooks():
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        if name not in (HOOKS, STANDALONE):
            assert "register_forward" not in path.read_text(encoding="utf-8"), name


def printing(code: str) -> bool:
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return "print" in [call.id for call in calls if isinstance(call, ast.Name)]


def test_only_doors_print():
    for path in FILES:
        if room_of(path) not in PRINTS:
            assert not printing(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "code",
    [
        "from corrsteer.cli import main",
        "import corrsteer.method.fit",
        "from corrsteer import demo",
        "def later():\n    from corrsteer.runs.run import Run",
        'JUDGES = {"own": "corrsteer.method.fit:fit"}',
        'import_module("corrsteer.studies")',
    ],
)
def test_an_import_upwards_is_found(code):
    assert upward("lm", code)


def test_a_relative_import_is_found():
    with pytest.raises(ValueError, match="line 1 imports relatively"):
        upward("lm", "from .hooks import tapped")


def test_texts_that_name_no_module_are_no_imports():
    for text in ("corrsteer.run/1", "corrsteer.demo and more", "corrsteer.strength", "corrsteer"):
        assert registered(text) == set()


@pytest.mark.parametrize(
    ("power", "code"),
    [
        ("files", "open('x')"),
        ("files", "def f(path):\n    return path.read_bytes()"),
        ("files", "(folder / 'a').write_text('b')"),
        ("files", "path.open('a', encoding='utf-8')"),
        ("files", "import os\nos.replace(a, b)"),
        ("files", "def f():\n    from shutil import rmtree"),
        ("files", "import pyarrow.parquet as pq"),
        ("processes", "from subprocess import run"),
        ("processes", "import os\nos.system('ls')"),
        ("network", "import socket"),
        ("network", "from urllib.request import urlopen"),
        ("network", "from urllib import request"),
        ("network", "def f():\n    import huggingface_hub.errors"),
    ],
)
def test_reaching_out_is_found(power, code):
    assert powers(code) == {power}


def test_computing_reaches_for_nothing():
    for code in (
        "checkpoint.open({'task': 1})",
        "from dataclasses import replace\nreplace(a, b=1)",
        "text.replace('a', 'b')",
        "from urllib.parse import quote",
        "import os\nos.environ['A']",
    ):
        assert powers(code) == set()


def test_a_circle_is_found():
    sources = {
        "a.one": "from a import two",
        "a.two": "def f():\n    from a.three import g",
        "a.three": "if TYPE_CHECKING:\n    import a.one",
        "a.four": "from a.one import x",
    }
    assert circle(imports_among(sources)) == ["a.one", "a.two", "a.three"]
    assert circle(imports_among(sources | {"a.three": "import math"})) == []


def test_the_size_of_functions_is_found():
    code = "class A:\n  def f(self, a, /, b, *c, d=1, **e):\n    def g(): pass\n    return g\n"
    found = [(size.name, size.lines, size.parameters) for size in sizes(code)]
    assert found == [("A.f", 3, 3), ("A.f.g", 1, 0)]


def test_a_print_is_found():
    assert printing("def f():\n    print(1)")
    assert not printing("sprint(1)")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


HEAVY = {"torch", "transformers", "sae_lens", "scipy", "datasets", "pyarrow", "numpy", "pandas"}

QUICK = [
    "--help",
    "train --help",
    "--version",
    "tasks",
    "models --json",
    "train --task mini-mmul",
    "train --task nowhere.jsonl",
    "train --task bbq --filter-value both",
    "train --task mini-mmlu --model gemma22",
    "train --task mini-mmlu --scorer exakt",
    "train --task mini-mmlu --strategy X",
    "train --task mini-mmlu --layer every",
    "train --task mini-mmlu --method korr",
    "train --task mini-mmlu --guard mini-xtest",
    "train --task mini-mmlu --collected nowhere",
    "eval nowhere",
    "eval baseline --task mini-mmul",
    "report nowhere",
    "select nowhere",
    "select . --sign up",
    "merge nowhere elsewhere --out merged",
    "export nowhere --to torch --out made",
    "verify nowhere --with torch",
    "demo nowhere",
    "sft --task mini-mmul",
    "transfer nowhere",
    "sae train --model smollm2 --task mini-mmul",
    "sae train --model mini",
    "study null --task mini-mmul",
    "study paper --model gemma22",
    "study paper --model mini --tasks mini-mmul",
    "study samples nowhere",
    "trian",
]
"""Commands that only print names, or refuse one."""

ASK_ALL = """
import contextlib, io, sys
from corrsteer.cli import main
told = []
for line in {lines!r}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(line.split())
            code = 0
        except SystemExit as leave:
            code = leave.code
    told.append((line, code, err.getvalue(), sorted({heavy!r} & set(sys.modules))))
print(told)
"""


def test_neither_help_nor_a_refused_name_loads_a_heavy_library():
    told = ast.literal_eval(run(ASK_ALL.format(lines=QUICK, heavy=HEAVY)).splitlines()[-1])
    assert [line for line, *_ in told] == QUICK
    for line, code, err, loaded in told:
        assert loaded == [], line
        asked_for_names = line in QUICK[:5]
        assert code == (0 if asked_for_names else 2), (line, err)
        assert len(err.splitlines()) == (0 if asked_for_names else 1), (line, err)


def test_rooms_below_models_need_no_model_library():
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in FILES
        if room_of(path) in NO_MODEL_LIBRARY
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names!r}];"
        "print(sorted({'transformers', 'sae_lens', 'datasets'} & set(sys.modules)))"
    )
    assert run(code).strip() == "[]"


def test_everything_in_all_can_be_imported():
    import corrsteer

    for name in corrsteer.__all__:
        assert callable(getattr(corrsteer, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        corrsteer.nothing  # noqa: B018


def classes(code: str) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ClassDef)]


def test_no_two_classes_have_one_name():
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for name in classes(path.read_text(encoding="utf-8")):
            homes.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_a_class_inside_a_function_is_found():
    assert classes("def f():\n    class A: ...\nclass B: ...") == ["B", "A"]
