"""Command-line options as the fields of dataclasses.

Changes when options are declared in another way. A field's type and default are its option's; its
`Annotated` note has the rest. A field that is itself such a dataclass is a group that several
commands share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from corrsteer.files import expanded

Options = TypeVar("Options")
Command = TypeVar("Command", bound=Callable[..., None])


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Numbers with commas between them, as a tuple."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]):
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The numbers of a text like `1,2,5`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 1,2,5", param, ctx)


class Place(click.Path):  # type: ignore[type-arg,unused-ignore]
    """The path of a file or folder, with `~` followed."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """The path."""
        return expanded(str(super().convert(value, param, ctx)))


@dataclass(frozen=True)
class Option:
    """What the help says of an option, and what its field does not tell.

    Attributes:
        help: one line.
        names: what it is called where that is not the field's name.
        metavar: what stands for its value.
        limits: the type in place of the field's, with limits of its own.
        show_default: whether the help names the default; by default where there is one that is
            not a flag's.
    """

    help: str | None = None
    names: tuple[str, ...] = ()
    metavar: str | None = None
    limits: click.ParamType[Any] | None = None
    show_default: bool | None = None


@dataclass(frozen=True)
class Argument:
    """What the usage line calls an argument; one whose field is a tuple takes several values."""

    metavar: str | None = None


def takes(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Give a command the fields of `kind` as its options, and it one `kind` made of them."""

    def decorate(function: Callable[[Options], None]) -> Callable[..., None]:
        def command(**given: Any) -> None:
            function(made(kind, given))

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        for declare in reversed([*_parameters(kind)]):
            declare(command)
        return command

    return decorate


def made(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The options object that click's values make.

    Raises:
        CorrSteerError: it refuses them.
    """
    hints = get_type_hints(kind)
    values = {
        field.name: made(hints[field.name], given)
        if is_dataclass(hints[field.name])
        else given[field.name]
        for field in _fields(kind)
    }
    return kind(**values)


def flat(options: object) -> dict[str, Any]:
    """Name -> value of every option, those of groups among them."""
    found: dict[str, Any] = {}
    for field in _fields(type(options)):
        value = getattr(options, field.name)
        found |= flat(value) if is_dataclass(value) else {field.name: value}
    return found


def settings_in(options: object, kind: type[Any]) -> dict[str, Any]:
    """Name -> value of the options that are given and are fields of `kind` by name."""
    names = {field.name for field in _fields(kind)}
    given = flat(options).items()
    return {name: value for name, value in given if name in names and value is not None}


def _fields(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


def _parameters(kind: type) -> Iterator[Callable[[Command], Command]]:
    """The click decorators of a dataclass's fields, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    for field in _fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _parameters(hint)  # type: ignore[arg-type]
            continue
        value_type, note = get_args(hint)
        several = get_origin(value_type) is tuple
        if isinstance(note, Argument):
            count = -1 if several else 1
            yield click.argument(field.name, metavar=note.metavar, nargs=count, required=True)
        else:
            yield _option(field, value_type, note)


def _option(field: Field[Any], value_type: Any, note: Option) -> Callable[[Command], Command]:
    required = field.default is MISSING
    typed = _click_type(_without_none(value_type), note)
    if not required:
        typed["default"] = field.default  # left out elsewhere: for click, None is a value given
    shown = note.show_default
    if shown is None:
        shown = isinstance(field.default, int | float | str) and not isinstance(field.default, bool)
    return click.option(
        *(note.names or (f"--{field.name.replace('_', '-')}",)),
        field.name,
        help=note.help,
        metavar=note.metavar,
        required=required,
        show_default=shown,
        **typed,
    )


def _without_none(value_type: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(value_type) in (UnionType, Union):
        (value_type,) = (each for each in get_args(value_type) if each is not NoneType)
    return value_type


def _click_type(kind: Any, note: Option) -> dict[str, Any]:
    """How click reads a value of a type."""
    if note.limits is not None:
        return {"type": note.limits}
    if kind is bool:  # a pair of names, as --log/--no-log, is a flag by itself
        return {} if any("/" in name for name in note.names) else {"is_flag": True}
    if kind is Path:
        return {"type": Place()}
    if get_origin(kind) is Literal:
        return {"type": click.Choice(get_args(kind))}
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return {"multiple": True} if item is str else {"type": Numbers(item)}
    return {"type": kind}
