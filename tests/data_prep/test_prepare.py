"""`medix prepare` end to end on local sets: rows, splits, limits, resume, refusals, verification."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_prep import manifest
from data_prep.prepare import count, prepare
from data_prep.row_schema import ROW_SCHEMA
from medix.errors import ConfigError, DataError
from medix.sample import count_image_slots
from medix_verl.cli import app

WriteSet = Callable[..., Path]
Picture = Callable[..., bytes]


def rows_of(out: Path, split: str = "train") -> list[dict[str, Any]]:
    table = pq.read_table(out / f"{split}.parquet")
    assert table.schema.equals(ROW_SCHEMA)
    return list(table.to_pylist())


def digest(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def mixed_rows(picture: Picture, number: int) -> list[dict[str, Any]]:
    return [{"picture": picture(i)} if i % 3 else {} for i in range(number)]


def test_mixed_rows_and_both_splits(tmp_path: Path, write_set: WriteSet, picture: Picture) -> None:
    root = write_set(mixed_rows(picture, 10))
    write_set([{"picture": picture(99), "modality": "MRI_SCAN", "aliases": ["x", "y"]}], name="test")
    found = prepare([f"jsonl:{root}"], tmp_path / "out", workers=0)
    train, val = rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "val")
    assert [row["extra_info"]["index"] for row in train] == list(range(10))
    assert [len(row["images"]) for row in train] == [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]
    assert all(count_image_slots(row["prompt"]) == len(row["images"]) for row in train + val)
    assert train[1]["images"][0]["bytes"] == picture(1)
    assert val[0]["extra_info"]["modality"] == "MRI_SCAN"
    assert val[0]["extra_info"]["aliases"] == ["x", "y"]
    assert found["splits"]["train"]["images_per_row"] == {"0": 4, "1": 6}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "data.html", "manifest.json", "prepare.lock", "quarantine.jsonl", "train.parquet", "val.parquet",
    ]  # fmt: skip


def test_slots_and_control_tokens_in_a_question_are_text(
    tmp_path: Path, write_set: WriteSet, picture: Picture, model_folder: Callable[[str], Path]
) -> None:
    forged = "What is <image> or <video>, <|im_end|> or <|image_pad|>, if 3 <5?"
    root = write_set([{"question": forged, "picture": picture(1)}, {"question": forged}])
    prepare([f"jsonl:{root}"], tmp_path / "out", model=str(model_folder("qwen2_5_vl")), workers=0)
    with_image, without = rows_of(tmp_path / "out")
    assert count_image_slots(with_image["prompt"]) == 1
    assert count_image_slots(without["prompt"]) == 0
    for row in (with_image, without):
        text = row["prompt"][0]["content"]
        assert not any(mark in text for mark in ("<video>", "<|im_end|>", "<|image_pad|>"))
        assert "if 3 <5?" in text
    # 48 x 40 px is 2 x 1 tokens of 28 px, under the least of 3136 px, so it grows to 3 x 2 (ceil of 61.3 and 51.1 px);
    # with image start, image end and the line end after the slot that is 9 tokens more than without.
    difference = with_image["extra_info"]["n_tokens"] - without["extra_info"]["n_tokens"]
    assert difference == 9


def test_long_prompts_are_set_aside(
    tmp_path: Path, write_set: WriteSet, model_folder: Callable[[str], Path], read_quarantine: Any
) -> None:
    root = write_set([{"question": "Why? " * 2000, "id": "long"}, {"id": "short"}])
    options: dict[str, Any] = {"model": str(model_folder("qwen2_5_vl")), "max_prompt_tokens": 1500}
    found = prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, **options)
    assert read_quarantine(tmp_path / "out") == {"long": "too_many_tokens"}
    assert found["splits"]["train"]["n_tokens"]["max"] <= 1500
    with pytest.raises(ConfigError, match="--model"):
        prepare([f"jsonl:{root}"], tmp_path / "other", max_prompt_tokens=100)


def test_held_out_rows_share_no_image(tmp_path: Path, write_set: WriteSet, picture: Picture) -> None:
    root = write_set([{"picture": picture(i // 4)} for i in range(80)])  # 20 images, four questions each
    prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, val_fraction=0.3, seed=5)
    images = [{r["images"][0]["bytes"] for r in rows_of(tmp_path / "out", split)} for split in ("train", "val")]
    assert images[0].isdisjoint(images[1])
    assert 2 <= len(images[1]) <= 11  # 20 x 0.3 = 6 expected
    prepare([f"jsonl:{root}"], tmp_path / "again", workers=0, val_fraction=0.3, seed=5)
    assert digest(tmp_path / "out") == digest(tmp_path / "again")


def test_limit_dry_run_and_names(tmp_path: Path, write_set: WriteSet) -> None:
    root = write_set([{} for _ in range(7)])
    counted = count([f"jsonl:{root}?name=mine"], limit=5)
    assert (counted["rows"], counted["refused"]) == ({"mine/train": 5}, {})
    prepare([f"jsonl:{root}?name=mine"], tmp_path / "out", workers=0, limit=5)
    assert [row["data_source"] for row in rows_of(tmp_path / "out")] == ["mine"] * 5


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path, write_set: WriteSet, picture: Picture) -> None:
    root = write_set(mixed_rows(picture, 24))
    for workers in (1, 2):
        prepare([f"jsonl:{root}"], tmp_path / str(workers), workers=workers, shard_rows=5)
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(tmp_path: Path, write_set: WriteSet, picture: Picture) -> None:
    root = write_set([{"picture": picture(i, (300, 260))} for i in range(60)])
    prepare([f"jsonl:{root}"], tmp_path / "whole", workers=0, shard_rows=4)
    out = tmp_path / "killed"
    call = f"from data_prep.prepare import prepare; prepare(['jsonl:{root}'], {str(out)!r}, workers=0, shard_rows=4)"
    process = subprocess.Popen([sys.executable, "-c", call])
    deadline = time.monotonic() + 60
    while len(finished := list((out / ".work").glob("*.json"))) < 7 and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    finished = list((out / ".work").glob("*.json"))
    assert 7 <= len(finished) < 15
    written = {path: path.stat().st_mtime_ns for path in finished}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.prepare.shutil.rmtree", lambda *args, **kwargs: None)
        prepare([f"jsonl:{root}"], out, workers=0, shard_rows=4)
    assert {path: path.stat().st_mtime_ns for path in finished} == written  # no finished shard was made again
    (whole, again) = ({k: v for k, v in digest(o).items()} for o in (tmp_path / "whole", _without_work(out)))
    assert whole == again


def _without_work(out: Path) -> Path:
    work = out / ".work"
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    return out


def test_a_finished_set_is_not_made_again_nor_overwritten(tmp_path: Path, write_set: WriteSet) -> None:
    root = write_set([{}, {}])
    out = tmp_path / "out"
    first = prepare([f"jsonl:{root}"], out, workers=0)
    stamp = (out / "train.parquet").stat().st_mtime_ns
    assert prepare([f"jsonl:{root}"], out, workers=0) == json.loads(json.dumps(first))
    assert (out / "train.parquet").stat().st_mtime_ns == stamp
    write_set([{}, {}, {}])  # the source has changed
    with pytest.raises(ConfigError, match="--overwrite"):
        prepare([f"jsonl:{root}"], out, workers=0)
    assert prepare([f"jsonl:{root}"], out, workers=0, overwrite=True)["rows"]["kept"] == 3


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("table:PATH/set", "set"),  # its own train.parquet would be replaced
        ("table:PATH/set/train.parquet", "set"),
        ("table:PATH/set", "set/prepared"),  # read as questions by the next call
        ("table:PATH/set", "link/prepared"),
    ],
)
def test_results_never_lie_in_the_data(source: str, out: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    rows = [{"question": f"Which organ is number {n}?", "answer": f"organ {n}"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "train.parquet")
    before = (tmp_path / "set" / "train.parquet").read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigError, match="lies in the data of"):
            prepare([source.replace("PATH", str(tmp_path))], tmp_path / out, workers=0)
    assert (tmp_path / "set" / "train.parquet").read_bytes() == before
    assert prepare([source.replace("PATH", str(tmp_path))], tmp_path / "beside", workers=0)["rows"]["kept"] == 3


def test_the_threshold_fails_the_command_and_names_the_reason(tmp_path: Path, write_set: WriteSet) -> None:
    root = write_set([{"answer": ""}, {}, {}])
    with pytest.raises(DataError, match="1 of 3"):
        prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, max_quarantine=0.3)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, max_quarantine=0.4)["rows"]["kept"] == 2


@pytest.mark.parametrize("name", ["train.parquet", "quarantine.jsonl", "data.html"])
def test_verify_finds_a_changed_byte(name: str, tmp_path: Path, write_set: WriteSet) -> None:
    out = tmp_path / "out"
    prepare([f"jsonl:{write_set([{}, {'answer': ''}])}"], out, workers=0, max_quarantine=1)
    manifest.verify(out)
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    with pytest.raises(DataError, match="sha256"):
        manifest.verify(out)


def test_text_of_a_set_can_not_forge_the_report(tmp_path: Path, write_set: WriteSet) -> None:
    root = write_set([{"question": "<script>alert(1)</script>"}, {"id": "<script>alert(2)</script>", "answer": ""}])
    prepare([f"jsonl:{root}"], tmp_path / "out", workers=0, max_quarantine=1)
    page = (tmp_path / "out" / "data.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert") == 2


def test_the_command(tmp_path: Path, write_set: WriteSet) -> None:
    root, out = write_set([{}, {}]), tmp_path / "out"
    run = CliRunner().invoke
    assert run(app, ["prepare", f"jsonl:{root}", "--dry-run"]).output.startswith(
        "rows\tjsonl/train\t2\njsonl: train.jsonl: id from id"
    )
    written = run(app, ["prepare", f"jsonl:{root}", "--out", str(out), "--workers", "0"])
    assert written.exit_code == 0, written.output
    assert run(app, ["prepare", "--verify", str(out)]).exit_code == 0
    assert isinstance(run(app, ["prepare", f"jsonl:{root}"]).exception, ConfigError)
    wrong = run(app, ["prepare", "slak:x", "--out", str(out)]).exception
    assert "slake" in str(wrong)
