"""The direction of imports: doors -> pipelines -> edges -> pure, never back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "corrsteer"

# What a module may import stands in a line above its own. Order within a line means nothing.
LAYERS = [
    # A. pure: no hooks, no models
    ["errors", "progress", "timing", "samples", "mini", "notebook"],
    ["hook_points", "block", "config", "files", "scoring", "tensor_files"],
    ["pooling", "correlation", "significance", "journal"],
    ["checkpoint", "metrics", "selection", "planning", "resampling", "card"],
    # B. edges: each the only place of its kind
    ["judges", "explanations"],
    ["saes", "hooks", "tasks", "activation_log", "cache"],
    ["generation"],
    ["models", "branching"],
    ["steering"],
    ["controls", "artifacts", "work"],
    ["passes", "cluster"],
    ["bench"],
    # C. pipelines
    ["collect", "inference", "search", "evaluation"],
    ["fitting", "document"],
    ["train", "derive", "sft", "null_study", "transfer", "sample_efficiency"],
    ["study"],
    # D. doors
    ["report", "export"],
    ["vllm_plugin", "demo"],
    ["cli"],
    ["__main__"],
]
RANK = {module: rank for rank, modules in enumerate(LAYERS) for module in modules}
PURE = [module for modules in LAYERS[:4] for module in modules]


def top_level(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, by their first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("corrsteer."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "corrsteer":
            found |= {alias.name for alias in node.names} & set(RANK)
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "corrsteer" and len(name) > 1}
    return found


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    module = top_level(path)
    assert module in RANK, f"give {module} a place in LAYERS"
    for imported in imports(path) - {module}:
        assert RANK[imported] < RANK[module], f"{module} must not import {imported}"


def test_only_hooks_registers_hooks():
    for path in FILES:
        standalone = path.name == "steer.py"  # is copied beside a shared steering
        if top_level(path) != "hooks" and not standalone:
            assert "register_forward" not in path.read_text(encoding="utf-8"), path


def test_only_doors_print():
    for path in FILES:
        if top_level(path) not in ("cli", "report"):
            calls = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            named = [node.func for node in calls if isinstance(node, ast.Call)]
            assert "print" not in [f.id for f in named if isinstance(f, ast.Name)], path


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_help_needs_no_heavy_library():
    code = (
        "import sys; from corrsteer.cli import cli; cli(['--help'], standalone_mode=False);"
        "print(sorted({'torch', 'transformers', 'numpy', 'sae_lens', 'scipy'} & set(sys.modules)))"
    )
    assert run(code).splitlines()[-1] == "[]"


def test_pure_modules_need_no_model_library():
    code = (
        f"import importlib, sys; [importlib.import_module('corrsteer.' + m) for m in {PURE!r}];"
        "print(sorted({'transformers', 'sae_lens', 'datasets'} & set(sys.modules)))"
    )
    assert run(code).strip() == "[]"


def test_everything_in_all_can_be_imported():
    import corrsteer

    for name in corrsteer.__all__:
        assert callable(getattr(corrsteer, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        corrsteer.nothing  # noqa: B018
