"""The direction of imports: from the command line down to the words that all share, never back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "corrsteer"

# What a room may import stands in a line above its own; order within a line means nothing.
# `corrsteer` itself, what is public, re-exports and may be imported by nobody here.
FLOORS = [
    ["errors", "progress", "timing", "samples", "mini", "notebook", "json_text"],
    ["hook_points", "files", "settings", "features"],
    ["stats", "scoring"],
    ["lm", "tasks"],
    ["runs"],
    ["execution"],
    ["method"],
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

HOOKS = "lm/hooks.py"
STANDALONE = "runs/card/steer.py"
"""A script that is copied beside a shared steering, and imports nothing of ours."""


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


def test_the_root_is_small():
    assert len([*PACKAGE.glob("*.py")]) <= 12


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
