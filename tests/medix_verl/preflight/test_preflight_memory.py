"""The memory estimate, with its arithmetic, for two models of the recipes; and sizes against published counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from medix.errors import ConfigError, DataError
from medix_verl.preflight.memory import (
    check_host_memory,
    check_judge_memory,
    check_memory,
    host_memory,
    mean_pixels,
    read_plan,
)
from medix_verl.preflight.memory_estimate import (
    RolloutPlan,
    TrainingPlan,
    host_start_gb,
    host_step_gb,
    pixels_gb,
    rollout_phase,
    training_phases,
)
from medix_verl.preflight.model import KNOWN_MODELS, ModelShape, shape_of

QWEN_7B, QWEN_3B = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"

PUBLISHED = {
    QWEN_3B: 3_754_622_976,
    QWEN_7B: 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": 31_070_754_032,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
}
"""The numbers of elements in the released weights."""


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_a_configuration_gives_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert known(name).parameters == parameters


def known(name: str) -> ModelShape:
    shape = shape_of(name)
    assert shape is not None
    return shape


def test_a_folder_is_read_and_a_foreign_family_refused(tmp_path: Path) -> None:
    assert shape_of(str(tmp_path)) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="can not be read"):
        shape_of(str(tmp_path))


@pytest.mark.timeout(600)
@pytest.mark.slow  # torch and transformers are imported in a child process
def test_the_known_models_are_what_their_classes_give(tmp_path: Path) -> None:
    """Every parameter of every model, and a folder that is read in a child process."""
    from transformers import AutoConfig

    from medix_verl.preflight.model import measure

    known_models = json.loads(KNOWN_MODELS.read_text())
    for name, entry in known_models.items():
        assert measure(AutoConfig.for_model(**entry["config"])) == entry["shape"], name
    (tmp_path / "config.json").write_text(json.dumps(known_models[QWEN_3B]["config"]))
    assert shape_of(str(tmp_path)) == known(QWEN_3B)
    (tmp_path / "config.json").write_text('{"model_type": "mamba_of_tomorrow"}')
    with pytest.raises(ConfigError, match="transformers can not build"):
        shape_of(str(tmp_path))


def seven_b_on_eight() -> TrainingPlan:
    """The released setting: fp32 master weights, all offloaded; 16,896 tokens an update, twice that a log-prob pass."""
    return TrainingPlan(
        known(QWEN_7B), gpus=8, update_tokens=16_896, log_prob_tokens=33_792, image_share=4352 / 8448,
        param_offload=True, optimizer_offload=True,
    )  # fmt: skip


def test_qwen_7b_on_eight_cards_of_80_gb() -> None:
    phases = training_phases(seven_b_on_eight())
    update = phases["update"]
    # 8.292e9 parameters x 4 bytes / 8 GPUs = 4.146 GB; the gradients are as many; Adam has two of them.
    assert update["weights"] == update["gradients"] == pytest.approx(4.146, abs=0.001)
    # veRL has it on the card from the first micro-batch on, though it is offloaded between the updates.
    assert update["optimizer"] == pytest.approx(8.292, abs=0.001)
    assert "optimizer" not in phases["log-probs"]
    # At the loss, in bf16: the vision tower outside its blocks 46,083,328 (patches, merger), 152,064 x 3584 of lm_head.
    assert update["gathered layers"] == pytest.approx(2 * (0.0461 + 0.5450), abs=0.001)
    # Kept: 2 x 16,896 x 3584 x 28 = 3.391 GB of tokens, and patches 4 x 16,896 x 4352 / 8448 = 34,816, each
    # 2 x 1280 x 32 bytes = 2.852 GB.
    assert update["activations"] == pytest.approx(3.391 + 2.852, abs=0.002)
    # 2 copies x 2 bytes x 16,896 x 152,064 = 10.277 GB; 3 copies x 2 bytes x 33,792 x 152,064 = 30.831 GB.
    assert update["logits"] == pytest.approx(10.277, abs=0.001)
    assert phases["log-probs"]["logits"] == pytest.approx(30.831, abs=0.001)
    # 4 x 4.146 + 1.182 + 6.243 + 10.277 + 2 = 36.29
    assert sum(update.values()) == pytest.approx(36.29, abs=0.01)


def test_with_few_logits_the_largest_moment_is_in_a_layer() -> None:
    shape = dataclasses.replace(known(QWEN_7B), vocabulary=1000)
    update = training_phases(dataclasses.replace(seven_b_on_eight(), shape=shape))["update"]
    # A layer: attention 2 x 3584 x 3584 + 2 x 3584 x 512 + 4608 biases, feed-forward 3 x 3584 x 18944, norms 2 x 3584
    # = 233,057,792. Two in bf16, the gradients of one in bf16 and fp32, and what is outside the vision tower's blocks.
    assert update["gathered layers"] == pytest.approx(0.2331 * (4 + 6) + 2 * 0.0461 * 2, abs=0.001)
    # One layer again: 2 x 16,896 x (12 x 3584 + 4 x 18,944) = 4.014 GB.
    assert update["activations"] == pytest.approx(3.391 + 2.852 + 4.014, abs=0.002)
    assert "logits" not in update


def test_the_7b_model_beside_vllm() -> None:
    rollout = RolloutPlan(known(QWEN_7B), 0.6, 2, 8448)
    assert sum(rollout_phase(seven_b_on_eight(), rollout, 80.0).values()) == 50.0  # 0.6 x 80 + 2, all else offloaded
    assert rollout.weights_gb() == pytest.approx(8.292, abs=0.001)  # 2 bytes x 8.292e9 / 2
    # Keys and values: 2 x 4 heads x 128 elements x 28 layers x 2 bytes = 57,344 bytes a token, over two GPUs;
    # x 8448 / 2 = 0.2422 GB a sequence. 48 - 8.292 - 1 = 38.71 GB hold 159.8 of them.
    assert rollout.sequence_gb() == pytest.approx(0.2422, abs=0.0001)
    assert rollout.cache_gb(80.0) / rollout.sequence_gb() == pytest.approx(159.8, abs=0.1)


def test_pinned_memory_is_rounded_up_to_powers_of_two() -> None:
    """Two ranks: 5 rows of 3 are 3 and 2 rows, 36 and 24 bytes in fp32, pinned as 64 and 32."""
    shape = dataclasses.replace(known(QWEN_3B), tensors=((2, 5, 3),))
    plan = TrainingPlan(shape, 2, 1, 1, 0.5, param_offload=True)
    assert host_step_gb(plan, 2) == 2 * 96 / 1e9
    assert host_step_gb(plan, 1) == 96 / 1e9  # on two nodes of one card
    assert host_step_gb(dataclasses.replace(plan, optimizer_offload=True), 2) == 3 * 2 * 96 / 1e9


@pytest.mark.parametrize(
    ("name", "size", "start", "step"),
    [
        # Six trainers. Of a tied model every rank loads all: 6 x 4 x 3.75e9. Else rank 0 alone does: 4 x 8.29e9.
        (QWEN_3B, 4, 90, 55),
        (QWEN_7B, 4, 33, 152),  # 100 before rounding
        ("Qwen/Qwen3-VL-8B-Instruct", 4, 35, 139),  # 105
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", 2, 62, 336),  # 186: 22 of 128 experts are just over 2^27 bytes
    ],
)
def test_main_memory_of_the_recipes(name: str, size: int, start: int, step: int) -> None:
    plan = TrainingPlan(known(name), 6, 1, 1, 0.5, trained_bytes=size, param_offload=True, optimizer_offload=True)
    assert (round(host_start_gb(plan, 6)), round(host_step_gb(plan, 6))) == (start, step)


def test_pixels_of_every_response_wait_in_main_memory(tmp_path: Path, make_config: Any) -> None:
    """512 x 5 responses x 1,000,000 pixels x 3 bytes = 7.68 GB; the manifest's bins count by their middle."""
    assert pixels_gb(2560, 1e6) == pytest.approx(7.68)
    train = {"rows": 4, "pixels": {"histogram": {"<= 65536": 1, "<= 1048576": 2}}}  # one row has no image
    (tmp_path / "manifest.json").write_text(json.dumps({"splits": {"train": train}}))
    config = make_config({"data.train_files": str(tmp_path / "train.parquet")})
    # 32,768 is enlarged to min_pixels = 262,144; 2 x 524,288.
    OmegaConf.update(config, "medix.prepare", {"min_pixels": 262_144, "max_pixels": 3_145_728})
    assert mean_pixels(config) == ((262_144 + 2 * 524_288) / 4, "from manifest.json")
    _, parts = host_memory(config, read_plan(config)[0])  # type: ignore[arg-type]
    assert parts.endswith("188 offloaded + 3 of pixels (from manifest.json)")  # 2,560 x 327,680 x 3 = 2.5 GB


