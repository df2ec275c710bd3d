"""Damaged or hostile inputs for each command: refused, set aside with a count, or without effect.

`make fuzz` tries two hundred for each command, the slow tests fewer; the seeds are fixed. Each command runs in this
process on a copy of a good folder in which one file was changed; what it computes is then held against what it computed
from the good folder.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from data_prep.shards import run_shards
from medix.errors import ExportError
from medix_verl.cli import explain
from tests.damage import ELSEWHERE, ENDLESS, OTHER, PWNED, SECRET, damages_of
from tests.fuzzed import FUZZES, Figures, Fuzz, Refused, build_checkpoint, leaks, medix
from tests.medix_verl.export.test_twelve import SHARDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
INPUTS = int(os.environ.get("MEDIX_FUZZ", "12"))
"""For each command."""
MAX_SECONDS, MAX_BYTES = 60.0, 2**30
OUTCOMES = ("refused", "set aside", "harmless", "other content", "traceback", "wrong", "too costly")


def verdict(good: Figures, found: Figures, reported: bool, says: str) -> str:
    """Hold the figures of a changed folder against those of the good one."""
    changed = {key for key in good.keys() | found.keys() if good.get(key) != found.get(key)}
    if not changed:
        return "harmless"
    if says == ENDLESS or (says == OTHER and (len(changed) <= 2 or reported)):
        return "other content"
    return "set aside" if reported and changed <= good.keys() - found.keys() else "wrong"


@dataclass
class Tally:
    """What became of the inputs of one command."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    bytes: int = 0

    def note(self, outcome: str, case: str) -> None:
        self.outcomes[outcome] += 1
        if outcome in ("traceback", "wrong", "too costly"):
            self.faults.append(f"{outcome}: {case}")


TALLIES: dict[str, Tally] = {}


def peak() -> int:
    """Return the most memory that this process had since `reset_peak`, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def try_one(fuzz: Fuzz, good: Path, expected: Figures, number: int, place: Path, tally: Tally) -> None:
    """Change one file of a copy of the good folder, run the command, and count what became of it."""
    rng = Random(number)
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(good, place)
    files = sorted(path for pattern in fuzz.targets for path in place.glob(pattern) if path.stat().st_size)
    cases = [(path, *case) for path in files for case in damages_of(path).items()]
    cases += [(path, name, how) for name, (pattern, how) in fuzz.own.items() for path in place.glob(pattern)]
    target, name, damage = rng.choice(cases)
    case = f"{fuzz.name} {number}: {name} in {target.relative_to(place)}"
    says = damage(rng, target)
    Path("/proc/self/clear_refs").write_text("5")
    # Seconds of the processor: a loaded machine is no fault of the input, and a hang ends by the test's own limit.
    before, start, elsewhere = psutil.Process().memory_info().rss, time.process_time(), ELSEWHERE.read_text()
    try:
        outcome = verdict(expected, *fuzz.call(place, target), says)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        known = error if isinstance(error, Refused) else explain(error)
        outcome = "traceback" if known is None else "wrong" if leaks(str(known)) else "refused"
        case += f" ({type(error).__name__}: {str(error)[:200]})"
    seconds, taken = time.process_time() - start, peak() - before
    tally.seconds, tally.bytes = max(tally.seconds, seconds), max(tally.bytes, taken)
    if seconds > MAX_SECONDS or taken > MAX_BYTES:
        outcome, case = "too costly", f"{case} took {seconds:.0f} s, {taken >> 20} MB"
    elif any(Path(PWNED).parent.rglob(PWNED)) or ELSEWHERE.read_text() != elsewhere:
        outcome, case = "wrong", f"{case} ran code, or wrote elsewhere"
    tally.note(outcome, case)


def in_this_process(job: Callable[..., None], *arguments: Any, gpus: bool = False) -> Iterator[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    job(lambda **message: told.append(message), *arguments)
    yield from told


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print what became of all inputs."""
    ELSEWHERE.write_text(SECRET)
    mapped = psutil.Process().memory_info().vms
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 8 * MAX_BYTES, limits[1]))  # the rest of the machine goes on
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
    ELSEWHERE.unlink()
    widths = [max(9, len(name)) for name in OUTCOMES]
    print("\n" + " ".join([f"{'command':9}", *OUTCOMES, "longest s", "most MB"]))
    for name, tally in TALLIES.items():
        counts = [f"{tally.outcomes[outcome]:{width}}" for outcome, width in zip(OUTCOMES, widths, strict=True)]
        print(" ".join([f"{name:9}", *counts, f"{tally.seconds:9.1f}", f"{tally.bytes >> 20:7}"]))


@pytest.mark.parametrize("fuzz", FUZZES, ids=lambda fuzz: fuzz.name)
def test_no_input_ends_in_a_traceback_or_a_wrong_figure(
    fuzz: Fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, tally = tmp_path / "good", TALLIES.setdefault(fuzz.name, Tally())
    fuzz.build(good)
    monkeypatch.chdir(tmp_path)
    # In this process, where memory is measured; what the exported model would say is not looked at.
    monkeypatch.setattr("data_prep.prepare.run_shards", lambda *given: run_shards(*given[:3], 0, given[4]))
    monkeypatch.setattr("medix_verl.export.child.run_child", in_this_process)
    monkeypatch.setattr("medix_verl.export.generate.ask", lambda *given: {})
    patterns = (*fuzz.targets, *(pattern for pattern, _ in fuzz.own.values()))
    first = next(path for pattern in patterns for path in sorted(good.glob(pattern)))
    shutil.copytree(good, tmp_path / "whole")
    expected, reported = fuzz.call(tmp_path / "whole", tmp_path / "whole" / first.relative_to(good))
    assert expected
    assert not reported

    @seed(18)
    @settings(max_examples=INPUTS, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(number=st.integers(0, 2**32 - 1))
    def one(number: int) -> None:
        try_one(fuzz, good, expected, number, tmp_path / "case", tally)

    one()
    assert not tally.faults, "\n".join(tally.faults)
    assert tally.outcomes.total() == INPUTS


def test_a_pickle_that_crashes_the_interpreter_ends_the_child_alone(tmp_path: Path) -> None:
    """A tuple in a tuple, 500,000 deep, as a key: its hash overflows the stack of the process that loads it."""
    build_checkpoint(tmp_path)
    shard = next(tmp_path.rglob(SHARDS[1]))
    (shard.parent / "manifest.json").unlink()
    with zipfile.ZipFile(shard) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    deep = b"\x80\x02}K\x01" + b"\x85" * 500_000 + b"K\x01s."
    with zipfile.ZipFile(shard, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, deep if name.endswith("data.pkl") else data)
    with pytest.raises(ExportError, match="The process that loads the model died"):
        medix("export", tmp_path / "run", "--out", tmp_path / "out", "--base", tmp_path / "base")
    assert not list(tmp_path.glob("out*"))
