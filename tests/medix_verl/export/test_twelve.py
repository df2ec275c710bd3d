"""Twelve kinds of damage through the whole export: each refused with its own message, no folder left."""

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

from medix.errors import MedixError
from medix.prompts import load_prompt
from medix_verl.export.manifest import write_manifest
from medix_verl.export.pipeline import export

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_process")]  # imports torch and transformers, forks ranks

SHARDS = ("model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt")


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit(actor: Path, change: Callable[[dict[str, Any]], object], ranks: tuple[int, ...] = (0, 1)) -> None:
    """Load shards with torch, change their dictionaries, save them under the same names."""
    import torch

    for path in [actor / SHARDS[rank] for rank in ranks]:
        state = torch.load(path, weights_only=False)
        change(state)
        torch.save(state, path)


def swap(actor: Path) -> None:
    (actor / SHARDS[0]).rename(actor / "aside")
    (actor / SHARDS[1]).rename(actor / SHARDS[0])
    (actor / "aside").rename(actor / SHARDS[1])


def swap_nameless(actor: Path) -> None:
    """Saved through a stream, so that only the device mesh knows the rank."""
    import torch

    for name in SHARDS:
        state = torch.load(actor / name, weights_only=False)
        with (actor / name).open("wb") as file:
            torch.save(state, file)
    swap(actor)


def replace_pickle(actor: Path, content: Any) -> None:
    with zipfile.ZipFile(actor / SHARDS[1]) as archive:
        items = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(actor / SHARDS[1], "w") as archive:
        for name, data in items.items():
            archive.writestr(name, pickle.dumps(content, protocol=2) if name.endswith("data.pkl") else data)


class Foreign:
    """A pickle that would run a function of its choice."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle_was_run",)


class OfTorch:
    def __reduce__(self) -> tuple[Any, ...]:
        import torch

        return torch.nn.Linear, (1, 1)


def stale(actor: Path) -> None:
    """The same model's shard of another step: right keys, right shapes."""
    write_manifest(actor)
    edit(actor, lambda state: state["lm_head.weight"]._local_tensor.add_(1), ranks=(1,))


def no_processor(actor: Path) -> None:
    for place in (actor / "huggingface", actor.parents[3] / "base"):
        (place / "preprocessor_config.json").unlink()


def flip(actor: Path) -> None:
    with (actor / SHARDS[1]).open("r+b") as file:
        file.seek((actor / SHARDS[1]).stat().st_size // 2)
        file.write(b"damage")


def with_nan(state: dict[str, Any]) -> None:
    state["lm_head.weight"]._local_tensor[-1, -1] = float("nan")


def link_out(name: str) -> Callable[[Path], None]:
    def damage(actor: Path) -> None:
        (actor / name).rename(actor.parents[3] / "elsewhere")
        (actor / name).symlink_to(actor.parents[3] / "elsewhere")

    return damage


def loop(name: str) -> Callable[[Path], None]:
    def damage(actor: Path) -> None:
        (actor / name).unlink()
        (actor / name).symlink_to(Path(name).name)

    return damage


def in_config(change: Callable[[Any], object], name: str = "config.json") -> Callable[[Path], None]:
    return lambda actor: change_json(actor / "huggingface" / name, change)


def exchange(mapping: dict[str, Any], one: str, other: str) -> None:
    mapping[one], mapping[other] = mapping[other], mapping[one]


def cut(name: str) -> Callable[[Path], None]:
    return lambda actor: os.truncate(actor / name, (actor / name).stat().st_size // 2)


TWELVE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda actor: (actor / SHARDS[1]).unlink(), "that of rank 1 is missing"),
    "truncated shard": (cut(SHARDS[1]), "is a truncated file of"),
    "swapped ranks": (swap, "is not the shard of the rank in its name but the one that was saved as"),
    "stale shard": (stale, "is not as it was saved at step 5"),
    "missing key": (lambda actor: edit(actor, lambda s: s.pop("lm_head.weight")), "Missing key(s)"),
    "extra key": (lambda actor: edit(actor, lambda s: s.update(x=s["lm_head.weight"])), "Unexpected key(s)"),
    "NaN": (lambda actor: edit(actor, with_nan, (1,)), "not finite, 1 of them NaN"),
    "wrong shape": (in_config(lambda c: c["text_config"].update(intermediate_size=400)), "size mismatch for"),
    "no processor": (no_processor, "image processor"),
    "wrong vocabulary": (
        in_config(lambda c: exchange(c["model"]["vocab"], "a", "b"), "tokenizer.json"),
        "The checkpoint's processor is not the base model's: tokenizer.json/model/vocab/a",
    ),
    "half-written folder": (
        lambda actor: (actor.parents[1] / "latest_checkpointed_iteration.txt").write_text("4"),
        "is a half-written folder",
    ),
    "foreign pickle": (lambda actor: replace_pickle(actor, {"x": Foreign()}), "it asks for `posix.mkdir`"),
}  # fmt: skip
"""Damage to an `actor` folder, and what of the message is its own."""

