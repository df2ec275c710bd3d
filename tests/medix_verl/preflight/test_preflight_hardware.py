"""GPUs and CPUs of a machine that is not there: nvidia-smi is a script, the configuration a dictionary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.preflight.check import Check, run_check
from medix_verl.preflight.hardware import Gpu, check_cpus, check_gpus, list_gpus

FAKE_SMI = """#!/bin/sh
cat <<'END'
0, GPU-aaa, NVIDIA A100-SXM4-80GB, 81920
1, GPU-bbb, NVIDIA A100-SXM4-80GB, 81920
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


@pytest.mark.parametrize("answer", ["exit 9", "echo 'No devices were found'", "echo"])
@pytest.mark.usefixtures("_two_gpus")
def test_a_driver_that_does_not_answer_is_no_gpu(answer: str, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n")
    assert list_gpus() == []


def make_config(trainer: int, judge: int = 0, nodes: int = 1, cpus: int | None = None, device: str = "cuda") -> Any:
    pool = {"enable": judge > 0, "enable_resource_pool": True, "n_gpus_per_node": judge, "nnodes": 1}
    return OmegaConf.create(
        {
            "trainer": {"n_gpus_per_node": trainer, "nnodes": nodes, "device": device},
            "reward": {"reward_model": pool},
            "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 8}}},
            "ray_kwargs": {"ray_init": {"num_cpus": cpus}},
        }
    )


EIGHT = [Gpu("NVIDIA H100", 85.5)] * 8


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_enough_gpus_for_trainer_and_judge() -> None:
    assert check_gpus(make_config(6, 2), EIGHT) == "8 x NVIDIA H100 (86 GB); 6 to train and 2 for the judge"


def test_the_judges_own_gpus_count() -> None:
    with pytest.raises(ConfigError, match=r"9 NVIDIA GPU\(s\), 8 to train and 1 for the judge.*found 8"):
        check_gpus(make_config(8, 1), EIGHT)


def test_without_a_gpu_it_says_what_to_run_instead() -> None:
    with pytest.raises(ConfigError, match="make demo"):
        check_gpus(make_config(8), [])


def test_a_cpu_profile_needs_none() -> None:
    assert check_gpus(make_config(1, device="cpu"), []) == "none needed: cpu"


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
