"""Writes docs/reference: the commands from click, the Python names from `corrsteer.__all__`.

    python scripts/make_reference.py

Changes when the pages are laid out differently. Docstrings are filled in when the site is built.
"""

from __future__ import annotations

from pathlib import Path

import click

import corrsteer
from corrsteer.cli import cli

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
WIDTH = 100

PROMISE = """These names are public: from version 1 on, what they take and give changes only with
the first number of the version, and before that with a line in the changelog. Everything else may
change at any time, also what is imported from a module instead of from `corrsteer` itself."""


def command_page() -> str:
    """`corrsteer --help` and that of every command, as one page."""
    parts = [
        "# Commands",
        "What `corrsteer COMMAND --help` prints. Long options take `-` or `_` alike.",
    ]
    whole = cli.make_context("corrsteer", [], resilient_parsing=True, terminal_width=WIDTH)
    parts.append(_help(whole))
    parts += _parts(cli, whole)
    return "\n\n".join(parts) + "\n"


def _parts(group: click.Group, parent: click.Context, above: str = "") -> list[str]:
    """Headings and help of a group's commands, each with its own commands behind it."""
    parts = []
    for name, command in sorted(group.commands.items()):
        context = command.make_context(name, [], parent=parent, resilient_parsing=True)
        parts += [f"## {above}{name}", _help(context)]
        if isinstance(command, click.Group):
            parts += _parts(command, context, f"{above}{name} ")
    return parts


def _help(context: click.Context) -> str:
    return f"```text\n{context.get_help()}\n```"


def python_page() -> str:
    """A place for the docstring of every public name."""
    parts = [
        "# Python",
        "What `import corrsteer` offers. Names are imported when they are first used.",
        PROMISE,
        *(f"::: corrsteer.{name}" for name in sorted(corrsteer.__all__, key=str.casefold)),
    ]
    return "\n\n".join(parts) + "\n"


PAGES = {"cli.md": command_page, "python.md": python_page}


def main() -> None:
    """Write all pages."""
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
