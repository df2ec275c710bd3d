"""A machine that is not there: nvidia-smi is a script, the child process and the configuration are dictionaries."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.preflight import machine
from medix_verl.preflight.check import Check, run_check
from medix_verl.preflight.checks import run_checks
from medix_verl.preflight.disk import check_hub_models, models_of
from medix_verl.preflight.machine import Gpu, check_cpus, check_gpus, list_gpus

FAKE_SMI = """#!/bin/sh
cat <<'END'
0, GPU-aaa, NVIDIA A100-SXM4-80GB, 81920, 4, 580.95.05
1, GPU-bbb, NVIDIA A100-SXM4-80GB, 81920, 4, 580.95.05
END
"""


@pytest.fixture
def _two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(FAKE_SMI)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize(
    ("visible", "number"), [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("GPU-aaa", 1), ("0,1", 2), ("0, 1", 2)]
)
def test_gpus_are_those_that_a_process_may_use(
    visible: str | None, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(list_gpus()) == number


@pytest.mark.usefixtures("_two_gpus")
def test_memory_is_in_gigabytes() -> None:
    assert list_gpus()[0].memory_gb == pytest.approx(85.9, abs=0.01)  # 81,920 MiB x 2^20 / 10^9
    assert list_gpus()[0].driver == "580.95.05"


@pytest.mark.parametrize("answer", ["exit 9", "echo 'No devices were found'", "echo"])
@pytest.mark.usefixtures("_two_gpus")
def test_a_driver_that_does_not_answer_is_no_gpu(answer: str, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n")
    assert list_gpus() == []


@pytest.mark.usefixtures("_two_gpus")
def test_an_nvidia_smi_that_takes_too_long_is_not_taken_for_no_gpu(tmp_path: Path) -> None:
    """Nodes without persistence mode take 25 s and more; with 8 s the launcher said `found none`."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(ConfigError, match=r"no answer within 0\.2 s.*nvidia-smi -pm 1"):
        list_gpus(timeout_s=0.2)
    assert inspect.signature(list_gpus).parameters["timeout_s"].default == 60


def test_an_nvidia_smi_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Mock(side_effect=ConfigError("nvidia-smi gave no answer within 60 s.", "Switch on persistence mode."))
    monkeypatch.setattr(machine, "list_gpus", hangs)
    config = OmegaConf.create({"trainer": {"device": "cuda"}})  # every other check fails for want of its settings
    checks = {check.name: check for check in run_checks(config, config_only=True)}
    assert hangs.call_count == 1
    assert checks["GPUs"].found == "nvidia-smi gave no answer within 60 s."
    assert (checks["platform"].status, checks["estimate"].status) == ("warn", "warn")


def make_config(trainer: int, judge: int = 0, nodes: int = 1, cpus: int | None = None, device: str = "cuda") -> Any:
    pool = {"enable": judge > 0, "enable_resource_pool": True, "n_gpus_per_node": judge, "nnodes": 1}
    return OmegaConf.create(
        {
            "trainer": {"n_gpus_per_node": trainer, "nnodes": nodes, "device": device},
            "reward": {"reward_model": pool},
            "medix": {"scorer": {"judge": {"urls": ["http://judge.example:8000"]}}},
            "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 8}}},
            "ray_kwargs": {"ray_init": {"num_cpus": cpus}},
        }
    )


EIGHT = [Gpu("NVIDIA H100", 85.5)] * 8


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_gpus_are_counted_for_trainer_and_judge() -> None:
    assert check_gpus(make_config(6, 2), EIGHT) == "8 x NVIDIA H100 (86 GB); 6 to train and 2 for the judge"
    assert check_gpus(make_config(1, device="cpu"), []) == "none needed: cpu"
    with pytest.raises(ConfigError, match=r"9 NVIDIA GPU\(s\), 8 to train and 1 for the judge; nvidia-smi lists 8"):
        check_gpus(make_config(8, 1), EIGHT)
    with pytest.raises(ConfigError, match="make demo"):
        check_gpus(make_config(8), [])


