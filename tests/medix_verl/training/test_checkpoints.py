"""Which checkpoints stay, whatever the order of saving and validating, and across resumes and kills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.row_schema import ROW_SCHEMA
from medix.errors import ConfigError
from medix.prompts import load_prompt
from medix.sample import Sample
from medix_verl.training.checkpoints import (
    CheckpointKeeper,
    CheckpointOptions,
    read_checkpoint_options,
    validation_values,
)
from medix_verl.training.checkpoints import keeper_of as keeper_of_run


def save(folder: Path, step: int, whole: bool = True) -> None:
    """What veRL leaves: shards first, `data.pt` after them, the tracker last. A kill stops it anywhere."""
    (folder / f"global_step_{step}" / "actor").mkdir(parents=True, exist_ok=True)
    if whole:
        (folder / f"global_step_{step}" / "data.pt").write_bytes(b"data")
        (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[-1]) for path in folder.glob("global_step_*"))


def keeper_of(folder: Path, keep_last: int = 2, **options: object) -> CheckpointKeeper:
    return CheckpointKeeper(folder, read_checkpoint_options({"keep_last": keep_last, **options}))


# Steps with their values, how many to keep, whether a value is known at its save, what stays.
RUNS = {
    "the best beside the last": ([(5, 0.5), (10, 0.9), (15, 0.6), (20, 0.7), (25, 0.8)], 2, False, [10, 20, 25]),
    "a value known at its save": ([(5, 0.9), (10, 0.5), (15, 0.4)], 1, True, [5, 15]),
    "all": ([(1, 0.1), (2, 0.2), (3, 0.3)], 0, False, [1, 2, 3]),
}


@pytest.mark.parametrize(("saves", "keep_last", "at_once", "stay"), RUNS.values(), ids=RUNS)
def test_what_stays(
    saves: list[tuple[int, float]], keep_last: int, at_once: bool, stay: list[int], tmp_path: Path
) -> None:
    keeper, values = keeper_of(tmp_path, keep_last), {}
    for step, value in saves:
        save(tmp_path, step)
        keeper.update(values | ({step: value} if at_once else {}))
        keeper.prune()
        values[step] = value  # in veRL's step the validation comes after the save
    assert steps_of(tmp_path) == stay


PATTERN = "val-*/*/reward/mean@*"
# best.json before, saved steps, values, options, what is best then.
BEST: dict[str, tuple[str | None, list[int], dict[int, float], dict[str, object], tuple[int, float]]] = {
    "the highest, of equals the earlier": (None, [5, 10, 15], {5: 0.1, 10: 0.9, 15: 0.9}, {}, (10, 0.9)),
    "the lowest": (None, [5, 10, 15], {5: 0.1, 10: 0.9, 15: 0.9}, {"mode": "min"}, (5, 0.1)),
    "a step that was not saved can not be": (None, [10], {5: 0.99, 10: 0.5}, {}, (10, 0.5)),
    "a later value of a step counts": (
        f'{{"step": 10, "metric": "{PATTERN}", "value": 0.9}}', [5, 10], {5: 0.5, 10: 0.1}, {}, (5, 0.5)
    ),
    "one that an earlier attempt found": (
        f'{{"step": 5, "metric": "{PATTERN}", "value": 0.9}}', [5, 10], {10: 0.4}, {}, (5, 0.9)
    ),
    "one that was removed gives way": (
        f'{{"step": 3, "metric": "{PATTERN}", "value": 1.0}}', [5], {5: 0.2}, {}, (5, 0.2)
    ),
    **{f"damaged: {text!r}": (text, [5], {5: 0.2}, {}, (5, 0.2)) for text in ("", "{", "[]", '{"step": 1}')},
}  # fmt: skip


@pytest.mark.parametrize(("before", "saved", "values", "options", "best"), BEST.values(), ids=BEST)
def test_the_best(
    before: str | None,
    saved: list[int],
    values: dict[int, float],
    options: dict[str, object],
    best: tuple[int, float],
    tmp_path: Path,
) -> None:
    for step in saved:
        save(tmp_path, step)
    if before is not None:
        (tmp_path / "best.json").write_text(before)
    found = keeper_of(tmp_path, **options).update(values)
    assert found is not None
    assert (found.step, found.value) == best
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": best[0], "metric": PATTERN, "value": best[1]}


def test_half_a_checkpoint_goes_once_a_later_one_is_whole(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10, whole=False)
    keeper = keeper_of(tmp_path, keep_last=1)
    assert keeper.prune() == []  # nothing goes before the new one is whole
    save(tmp_path, 15)
    assert keeper.whole() == [5, 15]
    assert keeper.prune() == [5, 10]


def test_a_future_that_a_resume_gave_up_is_left_alone(tmp_path: Path) -> None:
    for step in (5, 10, 30):
        save(tmp_path, step)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    assert keeper_of(tmp_path, keep_last=1).prune() == [5]
    assert steps_of(tmp_path) == [10, 30]


def test_a_removal_that_was_killed_is_finished_and_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "global_step_5").rename(tmp_path / ".deleting_global_step_5")
    save(tmp_path, 10)
    keeper = keeper_of(tmp_path)
    assert keeper.whole() == [10]
    keeper.prune()
    assert not list(tmp_path.glob(".deleting_*"))


def test_before_the_first_checkpoint_there_is_nothing_to_do(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path / "absent")
    assert (keeper.latest(), keeper.best(), keeper.update({1: 0.5})) == (None, None, None)
    assert (keeper.whole(), keeper.prune()) == ([], [])


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8), keep_last=st.integers(1, 4), known=st.data())
def test_the_last_n_and_the_best_are_always_there(
    values: list[float], keep_last: int, known: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whenever each value becomes known: at its own save, or before the next."""
    folder = tmp_path_factory.mktemp("run")
    keeper, logged = keeper_of(folder, keep_last=keep_last), {}
    for step, value in enumerate(values, 1):
        save(folder, step)
        if known.draw(st.booleans()):
            logged[step] = value
        keeper.update(logged)
        keeper.prune()
        logged[step] = value
        best = keeper.update(logged)
        assert best is not None
        assert best.value == max(values[:step])
        expected = set(range(max(1, step - keep_last + 1), step + 1)) | {best.step}
        assert expected <= set(steps_of(folder))