FURTHER: dict[str, tuple[Callable[[Path], object], str]] = {
    "damaged bytes": (flip, "has damaged bytes in"),
    "swapped ranks without names": (swap_nameless, "the one that rank 1 saved"),
    "a key that one shard lacks": (lambda actor: edit(actor, lambda s: s.pop("lm_head.weight"), (1,)), "lacks lm_head"),
    "another release of torch": (lambda actor: replace_pickle(actor, {"x": OfTorch()}), "verl.model_merger merge"),
    "no tensors": (lambda actor: replace_pickle(actor, {"x": 1.0}), "something other than tensors"),
    "a compressed shard": (
        lambda actor: zipfile.ZipFile(actor / SHARDS[1], "w", zipfile.ZIP_DEFLATED).writestr("x/data.pkl", "x" * 99),
        "is empty or compressed",
    ),
    "another template": (lambda actor: (actor / "huggingface/chat_template.jinja").write_text("x"), "chat_template"),
    "other pixel limits": (in_config(lambda c: c.update(max_pixels=99), "preprocessor_config.json"), "longest_edge is"),
    "a config that asks for code": (in_config(lambda c: c.update(auto_map={"AutoConfig": "x.Y"})), "asks for code"),
    "an unknown class": (in_config(lambda c: c.update(architectures=["Unknown"])), "has no model 'Unknown'"),
    "no config": (lambda actor: (actor / "huggingface/config.json").unlink(), "No such file or directory"),
    "a config cut off": (cut("huggingface/config.json"), "config.json can not be read"),
    "a deep config": (
        lambda actor: (actor / "huggingface/config.json").write_text('{"a":' * 9999 + "1" + "}" * 9999),
        "config.json can not be read",
    ),
    "a manifest cut off": (lambda actor: os.truncate(write_manifest(actor), 99), "manifest.json can not be read"),
    "config.json is a link": (link_out("huggingface/config.json"), "leads out of"),
    "a shard is a link": (link_out(SHARDS[1]), "leads out of"),
    "config.json is a link to itself": (loop("huggingface/config.json"), "Too many levels of symbolic links"),
    "a shard is a link to itself": (loop(SHARDS[1]), "Too many levels of symbolic links"),
    "the tokenizer is a link": (link_out("huggingface/tokenizer.json"), "leads out of"),
}  # fmt: skip


@pytest.mark.parametrize("case", [*TWELVE, *FURTHER])
def test_each_is_refused_with_its_own_message(
    case: str, whole: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / "base")
    (TWELVE | FURTHER)[case][0](whole)
    with pytest.raises((MedixError, OSError)) as refused:
        export(whole.parent, tmp_path / "out", base=tmp_path / "base")
    assert (TWELVE | FURTHER)[case][1] in str(refused.value)
    assert [name for name, (_, own) in TWELVE.items() if own in str(refused.value)] == [case] * (case in TWELVE)
    assert list(tmp_path.glob("out*")) == []
    assert not (tmp_path / "pickle_was_run").exists()


def test_they_are_twelve() -> None:
    assert len(TWELVE) == len({own for _, own in TWELVE.values()}) == 12


def test_without_damage_it_is_exported(whole: Path, tiny: Path, tmp_path: Path) -> None:
    """So that the refusals above are of the damage, not of the checkpoint."""
    out = export(whole.parent, tmp_path / "out", base=tiny)
    record = json.loads((out / "export.json").read_text())
    assert record["side_files"]["from"] == "base"
    assert record["generations"].keys() == {"text", "image"}
    assert record["not_checked"][0] == "that all shards are of one step: the run wrote no manifest.json"
    assert (out / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert (out / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()


def test_the_cards_snippet_asks_as_training_did(
    whole: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that a reader pastes, in the exported folder, with the picture of the export's own question."""
    from medix_verl.export.generate import Asker, picture

    out = export(whole.parent, tmp_path / "out", base=tiny)
    monkeypatch.chdir(out)
    picture().save("image.jpg", quality=100)
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code.replace("max_new_tokens=1024", "max_new_tokens=4"), found)
    assert found["prompt"] == Asker(out, load_prompt()).prompt("image")
