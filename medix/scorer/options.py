"""Reads a plain mapping into a dataclass of options; a wrong name or type is a ConfigError that names the right one."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from medix.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Where a number has to lie: from `low` (itself only if `closed`) up to and with `high`."""

    low: float
    high: float = math.inf
    closed: bool = True

    def __contains__(self, value: float) -> bool:
        return (value >= self.low if self.closed else value > self.low) and value <= self.high

    def __str__(self) -> str:
        below = "" if math.isinf(self.high) else f" and at most {self.high:g}"
        return f"{'at least' if self.closed else 'above'} {self.low:g}{below}"


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, closed=False)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, closed=False)]


def check_ranges(options: object, where: str) -> None:
    """Hold the fields of a dataclass to the ranges in their types.

    Raises:
        ConfigError: a number is out of its range.
    """
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        for allowed in getattr(hint, "__metadata__", ()):
            value = getattr(options, name)
            if isinstance(allowed, Range) and value not in allowed:
                raise ConfigError(f"{where}.{name} {allowed}", f"{value:g}", f"set it to a number {allowed}")


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what is known where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(names) or '(none)'}"


def read_options(cls: type[T], raw: Mapping[str, Any] | None, where: str, also: Iterable[str] = ()) -> T:
    """An instance of the dataclass `cls` with the values of `raw`; nested dataclasses are read in turn.

    Args:
        where: dotted path of the mapping, for messages, e.g. `medix.scorer.judge`.
        also: names that are allowed there besides, for the suggestion only.

    Raises:
        ConfigError: unknown option, wrong type, or a number that is not finite or out of its range.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in (raw or {}).items():
        if name not in fields:
            raise ConfigError(f"known options under {where}", f"{name!r}", suggest(str(name), {*fields, *also}))
        values[name] = _convert(hints[name], value, f"{where}.{name}")
    options = cls(**values)
    check_ranges(options, where)
    return options


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"a mapping at {where}", repr(value), f"nest the options below {where}")
        return read_options(typing.cast("type[Any]", hint), value, where)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"a mapping at {where}", repr(value), f"nest the options below {where}")
        return dict(value)
    if typing.get_origin(hint) is Literal:
        allowed = [str(choice) for choice in typing.get_args(hint)]
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where} out of {', '.join(allowed)}", repr(value), suggest(str(value), allowed))
        return value
    if typing.get_origin(hint) is tuple:
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(items, Iterable) or not all(isinstance(item, str) for item in items):
            raise ConfigError(f"a list of texts at {where}", repr(value), f"set {where}=[a,b]")
        return tuple(item for item in items if item)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if value is None and type(None) in typing.get_args(hint):
        return None
    wanted = next((kind for kind in typing.get_args(hint) if kind is not type(None)), hint)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is float and is_number and math.isfinite(value):
        return float(value)
    if wanted is int and is_number and float(value).is_integer():
        return int(value)
    if wanted in (str, bool) and isinstance(value, wanted):
        return value
    raise ConfigError(f"a {wanted.__name__} at {where}", repr(value), f"set {where} to a {wanted.__name__}")
