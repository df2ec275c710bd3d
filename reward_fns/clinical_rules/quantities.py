"""Numbers of a phrase with their units: one quantity for what stands together, as in `140/90`, `1-2 cm`, `5 x 3 mm`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from reward_fns.clinical_rules.lexicon import lexicon
from reward_fns.clinical_rules.words import JOINS, TIMES

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:\^-?\d+)?")
_BOUNDS = {"<": "below", "≤": "below", ">": "above", "≥": "above"}


@dataclass(frozen=True)
class Quantity:
    """One or several joined numbers. The order counts, but for the sides of a size, which are sorted."""

    values: tuple[float, ...]
    """In the base unit."""
    unit: str
    """The base unit, `g per l` for a quotient; empty for bare numbers."""
    written: tuple[float, ...] = field(compare=False)
    """The numbers as they stand."""
    bound: str = ""
    """`below` or `above`, where the number is a bound."""

    def __str__(self) -> str:
        return f"{self.bound} {'|'.join(f'{value:g}' for value in self.values)}{self.unit}".strip()

    def clashes(self, other: Quantity) -> bool:
        """Whether both can not be true: other numbers in one dimension, or opposite bounds."""
        if (self.unit and other.unit and self.unit != other.unit) or len(self.values) != len(other.values):
            return False  # mg beside mmol, 0.5 beside 1/2: for a judge to convert
        if self.bound != other.bound:
            return bool(self.bound and other.bound)  # "< 5" beside "3" may agree
        return not self.equals(other)

    def equals(self, other: Quantity) -> bool:
        """Whether the numbers are the same; a bare number is compared as written."""
        in_base = self.unit == other.unit
        return (self.values if in_base else self.written) == (other.values if in_base else other.written)


def take_quantities(found: list[str]) -> tuple[tuple[Quantity, ...], list[str]]:
    """The quantities among normalised tokens, sorted, each once; and the other tokens."""
    quantities: set[Quantity] = set()
    rest: list[str] = []
    position = 0
    while position < len(found):
        if not _NUMBER.fullmatch(found[position]):
            rest.append(found[position])
            position += 1
            continue
        bound = _BOUNDS.get(rest[-1], "") if rest else ""
        if bound:
            rest.pop()
        quantity, position = _read(found, position, bound)
        quantities.add(quantity)
    return tuple(sorted(quantities, key=str)), rest


def _read(found: list[str], position: int, bound: str) -> tuple[Quantity, int]:
    """The quantity that starts at `position`, and where it ends."""
    numbers: list[tuple[float, str]] = []
    is_size = False
    while True:
        value = _value(found[position])
        unit, position = _unit(found, position + 1)
        numbers.append((value, unit))
        join, after = (*found[position : position + 2], "", "")[:2]
        if join not in JOINS or not _NUMBER.fullmatch(after):
            break
        is_size |= join == TIMES
        position += 1
    last = numbers[-1][1]
    scaled = [_in_base(value, unit or last) for value, unit in numbers]
    written = [value for value, _ in numbers]
    if is_size:
        scaled, written = sorted(scaled), sorted(written)
    return Quantity(tuple(scaled), _base(last), tuple(written), bound), position


def _value(token: str) -> float:
    base, hat, exponent = token.partition("^")
    try:
        return float(base) ** int(exponent) if hat else float(base)
    except (OverflowError, ZeroDivisionError):
        return float("inf")


def _unit(found: list[str], position: int) -> tuple[str, int]:
    """`mg`, `mg per l`, `per l` or nothing, and where it ends."""
    units = lexicon().units
    unit = found[position] if position < len(found) and found[position] in units else ""
    position += bool(unit)
    if found[position : position + 1] == ["per"] and position + 1 < len(found) and found[position + 1] in units:
        return f"{unit} per {found[position + 1]}", position + 2
    return unit, position


def _in_base(value: float, unit: str) -> float:
    units = lexicon().units
    over, _, under = unit.partition(" per ")
    factor = (units[over][1] if over else 1.0) / (units[under][1] if under else 1.0)
    return float(f"{value * factor:.9g}")


def _base(unit: str) -> str:
    units = lexicon().units
    return " per ".join(units[part][0] if part else "" for part in unit.split(" per ")) if unit else ""
