"""Which checkpoints stay, whatever the order of saving and validating, and across resumes and kills."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medix.errors import ConfigError
from medix_verl.training.checkpoints import (
    CheckpointKeeper,
    CheckpointOptions,
    read_checkpoint_options,
    validation_values,
)


def save(folder: Path, step: int, whole: bool = True) -> None:
    """What veRL leaves: shards first, `data.pt` after them, the tracker last. A kill stops it anywhere."""
    (folder / f"global_step_{step}" / "actor").mkdir(parents=True, exist_ok=True)
    (folder / f"global_step_{step}" / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"weights")
    if whole:
        (folder / f"global_step_{step}" / "data.pt").write_bytes(b"data")
        (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[-1]) for path in folder.glob("global_step_*"))


def keeper_of(folder: Path, keep_last: int = 2, **options: object) -> CheckpointKeeper:
    return CheckpointKeeper(folder, read_checkpoint_options({"keep_last": keep_last, **options}))


def test_the_best_is_kept_beside_the_last(tmp_path: Path) -> None:
    keeper, values = keeper_of(tmp_path), {}
    for step, value in [(5, 0.5), (10, 0.9), (15, 0.6), (20, 0.7), (25, 0.8)]:
        save(tmp_path, step)
        keeper.update(values)
        keeper.prune()
        values[step] = value  # in veRL's step the validation comes after the save
    assert steps_of(tmp_path) == [10, 20, 25]
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "step": 10,
        "metric": "val-*/*/reward/mean@*",
        "value": 0.9,
    }


def test_a_value_that_is_known_at_the_save_counts_at_once(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, keep_last=1)
    for step, value in [(5, 0.9), (10, 0.5), (15, 0.4)]:
        save(tmp_path, step)
        keeper.update({step: value})
        keeper.prune()
    assert steps_of(tmp_path) == [5, 15]


@pytest.mark.parametrize(("mode", "best"), [("max", 10), ("min", 5)])
def test_either_direction(mode: str, best: int, tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    found = keeper_of(tmp_path, mode=mode).update({5: 0.1, 10: 0.9, 15: 0.9})
    assert found is not None
    assert found.step == best  # of two equals the earlier


def test_a_step_that_was_validated_but_not_saved_can_not_be_best(tmp_path: Path) -> None:
    save(tmp_path, 10)
    found = keeper_of(tmp_path).update({5: 0.99, 10: 0.5})
    assert found is not None
    assert found.step == 10


def test_a_resumed_run_knows_the_best_of_earlier_attempts(tmp_path: Path) -> None:
    save(tmp_path, 5)
    keeper_of(tmp_path).update({5: 0.9})
    for step in (10, 15, 20):
        save(tmp_path, step)
    again = keeper_of(tmp_path, keep_last=1)
    again.update({20: 0.4})  # the metrics file of the first attempt is lost
    assert again.prune() == [10, 15]
    assert steps_of(tmp_path) == [5, 20]


def test_a_step_that_was_trained_again_has_its_later_value(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step)
    keeper = keeper_of(tmp_path)
    keeper.update({5: 0.5, 10: 0.9})
    found = keeper.update({5: 0.5, 10: 0.1})
    assert found is not None
    assert (found.step, found.value) == (5, 0.5)


def test_nothing_goes_before_the_new_one_is_whole(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10, whole=False)
    assert keeper_of(tmp_path, keep_last=1).prune() == []
    assert steps_of(tmp_path) == [5, 10]


def test_half_a_checkpoint_is_none_and_goes_once_a_later_one_is_whole(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10, whole=False)
    save(tmp_path, 15)
    keeper = keeper_of(tmp_path, keep_last=2)
    assert keeper.whole() == [5, 15]
    assert keeper.prune() == [10]


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


def test_a_best_that_somebody_removed_gives_way(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text('{"step": 3, "metric": "val-*/*/reward/mean@*", "value": 1.0}')
    save(tmp_path, 5)
    found = keeper_of(tmp_path).update({5: 0.2})
    assert found is not None
    assert found.step == 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 1}'])
def test_a_damaged_best_file_is_written_anew(content: str, tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(content)
    save(tmp_path, 5)
    keeper_of(tmp_path).update({5: 0.2})
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 5


def test_before_the_first_checkpoint_there_is_nothing_to_do(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path / "absent")
    assert (keeper.latest(), keeper.whole(), keeper.best(), keeper.update({1: 0.5}), keeper.prune()) == (
        None,
        [],
        None,
        None,
        [],
    )


def test_keeping_all_deletes_nothing(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    assert keeper_of(tmp_path, keep_last=0).prune() == []


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    keep_last=st.integers(1, 4),
    known=st.data(),
)
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


def test_values_of_several_sources_are_averaged_and_a_null_is_none() -> None:
    rows = [
        {
            "step": 0,
            "data": {"val-aux/a/reward/mean@1": 0.2, "val-core/b/reward/mean@4": 0.6, "val-core/a/acc/mean@1": 1},
        },
        {"step": 5, "data": {"val-aux/a/reward/mean@1": None, "val-core/b/reward/mean@4": 0.6}},
        {"step": 6, "data": {"reward/score/mean": 0.5}},
    ]
    assert validation_values(rows, CheckpointOptions().metric) == {0: pytest.approx(0.4)}  # (0.2 + 0.6) / 2


@pytest.mark.parametrize("raw", [{"keep_last": -1}, {"keep": 3}, {"mode": "most"}, {"keep_last": 1.5}])
def test_wrong_options_are_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"medix\.checkpoints"):
        read_checkpoint_options(raw)
