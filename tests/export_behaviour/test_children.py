"""The processes that load models: what they refuse, how they die, what they are told, and that none is left."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest

from medix.errors import ExportError
from medix.export.base_model import BaseModel
from medix.export.behaviour import BehaviourOptions, prove_behaviour, response_limit, stored
from medix.export.children import Child, available_bytes
from medix.export.contract import Checkpoint


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module called fake_child, whose file each test writes."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "fake_child"


def write(tmp_path: Path, code: str) -> None:
    head = "import json, os, sys, time\nanswer = open(sys.argv[2], 'w')\n"
    (tmp_path / "fake_child.py").write_text(head + textwrap.dedent(code))


def ask(module: str, limit_s: float = 30.0) -> dict[str, object]:
    with Child(module, {"folder": "x"}, limit_s=limit_s) as child:
        return child.answer()


def test_an_answer_comes_back_and_no_token_goes_there(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    write(
        tmp_path,
        """
        seen = {"token": os.environ.get("HF_TOKEN"), "gpus": os.environ["CUDA_VISIBLE_DEVICES"], "asked": sys.argv[1]}
        json.dump({"found": seen}, answer)
        """,
    )
    found = ask(module)
    assert found["token"] is None
    assert found["gpus"] == ""
    assert not Path(str(found["asked"])).exists()  # its folder is gone


FAULTS = {
    "a refusal": ("json.dump({'refused': ['a', 'b', 'c']}, answer)", "expected a; found b. Fix: c"),
    "an error": (
        "print('step'); raise ValueError('no such layer')",
        "exit code 1; its last words: 'ValueError: no such",
    ),
    "a kill": ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "exit code -9"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_child_that_fails_is_one_message(tmp_path: Path, module: str, case: str) -> None:
    code, message = FAULTS[case]
    write(tmp_path, code)
    with pytest.raises(ExportError, match=message):
        ask(module)


def test_a_child_that_hangs_is_ended(tmp_path: Path, module: str) -> None:
    write(tmp_path, "print(os.getpid(), flush=True); time.sleep(99)")
    start = time.monotonic()
    with pytest.raises(ExportError, match="no answer within 2 s") as failure:
        ask(module, 2.0)
    assert time.monotonic() - start < 20
    pid = int(str(failure.value).split("last words: '")[1].split("'")[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_does_not_fit_into_memory_is_skipped_with_a_reason(
    folder: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix.export.behaviour.available_bytes", lambda: 10**9)
    record = prove_behaviour(folder, checkpoint, BaseModel(None, None, "unknown"), BehaviourOptions())
    # 12 x 8 parameters of 4 bytes, and 1 GiB for an interpreter with torch.
    assert record == {"skipped": {"all": "1.1 GB of memory needed in float32, 1.0 GB are there"}}


def test_an_adapter_without_its_base_is_skipped_with_a_reason(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / "adapter_config.json").write_text("{}")
    record = prove_behaviour(folder, checkpoint, BaseModel(None, None, "nobody knows it"), BehaviourOptions())
    assert record == {"skipped": {"all": "an adapter works on its base model, and nobody knows it"}}


def test_the_memory_of_this_machine_is_a_number() -> None:
    assert 0 < available_bytes() < 1 << 50


def test_what_is_stored_is_counted(folder: Path, tmp_path: Path) -> None:
    assert stored(folder) == (96, "float32")  # 12 rows x 8
    with pytest.raises(ExportError, match="weights as safetensors; found none"):
        stored(tmp_path)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ("data: {max_response_length: 40}", 40),
        ("data: {max_response_length: 4096}", 256),
        ("data: {max_response_length: many}", 256),
        ("data: [", 256),
        ("[]", 256),
    ],
)
def test_an_answer_may_be_as_long_as_in_training(checkpoint: Checkpoint, config: str, limit: int) -> None:
    assert checkpoint.run_dir is not None
    (checkpoint.run_dir / "config.yaml").write_text(config)
    assert response_limit(checkpoint) == limit
