"""The order of the proofs: a large model's two forms are never in memory together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medix_verl.export import behaviour
from medix_verl.export.base_model import BaseModel
from medix_verl.export.behaviour import OVERHEAD_BYTES, BehaviourOptions, prove_behaviour
from medix_verl.export.contract import Checkpoint

FOLDER = {
    "class": "C", "keys": {}, "dtype": "float32", "image": None, "log_probs": {"text": [-1.0]},
    "generations": {"text": {"question": "Q?", "answer": "heart", "tokens": [2], "terminated": True}},
}  # fmt: skip


def children(events: list[str], sharded: dict[str, Any]) -> type:
    class Recorded:
        """Writes down when it is started, asked and gone."""

        def __init__(self, module: str, request: dict[str, Any], **_: Any) -> None:
            self.name = module.removeprefix("medix_verl.export.").removesuffix("_probe")
            assert request["ranks"] == 2
            events.append(f"{self.name} starts")

        def __enter__(self) -> Recorded:
            return self

        def __exit__(self, *_: object) -> None:
            """The children end with the `with` block, one that has answered before."""

        def answer(self) -> dict[str, Any]:
            events.append(f"{self.name} is done")
            return FOLDER if self.name == "folder" else sharded

    return Recorded


@pytest.mark.parametrize(
    ("parameters", "order"),
    [
        (OVERHEAD_BYTES // 4, ["sharded starts", "sharded is done", "folder starts", "folder is done"]),
        (OVERHEAD_BYTES // 4 - 1, ["sharded starts", "folder starts", "folder is done", "sharded is done"]),
    ],
    ids=["a model as large as the libraries, 4 bytes a parameter", "a smaller one"],
)
@pytest.mark.parametrize(
    "sharded", [{"ranks": 2, "log_probs": {"text": [-1.0]}}, {"skipped": "why"}], ids=["found", "skipped"]
)
def test_only_small_models_are_loaded_twice_at_once(
    parameters: int,
    order: list[str],
    sharded: dict[str, Any],
    folder: Path,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    monkeypatch.setattr(behaviour, "Child", children(events, sharded))
    monkeypatch.setattr(behaviour, "stored", lambda _: (parameters, "float32"))
    monkeypatch.setattr(behaviour, "available_bytes", lambda: 1 << 50)
    monkeypatch.setattr(behaviour, "mesh_size", lambda _: 2)
    record = prove_behaviour(folder, checkpoint, BaseModel(None, None, "unknown"), BehaviourOptions())
    assert events == order
    assert record["skipped"].get("sharded model") == sharded.get("skipped")
    assert ("sharded_model" in record) == ("log_probs" in sharded)
