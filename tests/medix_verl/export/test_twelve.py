"""Twelve kinds of damage through the whole command's pipeline: each refused with its own message, no folder left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medix.errors import ExportError
from medix_verl.export.command import checks_of
from medix_verl.export.contract import Check, ExportOptions
from medix_verl.export.manifest import write_manifest
from medix_verl.export.pipeline import export
from tests.medix_verl.export_behaviour.conftest import change_json, write_side_files

from . import test_damage as damage
from .conftest import Recipe

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

TWELVE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (damage.missing_shard, "2 shards in"),
    "truncated shard": (damage.truncated_shard, "a truncated file of"),
    "swapped ranks": (damage.swapped_ranks, "the shard of rank 0 in model_world_size_2_rank_0.pt"),
    "stale shard": (lambda actor: damage.stale(actor, newer_of(actor), ("model",)), "a stale file of another step"),
    "missing key": (damage.missing_key, "missing key lm_head.weight"),
    "extra key": (damage.extra_key, "extra key value_head.weight"),
    "NaN": (damage.not_a_number, "1 of them NaN in lm_head.weight"),
    "wrong shape": (damage.wrong_shape, "wrong shape"),
    "no processor": (
        lambda actor: (actor / "huggingface/processor_config.json").unlink(),
        "an image processor beside a model that sees images",
    ),
    "wrong vocabulary": (
        lambda actor: change_json(actor / "huggingface/tokenizer.json", lambda c: c["model"]["vocab"].update(a=7, b=6)),
        "the base model's vocabulary",
    ),
    "half-written folder": (damage.half_written_folder, "half-written folder"),
    "foreign pickle": (damage.foreign_pickle, "a foreign pickle that asks for `posix.mkdir`"),
}
"""Damage to an `actor` folder, and what of the message is its own."""
BY_THE_MANIFEST = "stale shard"
"""A run of this project writes one. Without it the other kinds are found too, by what they are."""


def newer_of(actor: Path) -> Path:
    return actor.parents[2] / "newer"


@pytest.fixture
def whole(copy_of: Callable[[Recipe], Path], sharded: Callable[[Recipe], Path], tmp_path: Path) -> Path:
    """An `actor` folder with all side files, the base model beside the run, a later step's shards apart."""
    actor = copy_of(damage.EVEN)
    huggingface, base = actor / "huggingface", tmp_path / "base"
    model = json.loads((huggingface / "config.json").read_text())
    for folder in (huggingface, base):
        write_side_files(folder)
        ids = json.loads((folder / "config.json").read_text())
        tokens = {name: ids[name] for name in ("image_token_id", "vision_start_token_id", "vision_end_token_id")}
        (folder / "config.json").write_text(json.dumps(model | tokens))
    (base / "processor_config.json").rename(base / "not_here.json")  # so that a lost one cannot come from it
    shutil.copytree(sharded(damage.NEWER), newer_of(actor))
    return actor


def checks_before_the_model_is_loaded(base: Path) -> list[Check]:
    return [check for check in checks_of(base, check_vllm=False, gguf_ready=False) if check.__name__ != "behaviour"]


def message_of(case: str, actor: Path, tmp_path: Path) -> str:
    if case == BY_THE_MANIFEST:
        write_manifest(actor)
    TWELVE[case][0](actor)
    options = ExportOptions(actor.parent, tmp_path / "out", base=tmp_path / "base")
    with pytest.raises(ExportError) as refused:
        export(options, checks=checks_of(tmp_path / "base", check_vllm=False, gguf_ready=False))
    return str(refused.value)


@pytest.mark.parametrize("case", TWELVE)
def test_each_is_refused_with_its_own_message(
    case: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = message_of(case, whole, tmp_path)
    assert [name for name, (_, own) in TWELVE.items() if own in message] == [case]
    assert list(tmp_path.glob("out*")) == []
    assert not (tmp_path / "pickle_was_run").exists()


def test_they_are_twelve() -> None:
    assert len(TWELVE) == len({own for _, own in TWELVE.values()}) == 12


def test_without_damage_it_is_exported(whole: Path, tmp_path: Path) -> None:
    """So that the refusals above are of the damage, not of the checkpoint."""
    options = ExportOptions(whole.parent, tmp_path / "out", base=tmp_path / "base")
    out = export(options, checks=checks_before_the_model_is_loaded(tmp_path / "base"))
    record = json.loads((out / "export.json").read_text())
    assert record["checks"]["side_files"]["compared_with_base"] is True
    assert (out / "README.md").is_file()
