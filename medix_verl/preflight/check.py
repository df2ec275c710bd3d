"""What a check returns, and how a list of checks is run and shown.

A check is a function `check_...` that returns what it found as a text, which is a pass, or as a `Check`; what is wrong
it may also raise, as a MedixError with the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from rich.table import Table
from rich.text import Text

from medix.errors import MedixError

Status = Literal["pass", "warn", "fail"]
_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Check:
    """One line of the table. `remedy` is empty exactly when the check passed."""

    status: Status
    found: str
    remedy: str = ""
    name: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def run_check(name: str, check: Callable[[], str | Check]) -> Check:
    """Run one check. A returned text is a pass; a MedixError is a failure with its own remedy, and so is any error."""
    try:
        result = check()
    except MedixError as error:
        return Check("fail", error.problem, error.fix, name)
    except Exception as error:  # noqa: BLE001 - a value of a strange type must not hide what the other checks found
        remedy = "Correct the setting that this check reads (`medix config` shows every key)."
        return Check("fail", f"{type(error).__name__}: {error}", remedy, name)
    return replace(result, name=name) if isinstance(result, Check) else Check("pass", result, name=name)


def failed(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.status == "fail"]


def table(checks: Iterable[Check]) -> Table:
    """Return a table for people: what was checked, what was found, what to do."""
    rows = Table(title="preflight", show_lines=False)
    for heading in ("check", "status", "found", "what to do"):
        rows.add_column(heading, overflow="fold")
    for check in checks:
        status = f"[{_STYLE[check.status]}]{check.status}[/]"
        rows.add_row(check.name, status, Text(check.found), Text(check.remedy))
    return rows
