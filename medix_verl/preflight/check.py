"""What a check returns, and how a list of them is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rich.table import Table

from medix.errors import MedixError

Status = Literal["pass", "warn", "fail"]
_UNEXPECTED = "correct the setting that this check reads: its value or type can not be (`medix config` shows every key)"
_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Check:
    """`remedy` is empty exactly when the check passed."""

    name: str
    status: Status
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def run_check(name: str, check: Callable[[], str | Check]) -> Check:
    """Run one check: a returned text is a pass, a MedixError a failure with its own remedy, any other error one too."""
    try:
        result = check()
    except MedixError as error:
        return Check(name, "fail", f"expected {error.expected}; found {error.found}", error.fix)
    except Exception as error:  # noqa: BLE001 - a value of a strange type must not hide what the other checks found
        return Check(name, "fail", f"{type(error).__name__}: {error}", _UNEXPECTED)
    return replace(result, name=name) if isinstance(result, Check) else Check(name, "pass", result)


def failed(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.status == "fail"]


def table(checks: Iterable[Check]) -> Table:
    """A table for people: what was checked, what was found, what to do."""
    rows = Table(title="preflight", show_lines=False)
    for heading in ("check", "status", "found", "what to do"):
        rows.add_column(heading, overflow="fold")
    for check in checks:
        status = f"[{_STYLE[check.status]}]{check.status}[/]"
        rows.add_row(check.name, status, _plain(check.found), _plain(check.remedy))
    return rows


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