@pytest.mark.parametrize("check", [lambda config: check_gpus(config, EIGHT), check_cpus], ids=["GPUs", "CPUs"])
def test_other_nodes_can_not_be_counted_from_here(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for config in (make_config(8, nodes=2), make_config(8)):
        found = check(config)
        assert isinstance(found, Check)
        assert found.status == "warn"
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")


@pytest.mark.parametrize(("ray", "process", "refused"), [(33, 1, False), (32, 64, True)])
def test_cpus_are_counted_as_ray_counts_them(
    ray: int, process: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """33 are needed. A container's quota binds Ray; the cores that this process may use do not."""
    monkeypatch.setattr("ray._private.utils.get_num_cpus", lambda **options: ray)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(process)))
    found = run_check("CPUs", lambda: check_cpus(make_config(8)))
    assert (found.status, f"{ray}" in found.found) == ("fail" if refused else "pass", True)


@pytest.mark.parametrize(("trainer", "judge", "needed"), [(8, 0, 33), (6, 2, 33), (1, 0, 12)])
def test_cpus_that_ray_will_reserve(trainer: int, judge: int, needed: int) -> None:
    """3 x slots + 8 storage units + 1 controller."""
    found = check_cpus(make_config(trainer, judge, cpus=needed))
    assert isinstance(found, str)
    assert found.startswith(f"{needed} for Ray, {needed} reserved")
    with pytest.raises(ConfigError, match=f"num_cpus={needed}"):
        check_cpus(make_config(trainer, judge, cpus=needed - 1))


def test_memory_that_others_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [*EIGHT[:6], Gpu("NVIDIA H100", 85.5, 41.2), Gpu("NVIDIA H100", 85.5, 1.5)]
    with pytest.raises(ConfigError, match=r"\(GPU 6: 41 GB\).*CUDA_VISIBLE_DEVICES"):
        check_gpus(make_config(6, 2), busy)
    config = make_config(8)
    config.medix.scorer.judge.urls = ["http://127.0.0.1:8000"]  # JUDGE=local: its judge is the one that holds it
    assert "8 to train" in str(check_gpus(config, busy))


SOUND = {"failed": {}, "cuda": "13.0", "available": True, "devices": 8, "platform": "cuda"}
MACHINES: dict[str, tuple[dict[str, Any], str, str]] = {
    "as it should be": ({}, "580.95.05", "pass"),
    "a driver of CUDA 12.8": ({"available": False, "devices": 0}, "570.86.10", "cuda-compat-13-0"),
    "torch of CUDA 12 on it": ({"cuda": "12.8"}, "570.86.10", "pass"),
    "a driver that does not start": ({"available": False}, "580.95.05", "torch.cuda.init"),
    "a card that fell off": ({"devices": 7}, "580.95.05", "torch.cuda.init"),
    "a torch for CPUs": ({"cuda": None, "available": False, "devices": 0}, "580.95.05", "torch.cuda.init"),
    "veRL's platform is another": ({"platform": "npu"}, "580.95.05", "VERL_PLATFORM"),
}


@pytest.mark.parametrize("case", MACHINES)
def test_a_driver_too_old_for_torchs_cuda_is_told(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """veRL itself says `cuda` beside a torch that sees no GPU."""
    changes, driver, expected = MACHINES[case]
    monkeypatch.setattr(machine, "entry_modules", lambda config: ("json",))
    monkeypatch.setattr(machine, "probe", lambda modules: SOUND | changes)
    gpus = [Gpu("NVIDIA H100", 85.5, 0.0, driver)] * 8
    found = run_check("platform", lambda: machine.check_driver(make_config(8), gpus))
    assert expected in (found.status, *found.remedy.split(), found.remedy) or expected in found.remedy
    assert (found.status == "pass") == (expected == "pass")


@pytest.mark.slow  # the child process imports torch and veRL
@pytest.mark.timeout(600)
def test_a_module_that_can_not_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """TransferQueue was missing from the GPU extra: every version was right, and the run died after the downloads."""
    monkeypatch.setattr(machine, "entry_modules", lambda config: ("json", "transfer_queue_that_is_missing"))
    with pytest.raises(ConfigError, match=r"transfer_queue_that_is_missing: ModuleNotFoundError.*setup_gpu\.sh"):
        machine.check_imports(make_config(8))
    assert "json" not in machine.probe(("json",))["failed"]


def model_config(model: str, device: str = "cuda", packed: bool = True, attention: str = "") -> Any:
    override = {"attn_implementation": attention} if attention else {}
    return OmegaConf.create(
        {
            "trainer": {"device": device, "v1": {"sampler": {"custom_sampler": {"path": "pkg://a.sampler"}}}},
            "data": {"custom_cls": {"path": "mine.py"}},
            "reward": {"reward_manager": {"module": {"path": "pkg://a.manager"}}},
            "actor_rollout_ref": {
                "model": {"path": model, "use_remove_padding": packed, "override_config": override},
                "actor": {"optim": {"optimizer_impl": "torchao.optim"}},
            },
        }
    )


@pytest.mark.parametrize(
    ("model", "settings", "needed"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", {}, True),
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"attention": "sdpa"}, True),  # veRL's packed path calls it all the same
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"attention": "sdpa", "packed": False}, False),
        ("Qwen/Qwen3-VL-8B-Instruct", {}, True),
        ("Qwen/Qwen3-VL-8B-Instruct", {"attention": "sdpa"}, False),
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"device": "cpu"}, False),
    ],
)
def test_the_run_imports_flash_attn_where_its_model_needs_it(
    model: str, settings: dict[str, Any], needed: bool
) -> None:
    modules = machine.entry_modules(model_config(model, **settings))
    assert ("flash_attn_2_cuda" in modules) == needed
    assert {"transfer_queue", "verl.trainer.main_ppo", "a.sampler", "a.manager", "torchao.optim"} <= set(modules)


