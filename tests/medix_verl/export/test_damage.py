"""Damage planted in a whole checkpoint: each kind is refused with its own message, and no folder is left."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix.errors import ExportError
from medix_verl.export.contract import Checkpoint, ExportOptions
from medix_verl.export.manifest import write_manifest
from medix_verl.export.pipeline import export

from .conftest import Recipe

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

EVEN = Recipe("qwen3_vl", world=2)
SHARDS = ("model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt")
NEWER = Recipe("qwen3_vl", world=2, seed=1, step=6)


def swap(actor: Path, kind: str = "model") -> None:
    one, other = (actor / f"{kind}_world_size_2_rank_{rank}.pt" for rank in range(2))
    one.rename(actor / "aside")
    other.rename(one)
    (actor / "aside").rename(other)


def edit(actor: Path, change: Callable[[dict[str, Any]], None], ranks: tuple[int, ...] = (0, 1)) -> None:
    """Load shards with torch, change their dictionaries, save them under the same names."""
    import torch

    for rank in ranks:
        path = actor / SHARDS[rank]
        state = torch.load(path, weights_only=False)
        change(state)
        torch.save(state, path)


def missing_shard(actor: Path) -> None:
    (actor / SHARDS[1]).unlink()


def truncated_shard(actor: Path) -> None:
    path = actor / SHARDS[1]
    os.truncate(path, path.stat().st_size // 2)


def flipped_bytes(actor: Path) -> None:
    """In the middle of the file, in a tensor: sizes and table of contents stay right."""
    with (actor / SHARDS[1]).open("r+b") as file:
        file.seek((actor / SHARDS[1]).stat().st_size // 2)
        file.write(b"damage")


def swapped_ranks(actor: Path) -> None:
    swap(actor)


def swapped_ranks_that_forgot_their_names(actor: Path) -> None:
    """Saved through a stream, so that only the device mesh knows the rank."""
    import io

    import torch

    for name in SHARDS:
        stream = io.BytesIO()
        torch.save(torch.load(actor / name, weights_only=False), stream)
        (actor / name).write_bytes(stream.getvalue())
    swap(actor)


def missing_key(actor: Path) -> None:
    edit(actor, lambda state: state.pop("lm_head.weight"))


def missing_key_in_one_shard(actor: Path) -> None:
    edit(actor, lambda state: state.pop("lm_head.weight"), ranks=(1,))


def extra_key(actor: Path) -> None:
    edit(actor, lambda state: state.update({"value_head.weight": state["lm_head.weight"]}))


def not_a_number(actor: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        state["lm_head.weight"]._local_tensor[-1, -1] = float("nan")

    edit(actor, change, ranks=(1,))


def wrong_shape(actor: Path) -> None:
    config = json.loads((actor / "huggingface/config.json").read_text())
    config["text_config"]["intermediate_size"] += 16
    (actor / "huggingface/config.json").write_text(json.dumps(config))


def half_written_folder(actor: Path) -> None:
    (actor.parent.parent / "latest_checkpointed_iteration.txt").write_text("4")


def no_config(actor: Path) -> None:
    (actor / "huggingface/config.json").unlink()


class Foreign:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle_was_run",)


def foreign_pickle(actor: Path) -> None:
    """A shard whose pickle would run a function of its choice."""
    _replace_pickle(actor / SHARDS[1], pickle.dumps({"lm_head.weight": Foreign()}, protocol=2))


def pickle_without_tensors(actor: Path) -> None:
    _replace_pickle(actor / SHARDS[1], pickle.dumps({"lm_head.weight": 1.0}, protocol=2))


def _replace_pickle(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        items = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in items.items():
            archive.writestr(name, data if name.endswith("data.pkl") else content)


def shards_of_another_world(actor: Path) -> None:
    shutil.copy(actor / SHARDS[0], actor / "model_world_size_8_rank_0.pt")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing shard": (missing_shard, "1 missing: model_world_size_2_rank_1.pt"),
    "truncated shard": (truncated_shard, "a truncated file of"),
    "damaged bytes": (flipped_bytes, "damaged bytes (CRC of"),
    "swapped ranks": (swapped_ranks, "the one saved as model_world_size_2_rank_1.pt"),
    "swapped ranks without names": (swapped_ranks_that_forgot_their_names, "the one that rank 1 saved"),
    "missing key": (missing_key, "missing key lm_head.weight"),
    "missing key in one shard": (missing_key_in_one_shard, "model_world_size_2_rank_1.pt lacks lm_head.weight"),
    "extra key": (extra_key, "extra key value_head.weight"),
    "NaN": (not_a_number, "1 of them NaN in lm_head.weight"),
    "wrong shape": (wrong_shape, "wrong shape"),
    "half-written folder": (half_written_folder, "half-written folder"),
    "no config": (no_config, "FileNotFoundError at"),
    "foreign pickle": (foreign_pickle, "a foreign pickle that asks for `posix.mkdir`"),
    "no tensors": (pickle_without_tensors, "float under 'lm_head.weight'"),
    "shards of another world size": (shards_of_another_world, "shards of 2 and 8 ranks"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_and_named(
    case: str, copy_of: Callable[[Recipe], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, message = DAMAGE[case]
    actor = copy_of(EVEN)
    damage(actor)
    with pytest.raises(ExportError) as refused:
        export(ExportOptions(actor.parent, tmp_path / "out"), checks=[])
    assert message in refused.value.found
    assert list(tmp_path.glob("out*")) == []
    assert not (tmp_path / "pickle_was_run").exists()


def stale(actor: Path, newer: Path, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        shutil.copy(newer / f"{kind}_world_size_2_rank_1.pt", actor)


STALE: dict[str, tuple[bool, bool, tuple[str, ...], str]] = {
    # manifest, the other step beside it, files exchanged -> message
    "with a manifest": (True, False, ("model",), "other contents"),
    "beside the step it came from": (False, True, ("model",), "a stale shard: step 6's contents"),
    "with its scheduler": (False, False, ("model", "extra_state"), "(rank 0: 5, rank 1: 6): stale shards"),
    "with its optimizer": (False, False, ("model", "optim"), "(rank 0: 5, rank 1: 6): stale shards"),
}


@pytest.mark.parametrize("case", STALE)
def test_a_stale_shard_is_told_from_the_evidence(
    case: str, copy_of: Callable[[Recipe], Path], sharded: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    manifest, beside, kinds, message = STALE[case]
    actor, newer = copy_of(EVEN), sharded(NEWER)
    if manifest:
        write_manifest(actor)
    if beside:
        shutil.copytree(newer.parent, actor.parent.parent / newer.parent.name)
    stale(actor, newer, kinds)
    with pytest.raises(ExportError) as refused:
        export(ExportOptions(actor.parent, tmp_path / "out"), checks=[])
    assert message in refused.value.found
    assert list(tmp_path.glob("out*")) == []


def test_a_stale_shard_that_left_no_evidence_is_said_to_be_unproved(
    copy_of: Callable[[Recipe], Path], sharded: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    actor = copy_of(EVEN)
    stale(actor, sharded(NEWER), ("model",))
    out = export(ExportOptions(actor.parent, tmp_path / "out"), checks=[])
    weights = json.loads((out / "export.json").read_text())["weights"]
    assert "that every model shard is of the step" in weights["unproved"][0]


@pytest.mark.parametrize("change", ["no optimizer", "nothing"])
def test_a_manifest_proves_a_whole_checkpoint(change: str, copy_of: Callable[[Recipe], Path], tmp_path: Path) -> None:
    actor = copy_of(EVEN)
    write_manifest(actor)
    if change == "no optimizer":
        for path in actor.glob("optim_*"):
            path.unlink()
    out = export(ExportOptions(actor, tmp_path / "out"), checks=[])
    weights = json.loads((out / "export.json").read_text())["weights"]
    assert weights["unproved"] == []
    assert "every file is as the save of step 5 left it (manifest.json)" in weights["proved"]


def test_a_failing_check_leaves_nothing_behind(sharded: Callable[[Recipe], Path], tmp_path: Path) -> None:
    def tokenizer_of_another_model(folder: Path, checkpoint: Checkpoint) -> dict[str, Any]:
        assert (folder / "model.safetensors").is_file()
        raise ExportError("this model's tokenizer", "another's", "restore it")

    with pytest.raises(ExportError, match="another's"):
        export(ExportOptions(sharded(EVEN), tmp_path / "out"), checks=[tokenizer_of_another_model])
    assert list(tmp_path.iterdir()) == []