BOTH = {"val-aux/a/b/reward/mean@1": 0.2, "val-core/c/reward/mean@4": 0.6, "val-core/c/acc/mean@1": 1}


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [({}, 0.4), ({"a/b": 30, "c": 10}, 0.3)],  # (0.2 + 0.6) / 2; (30 x 0.2 + 10 x 0.6) / 40
    ids=["sources alike", "by rows"],
)
def test_values_of_several_sources_are_averaged_and_a_null_is_skipped(
    held_out: dict[str, int], expected: float
) -> None:
    rows = [BOTH, {**BOTH, "val-aux/a/b/reward/mean@1": None}, {"reward/score/mean": 0.5}]
    logged = [{"step": step, "data": data} for step, data in enumerate(rows)]
    assert validation_values(logged, CheckpointOptions().metric, held_out) == {0: pytest.approx(expected)}


@pytest.mark.parametrize(("mean", "best"), [("rows", 10), ("sources", 5)])
def test_which_counts_as_best_is_an_option(mean: str, best: int, config: Any, tmp_path: Path) -> None:
    """30 rows of one data source and 10 of the other: by rows 0.3 and 0.35, with the sources alike 0.4 and 0.3."""
    rows = [Sample(f"s{i}", "a/b" if i < 30 else "c", "val", "Where?", "left", (), None) for i in range(40)]
    prompt = load_prompt()
    table = pa.Table.from_pylist([row.to_verl_row(i, prompt, 9) for i, row in enumerate(rows)], schema=ROW_SCHEMA)
    pq.write_table(table, tmp_path / "val.parquet")
    config.data.val_files, config.trainer.default_local_dir = str(tmp_path / "val.parquet"), str(tmp_path)
    config.medix.checkpoints.mean = mean
    keeper = keeper_of_run(config)
    assert keeper is not None
    for step in (5, 10):
        save(tmp_path, step)
    later = {"val-aux/a/b/reward/mean@1": 0.4, "val-core/c/reward/mean@4": 0.2}
    found = keeper.update(keeper.values([{"step": 5, "data": BOTH}, {"step": 10, "data": later}]))
    assert found is not None
    assert found.step == best


@pytest.mark.parametrize("raw", [{"keep_last": -1}, {"keep": 3}, {"mode": "most"}, {"keep_last": 1.5}])
def test_wrong_options_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"medix\.checkpoints"):
        read_checkpoint_options(raw)