def test_a_containers_small_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = SimpleNamespace(total=64 * 2**20)  # docker's default
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (1_048_576, 1_048_576))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"has 0\.07 GB.*--shm-size=10g"):
        machine.check_limits(make_config(8), tmp_path)
    usage.total = 16 * 2**30
    assert "17 GB" in str(machine.check_limits(make_config(8), tmp_path))


@pytest.mark.parametrize(("soft", "hard", "status"), [(1024, 4096, "fail"), (1024, 2**20, "warn"), (2**20, -1, "pass")])
def test_few_open_files_are_told(soft: int, hard: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(total=16 * 2**30))
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (soft, hard))
    found = run_check("limits", lambda: machine.check_limits(make_config(8)))
    assert (found.status, "nofile" in found.remedy or "ulimit -n" in found.remedy) == (status, status != "pass")


@pytest.mark.parametrize(
    ("files", "expected"),
    [({"memory.max": "8000000000\n"}, 8.0), ({"memory.max": "max\n"}, 500.0), ({}, 500.0),
     ({"memory/memory.limit_in_bytes": "4000000000"}, 4.0), ({"memory.max": "900000000000"}, 500.0)],
)  # fmt: skip
def test_a_containers_memory_is_its_cgroups(
    files: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=500e9))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.memory_limit_gb(tmp_path) == expected


@pytest.mark.parametrize(
    ("environment", "netrc", "status"),
    [
        ({}, "", "fail"), ({"WANDB_API_KEY": "k"}, "", "pass"), ({"WANDB_MODE": "offline"}, "", "pass"),
        ({}, "machine api.wandb.ai login user password k\n", "pass"),
        ({"WANDB_BASE_URL": "https://wandb.lab:8080/"}, "machine api.wandb.ai login user password k\n", "fail"),
    ],
)  # fmt: skip
def test_a_missing_key_of_wandb_is_told_before_the_engines_start(
    environment: dict[str, str], netrc: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    config = OmegaConf.create({"trainer": {"logger": ["console", "file", "wandb"]}})
    found = run_check("trackers", lambda: machine.check_trackers(config, {"HOME": str(tmp_path), **environment}))
    assert (found.status, "wandb login" in found.remedy) == (status, status == "fail")


RESPONSE = httpx.Response(403, request=httpx.Request("GET", "http://hub"))


@pytest.mark.parametrize(
    ("error", "status", "remedy"),
    [
        (None, "pass", ""),
        (GatedRepoError("no", response=RESPONSE), "fail", "Accept its terms"),
        (RepositoryNotFoundError("no", response=RESPONSE), "fail", "Correct"),
        (httpx.ConnectError("Name or service not known"), "warn", "FOLDER"),
    ],
)
def test_a_gated_or_missing_model_is_told_before_the_downloads(
    error: Exception | None, status: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": "lab/gated-policy"}},
            "reward": {"reward_model": {"enable": True, "model_path": "lab/judge"}},
            "medix": {"scorer": {"embedder": {"kind": "sentence_transformers", "model": "lab/embedder"}}},
        }
    )
    assert models_of(config) == {"lab/gated-policy": "MODEL", "lab/judge": "JUDGE_MODEL", "lab/embedder": "EMBEDDER"}
    hub = Mock(side_effect=error)  # stands in for the hub
    monkeypatch.setattr("huggingface_hub.HfApi.auth_check", hub)
    found = run_check("models", lambda: check_hub_models(config))
    assert found.status == status
    assert remedy in found.remedy