def test_qwen_3b_with_adapters_on_one_card_of_24_gb() -> None:
    plan = TrainingPlan(
        known(QWEN_3B), gpus=1, update_tokens=4096, log_prob_tokens=4096, image_share=0.5, trained_bytes=2,
        lora_rank=64, param_offload=True, optimizer_offload=True,
    )  # fmt: skip
    # Rank 64 on every linear map of a layer: query and output 2 x (2048 + 2048), key and value 2 x (2048 + 256),
    # feed-forward 3 x (2048 + 11,008) = 51,968; x 64 x 36 layers = 119,734,272.
    assert plan.trainable == 119_734_272
    phases = training_phases(plan)
    update = phases["update"]
    assert update["weights"] == pytest.approx(2 * (3.7546 + 0.1197), abs=0.001)  # bf16, on one GPU: 7.749
    assert update["gradients"] == pytest.approx(2 * 0.1197, abs=0.001)
    assert update["optimizer"] == pytest.approx(4 * 0.1197, abs=0.001)
    # The tied embedding 151,936 x 2048 = 311,164,928, outside the vision tower's blocks 38,215,936, a layer 77,076,992.
    assert update["gathered layers"] == pytest.approx(2 * (0.31117 + 0.03822 + 0.07708), abs=0.001)
    assert update["logits"] == pytest.approx(2.489, abs=0.001)  # 2 x 2 x 4096 x 151,936
    assert sum(update.values()) < 24 * 0.9
    assert sum(rollout_phase(plan, RolloutPlan(known(QWEN_3B), 0.6, 1, 4096), 24.0).values()) == pytest.approx(16.4)


