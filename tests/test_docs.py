"""The documentation: reference pages are up to date, and what pages tell to do works."""

import ast
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

sys.path.insert(0, str(ROOT / "scripts"))
from docs_hooks import on_post_build
from make_reference import PAGES, REFERENCE

BLOCK = re.compile(r'^```(\w*)(?: title="(.+?)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page):
    """(language, title, content) of every fenced block of a page, in order."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def run(code, folder):
    """What Python code prints in a folder whose `src` holds the package."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pairs(page):
    """Every block of Python to run, with the output that the page shows below it."""
    found = [block for block in blocks(page) if block[0] in ("python", "text")]
    return [
        (code, shown)
        for (kind, title, code), (below, _, shown) in pairwise(found)
        if kind == "python" and not title and below == "text"
    ]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_is_what_the_code_says(name):
    page = (REFERENCE / name).read_text(encoding="utf-8")
    assert page == PAGES[name](), "run python scripts/make_reference.py"


def test_what_is_computed_is_what_is_shown():
    [shown] = [content for kind, _, content in blocks("gpu.md") if kind == "text"]
    command = [sys.executable, str(ROOT / "benchmarks" / "estimate.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == shown


def test_extending_it_works_to_the_letter(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for language, title, content in blocks("extend.md"):
        if title:
            (tmp_path / title).write_text(content, encoding="utf-8")
        elif language == "diff":
            subprocess.run(
                ["git", "apply"],
                input=content,
                cwd=tmp_path,
                text=True,
                check=True,
            )
    steps = pairs("extend.md")
    assert len(steps) == 4
    ran = run("\nprint('---')\n".join(code for code, _ in steps), tmp_path)
    assert ran == "---\n".join(shown for _, shown in steps)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "strip its outputs"
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()
    assert all(cell.execution_count for cell in code)


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        '<img src="https://example.org/a.png">',
    ],
)
def test_a_page_that_asks_another_host_for_something_stops_the_build(loads, tmp_path):
    page = tmp_path / "index.html"
    page.write_text('<script src="a.js"></script><a href="https://example.org">there</a>')
    on_post_build({"site_dir": str(tmp_path)})
    page.write_text(loads)
    with pytest.raises(click.ClickException, match=r"index\.html loads"):
        on_post_build({"site_dir": str(tmp_path)})


def test_a_style_sheet_that_asks_another_host_for_something_stops_the_build(tmp_path):
    (tmp_path / "a.css").write_text("@import 'https://fonts.example/a.css';")
    with pytest.raises(click.ClickException, match=r"a\.css loads"):
        on_post_build({"site_dir": str(tmp_path)})


def places(text):
    """`path:symbol` in the page of the architecture."""
    return re.findall(r"`([a-z_/]+\.py):(\w+)`", text)


def there(path, symbol):
    tree = ast.parse((ROOT / "src" / "corrsteer" / path).read_text(encoding="utf-8"))
    named = [node.name for node in ast.walk(tree) if hasattr(node, "name")]
    return symbol in named


def test_the_architecture_names_what_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = places(text)
    assert len(found) > 20
    assert [f"{path}:{symbol}" for path, symbol in found if not there(path, symbol)] == []
    rooms = re.findall(r"^\| (`.*`(?:, `.*`)*)[^|]*\|", text, re.MULTILINE)
    named = {room for line in rooms for room in re.findall(r"`(\w+)`", line)}
    packages = {path.parent.name for path in (ROOT / "src" / "corrsteer").glob("*/__init__.py")} - {
        "mini"
    }
    assert packages <= named


def test_a_symbol_that_is_gone_is_found():
    assert there("runs/folder.py", "save_run")
    assert not there("runs/folder.py", "saved_run")
