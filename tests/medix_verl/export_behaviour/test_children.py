"""The processes that load models: what they refuse, how they die, what they are told, and that none is left."""

from __future__ import annotations

import contextlib
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from medix.errors import ExportError
from medix.processes import is_alive
from medix_verl.export import children
from medix_verl.export.base_model import BaseModel
from medix_verl.export.behaviour import BehaviourOptions, prove_behaviour, response_limit, stored
from medix_verl.export.children import Child, available_bytes
from medix_verl.export.contract import Checkpoint

pytestmark = pytest.mark.slow


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
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_child_that_fails_is_one_message(tmp_path: Path, module: str, case: str) -> None:
    code, message = FAULTS[case]
    write(tmp_path, code)
    with pytest.raises(ExportError, match=message):
        ask(module)


KILLED = "its process was killed (-9), as the system does for want of memory"
STOPPED = {
    "no end": ("time.sleep(99)", "no answer within 2 s"),
    "a kill": ("os.kill(os.getpid(), 9)", KILLED),
    "a rank's kill": (
        """
        print("RuntimeError: connection closed by peer")
        print("ProcessExitedException: process 1 terminated with signal SIGKILL")
        sys.exit(1)
        """,
        KILLED,
    ),
}


@pytest.mark.parametrize("case", STOPPED)
def test_what_the_machine_stopped_proves_nothing_and_refutes_nothing(tmp_path: Path, module: str, case: str) -> None:
    """Finished weights were thrown away for it."""
    code, reason = STOPPED[case]
    write(tmp_path, code)
    start = time.monotonic()
    assert ask(module, 2.0 if case == "no end" else 30.0) == {"skipped": reason}
    assert time.monotonic() - start < 20


FOUND = {
    "medix_verl.export.folder_probe": {
        "class": "C",
        "keys": {},
        "dtype": "float32",
        "image": None,
        "generations": {"text": {"question": "q", "answer": "a", "terminated": True, "tokens": [1], "margins": [9.0]}},
        "log_probs": {"text": [-1.0]},
    },
    "medix_verl.export.sharded_probe": {"ranks": 1, "log_probs": {"text": [-1.0]}},
    "medix_verl.export.vllm_probe": {"version": "0", "dtype": "float32", "tokens": {"text": [1]}},
}
UNPROVED = {
    # what the machine stopped -> the proofs in the record, and those that it says are not there
    "": ({"loads", "generations", "sharded_model", "vllm"}, set()),
    "medix_verl.export.folder_probe": (set(), {"all"}),
    "medix_verl.export.sharded_probe": ({"loads", "generations", "vllm"}, {"sharded model"}),
    "medix_verl.export.vllm_probe": ({"loads", "generations", "sharded_model"}, {"vLLM"}),
}


@pytest.mark.parametrize("stopped", UNPROVED)
def test_the_other_proofs_stand_without_one_that_was_stopped(
    stopped: str, folder: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeChild(contextlib.AbstractContextManager["FakeChild"]):
        def __init__(self, module: str, request: object, gpus: bool = False) -> None:
            self.module = module

        def __exit__(self, *_: object) -> None:
            pass

        def answer(self) -> dict[str, object]:
            return {"skipped": KILLED} if self.module == stopped else FOUND[self.module]

    monkeypatch.setattr("medix_verl.export.behaviour.Child", FakeChild)
    monkeypatch.setattr("medix_verl.export.behaviour.mesh_size", lambda checkpoint: 1)
    monkeypatch.setattr("medix_verl.export.behaviour.available_bytes", lambda: 1 << 40)
    record = prove_behaviour(folder, checkpoint, BaseModel(None, None, ""), BehaviourOptions(check_vllm=True))
    proofs, skipped = UNPROVED[stopped]
    assert record.pop("skipped") == dict.fromkeys(skipped, KILLED)
    assert record.keys() == proofs


@pytest.mark.parametrize("end", ["time.sleep(99)", "os._exit(0)"])
def test_nothing_that_a_child_started_outlives_it(tmp_path: Path, module: str, end: str) -> None:
    """Also where the child itself has ended: its ranks are in its session."""
    pids = tmp_path / "pids"
    write(
        tmp_path,
        f"""
        rank = os.fork()
        if rank == 0:
            time.sleep(99)
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{rank}}")
        json.dump({{"found": {{}}}}, answer)
        answer.flush()
        {end}
        """,
    )
    ask(module, 2.0)
    left = [int(pid) for pid in pids.read_text().split()]
    deadline = time.monotonic() + 20  # a kill takes effect a moment later
    while any(map(is_alive, left)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in left if is_alive(pid)] == []


def test_what_does_not_fit_into_memory_is_skipped_with_a_reason(
    folder: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medix_verl.export.behaviour.available_bytes", lambda: 10**9)
    record = prove_behaviour(folder, checkpoint, BaseModel(None, None, "unknown"), BehaviourOptions())
    # 12 x 8 parameters of 4 bytes, and 1 GiB for an interpreter with torch.
    assert record == {"skipped": {"all": "1.1 GB of memory needed in float32, 1.0 GB are there"}}


def test_an_adapter_without_its_base_is_skipped_with_a_reason(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / "adapter_config.json").write_text("{}")
    record = prove_behaviour(folder, checkpoint, BaseModel(None, None, "nobody knows it"), BehaviourOptions())
    assert record == {"skipped": {"all": "an adapter works on its base model, and nobody knows it"}}


def test_the_memory_of_this_machine_is_a_number() -> None:
    assert 0 < available_bytes() < 1 << 50


GROUPS: dict[str, tuple[str, dict[str, dict[str, int | str]], int]] = {
    # /proc/self/cgroup, files of the groups -> bytes that are there
    "no limit": ("0::/", {"": {"memory.max": "max", "memory.current": 5}}, 64),
    "a container": ("0::/", {"": {"memory.max": 8, "memory.current": 5}}, 3),
    "cached files count as free": (
        "0::/",
        {"": {"memory.max": 8, "memory.current": 7, "memory.stat": "anon 1\ninactive_file 4\nactive_file 2"}},
        1 + 4 + 2,
    ),
    "a job of its own": ("0::/slurm/job_1", {"slurm/job_1": {"memory.max": 4, "memory.current": 1}}, 3),
    "the job around it": (
        "0::/slurm/job_1/step_0",
        {
            "slurm/job_1/step_0": {"memory.max": "max", "memory.current": 1},
            "slurm/job_1": {"memory.max": 4, "memory.current": 2},
        },
        2,
    ),
    "a path of outside the container": ("0::/docker/abc", {"": {"memory.max": 8, "memory.current": 5}}, 3),
    "version 1": (
        "5:cpu,cpuacct:/x\n4:memory:/job\n0::/",
        {
            "memory/job": {
                "memory.limit_in_bytes": 6,
                "memory.usage_in_bytes": 5,
                "memory.stat": "inactive_file 0\ntotal_inactive_file 1\ntotal_active_file 2",
            }
        },
        1 + 1 + 2,
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_limits_of_containers_and_jobs_are_read(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, groups, there = GROUPS[case]
    (tmp_path / "self").write_text(own + "\n")
    for group, files in groups.items():
        (tmp_path / "cgroup" / group).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / "cgroup" / group / name).write_text(f"{content}\n")
    monkeypatch.setattr(children, "OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(children, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=64))
    assert available_bytes() == there


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