def test_without_checkpointing_every_layer_is_kept() -> None:
    base = {"shape": known(QWEN_3B), "gpus": 1, "update_tokens": 1000, "log_prob_tokens": 1000, "image_share": 0.0}
    kept = training_phases(TrainingPlan(**base, checkpointing=False))["update"]["activations"]
    # 36 layers x 2 x 1000 x (12 x 2048 + 4 x 11,008) = 4.939 GB, instead of 2 x 1000 x 2048 x 36 = 0.147.
    assert kept == pytest.approx(4.939, abs=0.001)
    # With checkpointing one of these, 0.137, is redone.
    assert training_phases(TrainingPlan(**base))["update"]["activations"] == pytest.approx(0.147 + 0.137, abs=0.001)


ENGINE, ROLLOUT = "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.rollout"
CASES: dict[str, tuple[dict[str, Any], float | None, str, str]] = {
    "as released, 80 GB": ({}, 80.0, "pass", ""),
    "as released, 40 GB: 30.8 GB of logits": ({}, 40.0, "fail", "log_prob_max_token_len_per_gpu"),
    "80 GB, optimizer and weights resident: 48 + 2 + 4.1 + 8.3": (
        {f"{ENGINE}.param_offload": False, f"{ENGINE}.optimizer_offload": False}, 80.0, "pass", "",
    ),
    "the same with 0.8 of the card for vLLM: 64 + 14.4 of 80": (
        {
            f"{ENGINE}.param_offload": False, f"{ENGINE}.optimizer_offload": False,
            f"{ROLLOUT}.gpu_memory_utilization": 0.8,
        },
        80.0, "warn", "gpu_memory_utilization",
    ),
    "80 GB, 0.9 for vLLM beside a resident reference: 72 + 2 + 2.1": (
        {
            "actor_rollout_ref.actor.use_kl_loss": True, "actor_rollout_ref.ref.fsdp_config.param_offload": False,
            f"{ROLLOUT}.gpu_memory_utilization": 0.9,
        },
        80.0, "warn", "gpu_memory_utilization",
    ),
    "one card: 12 bytes x 8.3 B": (
        {"trainer.n_gpus_per_node": 1, f"{ROLLOUT}.tensor_model_parallel_size": 1}, 80.0, "fail", "LORA_RANK",
    ),
    "a cache for fewer than one sequence": ({f"{ROLLOUT}.gpu_memory_utilization": 0.11}, 80.0, "fail", "max_model_len"),
    "a cache for a few": ({f"{ROLLOUT}.gpu_memory_utilization": 0.13}, 80.0, "warn", "slow"),
    "no card here": ({}, None, "warn", "--gpu-memory-gb"),
    "an unknown model": ({"actor_rollout_ref.model.path": "some/model"}, 80.0, "warn", "Download"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "card", "status", "remedy"), CASES.values(), ids=CASES.keys())
