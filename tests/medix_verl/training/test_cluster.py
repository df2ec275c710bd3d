"""What `medix train` starts on one node and on several, and what it hands to the workers of other nodes."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.training.cluster import entry_point, handed_over, own_ray_environment


def config(nnodes: int) -> object:
    return OmegaConf.create({"trainer": {"nnodes": nnodes}})


@pytest.mark.parametrize(
    ("nnodes", "address", "module"),
    [
        (1, "", "verl.trainer.main_ppo"),
        (1, "10.0.0.1:6379", "medix_verl.plugins.cluster_ppo"),
        (2, "10.0.0.1:6379", "medix_verl.plugins.cluster_ppo"),
    ],
)
def test_the_entry_point(nnodes: int, address: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert entry_point(config(nnodes)) == module


def test_several_nodes_need_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"trainer\.nnodes=2.*ray_cluster\.sh"):
        entry_point(config(2))


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("VERL_FILE_LOGGER_PATH", True),
        ("MEDIX_RUN_MARK", True),
        ("TOKENIZERS_PARALLELISM", True),
        ("WANDB_MODE", True),
        ("WANDB_API_KEY", False),
        ("HF_TOKEN", False),
        ("MEDIX_JUDGE_SECRET", False),
        ("NCCL_SOCKET_IFNAME", False),
        ("NCCL_IB_HCA", False),
        ("VLLM_HOST_IP", False),
        ("PATH", False),
        ("OPENAI_API_KEY", False),
    ],
)
def test_what_is_handed_over(name: str, over: bool) -> None:
    assert (name in handed_over({name: "x"})) == over


def test_a_ray_of_the_runs_own_asks_for_a_token_that_no_other_run_has() -> None:
    first, second = own_ray_environment({}), own_ray_environment({})
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first != second


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_AUTH_MODE"])
def test_a_clusters_authentication_is_left_alone(name: str) -> None:
    assert own_ray_environment({name: "x"}) == {}
