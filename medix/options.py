"""Read a plain mapping into a dataclass of options. pydantic checks it; the error names the option and the remedy."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from medix.errors import ConfigError

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


def _split_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
"""A list of texts, or one text with commas: `[a,b]` or `a,b`."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `Did you mean 'x'?`, or the list of known names if none is similar."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(names) or '(none)'}."


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    _forbid_unknown(cls)
    return TypeAdapter(cls)


def _forbid_unknown(cls: Any) -> None:
    # pydantic takes the configuration of a plain dataclass from this attribute, and ignores unknown keys by default.
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    for hint in typing.get_type_hints(cls).values():
        for kind in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(kind):
                _forbid_unknown(kind)


def read_options(cls: type[T], raw: Mapping[str, Any] | None, where: str, also: Iterable[str] = ()) -> T:
    """Return an instance of the dataclass `cls` with the values of `raw`; nested dataclasses are read in turn.

    Args:
        where: dotted path of the mapping, for messages, e.g. `medix.scorer.judge`.
        also: further names that a suggestion may offer.

    Raises:
        ConfigError: an unknown option, a wrong type, or a number that is not finite or out of its range.
    """
    try:
        options: T = _adapter(cls).validate_python(dict(raw or {}))  # type: ignore[arg-type]
        return options
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join([where, *(str(part) for part in first["loc"])])
        if first["type"] == "unexpected_keyword_argument":
            parent: Any = cls
            for part in first["loc"][:-1]:
                parent = typing.get_type_hints(parent)[str(part)]
            known = {field.name for field in dataclasses.fields(parent)}
            raise ConfigError(f"There is no option {path}.", suggest(str(first["loc"][-1]), {*known, *also})) from None
        raise ConfigError(
            f"{path} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}.", f"Correct {path}."
        ) from None


def check_options(options: T, where: str) -> T:
    """Hold an instance that was made without `read_options` to the types and ranges of its fields.

    Raises:
        ConfigError: as `read_options`.
    """
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    return read_options(type(options), values, where)