def test_the_check(changes: dict[str, Any], card: float | None, status: str, remedy: str, make_config: Any) -> None:
    found = check_memory(make_config(changes), card)
    assert found.status == status, found.found
    assert remedy in found.remedy


def test_the_found_text_has_the_parts(make_config: Any) -> None:
    found = check_memory(make_config(), 80.0).found
    assert "8.3 B parameters; estimated: rollout 50.0 GB (vLLM 48.0, context 2.0), update 36.3" in found
    assert "159.8 sequences of 8448 tokens" in found


@pytest.mark.parametrize(
    ("urls", "enable", "said"),
    [
        (["http://127.0.0.1:8085"], False, True),  # JUDGE=local: its share is the launcher's JUDGE_MEMORY
        (["http://judge.example:8000", "http://localhost:8001/v1"], False, True),
        (["http://10.0.0.7:8000"], False, False),
        ([], True, False),  # colocated: on cards of its own
    ],
)
def test_a_judge_on_the_trainers_cards_is_said_not_to_be_counted(
    urls: list[str], enable: bool, said: bool, make_config: Any
) -> None:
    config = make_config({"medix.scorer.judge.urls": urls, "reward.reward_model.enable": enable})
    assert ("JUDGE=local" in check_memory(config, 80.0).found) == said


def test_a_judge_must_fit_its_own_cards(make_config: Any) -> None:
    # Weights 2 x 4.022e9 / 2 GPUs = 4.0 GB; 0.85 x 80 - 4.0 - 1 = 63.0 GB; a sequence: 2 x 8 heads x 128 x 36 layers
    # x 2 bytes x 8192 / 2 = 0.604 GB.
    assert check_judge_memory(make_config(), 80.0) == (
        "weights 4.0 GB of 85% of 80 GB; its cache holds 104 sequences of 8192 tokens"
    )
    with pytest.raises(ConfigError, match="smaller judge"):
        check_judge_memory(make_config(), 6.0)


@pytest.mark.parametrize(("total", "status"), [(1000.0, "pass"), (200.0, "warn"), (64.0, "fail")])
def test_offloaded_parts_need_main_memory(total: float, status: str, make_config: Any) -> None:
    found = check_host_memory(make_config(), total)  # 188 GB on eight cards, and no image sizes are known
    assert (found if isinstance(found, str) else found.status) == (found if status == "pass" else status)


def test_an_offloaded_reference_needs_main_memory_too(make_config: Any) -> None:
    config = make_config({"actor_rollout_ref.actor.use_kl_loss": True})
    assert "220 offloaded" in str(check_host_memory(config, 1000.0))  # 188, and a sixth of it in bf16: half of a third
    OmegaConf.update(config, "actor_rollout_ref.model.lora_rank", 16)  # adapters switched off are the reference
    assert "63 offloaded" in str(check_host_memory(config, 1000.0))  # the base, and 12 x 40.4e6
