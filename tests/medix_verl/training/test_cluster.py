"""What `medix train` starts on one node and on several, and what it hands to the workers of other nodes."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError
from medix_verl.training.cluster import entry_point, handed_over, own_ray_environment


@pytest.mark.parametrize(
    ("nnodes", "address", "module"),
    [
        (1, "", "verl.trainer.main_ppo"),
        (1, "10.0.0.1:6379", "medix_verl.plugins.cluster_ppo"),
        (2, "10.0.0.1:6379", "medix_verl.plugins.cluster_ppo"),
        (2, "", None),
    ],
)
def test_the_entry_point(nnodes: int, address: str, module: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    config = OmegaConf.create({"trainer": {"nnodes": nnodes}})
    if module is not None:
        assert entry_point(config) == module
        return
    with pytest.raises(ConfigError, match=r"trainer\.nnodes is 2.*ray_cluster\.sh"):
        entry_point(config)


def test_what_is_handed_over() -> None:
    over = {"VERL_FILE_LOGGER_PATH", "MEDIX_RUN_MARK", "TOKENIZERS_PARALLELISM", "WANDB_MODE", "PYTHONSAFEPATH"}
    secret = {"WANDB_API_KEY", "HF_TOKEN", "MEDIX_JUDGE_SECRET", "OPENAI_API_KEY"}
    of_one_node = {"NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "VLLM_HOST_IP", "PATH"}
    assert handed_over(dict.fromkeys(over | secret | of_one_node, "x")).keys() == over


def test_a_ray_of_the_runs_own_asks_for_a_token_that_no_other_run_has() -> None:
    first, second = own_ray_environment({}), own_ray_environment({})
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first != second
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):  # a cluster's authentication is left alone
        assert own_ray_environment({name: "x"}) == {}
