"""What is changed in the running veRL: micro-batches without images, pictures as levels, errors that name a sample."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medix.processes import child_environment

pytestmark = pytest.mark.slow  # imports torch, veRL and transformers

MODEL = """
import json, sys
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
import verl
from verl.models.transformers.monkey_patch import apply_monkey_patch

family, mixed = sys.argv[1], sys.argv[2] == "mixed"
vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2,
          "temporal_patch_size": 2, "intermediate_size": 64, "out_hidden_size": 32}
text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 64, "head_dim": 16}
rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
if family == "qwen3_vl":
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    rope["mrope_interleaved"] = True
else:
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
ids = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
torch.manual_seed(0)
config = AutoConfig.for_model(family, vision_config=vision, text_config=text | {"rope_parameters": rope}, **ids)
model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa").float()
apply_monkey_patch(model=model, use_remove_padding=False, ulysses_sp_size=1)
"""

# Forward and backward of veRL's own patched model, as its FSDP engine calls it, on a micro-batch of two sequences.
FAMILY = """
tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 62, 60, 60, 60, 60, 63, 10]])
pixels = {}
if mixed:
    size = 3 * 2 * config.vision_config.patch_size ** 2
    pixels = {"pixel_values": torch.rand(16, size), "image_grid_thw": torch.tensor([[1, 4, 4]])}
else:
    tokens = tokens[:1]
positions = torch.arange(8).expand(4, len(tokens), 8)
out = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), position_ids=positions, use_cache=False, **pixels)
out.logits.logsumexp(-1).sum().backward()
with torch.no_grad():
    plain = model.lm_head(model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(tokens[:1]), position_ids=positions[:, :1],
        attention_mask=torch.ones_like(tokens[:1])).last_hidden_state)
tower = [parameter.grad for parameter in model.model.visual.parameters()]
print("found:" + json.dumps({
    "finite": bool(out.logits.isfinite().all()),
    "text is untouched": bool(torch.allclose(out.logits[:1], plain, atol=1e-5)),
    "the tower took part": all(grad is not None for grad in tower),
    "the tower learns": any(grad is not None and bool((grad != 0).any()) for grad in tower)}))
"""


# The same two sequences, each alone and both packed into one row without a mask, as `use_remove_padding` has it.
# flash-attn's kernel has a stand-in that counts its calls; "packed, no kernel" does without.
PACKED = """
from verl.models.transformers import qwen2_vl

rows = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [9, 62, 60, 60, 60, 60, 63, 10]])
size = 3 * 2 * config.vision_config.patch_size ** 2
pixels = {"pixel_values": torch.rand(16, size), "image_grid_thw": torch.tensor([[1, 4, 4]])}
calls = []

def kernel(q, k, v, cu_seqlens_q, causal, **_):
    calls.append(len(cu_seqlens_q) - 1)
    ends = cu_seqlens_q.tolist()
    parts = [[x[a:b].transpose(0, 1)[None] for x in (q, k, v)] for a, b in zip(ends, ends[1:])]
    attend = torch.nn.functional.scaled_dot_product_attention
    return torch.cat([attend(*part, is_causal=causal)[0].transpose(0, 1) for part in parts])

def run(tokens, positions, pixels):
    out = model(input_ids=tokens, attention_mask=None, position_ids=positions.expand(4, 1, -1), use_cache=False,
                **pixels)
    return out.logits

def gradients(logits):
    model.zero_grad()
    logits.logsumexp(-1).sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]

one = torch.arange(8)
alone = torch.cat([run(rows[:1], one, {}), run(rows[1:], one, pixels)], dim=1)
wanted = gradients(alone)
apply_monkey_patch(model=model, use_remove_padding=True, ulysses_sp_size=1)
if sys.argv[2] == "packed":
    qwen2_vl.flash_attn_varlen_func = kernel
    qwen2_vl._flash_supports_window_size = qwen2_vl._flash_supports_deterministic = False
    qwen2_vl._flash_use_top_left_mask = False
    qwen2_vl.fa_peft_integration_check = lambda *qkv, **_: qkv  # else it casts to bf16
packed = run(rows.reshape(1, 16), torch.cat([one, one]), pixels)
same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients(packed), wanted, strict=True)]
found = {"same logits": torch.allclose(packed, alone, atol=1e-5), "same gradients": all(same), "kernel": calls}
if not calls:  # one long sequence: what is found when the rows are not kept apart
    mixed = run(rows.reshape(1, 16), torch.arange(16), pixels)
    found["a mixture would show"] = not torch.allclose(mixed, alone, atol=1e-3)
print("found:" + json.dumps(found))
"""


def run_family(family: str, batch: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "medix_verl.plugins", **environment}
    command = [sys.executable, "-c", MODEL + (PACKED if "packed" in batch else FAMILY), family, batch]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=110)


@pytest.mark.parametrize("batch", ["text only", "mixed"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_micro_batch_passes_forward_and_backward(family: str, batch: str) -> None:
    ran = run_family(family, batch)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("found:")]
    assert lines, ran.stderr[-3000:]
    assert json.loads(lines[0].removeprefix("found:")) == {
        "finite": True,
        "text is untouched": True,
        "the tower took part": True,  # else, with FSDP, ranks that have pictures would wait for this one
        "the tower learns": batch == "mixed",
    }


def test_packed_rows_stay_apart_without_flash_attn_in_qwen3_vl() -> None:
    """Under `attn_implementation=sdpa`: transformers finds the rows by their positions, and no kernel is called."""
    ran = run_family("qwen3_vl", "packed, no kernel")
    assert 'found:{"same logits": true, "same gradients": true, "kernel": [], "a mixture would show": true}' in (
        ran.stdout
    ), ran.stderr[-3000:]


def test_packed_qwen2_5_vl_calls_flash_attn_whatever_attention_is_chosen() -> None:
    ran = run_family("qwen2_5_vl", "packed")
    assert 'found:{"same logits": true, "same gradients": true, "kernel": [2, 2]}' in ran.stdout, ran.stderr[-3000:]
    assert "NameError: name '_flash_" in run_family("qwen2_5_vl", "packed, no kernel").stderr


def test_the_repair_is_still_needed_and_written_against_this_verl() -> None:
    """When this fails, veRL has been updated: look whether `repair_text_only` can go."""
    import verl
    from verl.models.transformers import qwen2_vl

    from medix_verl.plugins import patches

    assert verl.__version__ == patches.VERL
    assert hasattr(qwen2_vl._get_input_embeds, "medix")
    ran = run_family(
        "qwen2_5_vl", "text only", VERL_PLATFORM="", VERL_USE_EXTERNAL_MODULES="", VERL_USE_EXTERNAL_PLUGINS="none"
    )
    assert "AttributeError" in ran.stderr


RAY = """
import json, os
import verl
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
@ray.remote
def path():
    import sys
    return sys.path
print("found:" + json.dumps(os.getcwd() in ray.get(path.remote())))
"""


def test_rays_workers_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    """A `transformers.py` in the folder where `medix train` is typed was imported by every worker."""
    settings = child_environment(VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_MODULES="medix_verl.plugins")
    settings["PYTHONPATH"] = str(Path(__file__).resolve().parents[3])
    command = [sys.executable, "-P", "-c", RAY]
    ran = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert "found:false" in ran.stdout, ran.stderr[-3000:]


def image_processor() -> Any:
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=200 * 200)


def pictures(*shapes: tuple[int, int]) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    return dict(image_processor()(images, return_tensors="pt"))


@pytest.mark.parametrize("shapes", [[(56, 84)], [(28, 28), (140, 112)]], ids=["one picture", "two"])
def test_levels_are_an_eighth_and_give_the_same_numbers(shapes: list[tuple[int, int]]) -> None:
    import torch

    from medix_verl.plugins.pixel_levels import BYTES_A_PIXEL, LEVELS, TABLE, pack, unpack

    inputs = pictures(*shapes)
    packed = pack(inputs, image_processor())
    assert "pixel_values" not in packed
    assert packed[LEVELS].nbytes == inputs["pixel_values"].nbytes / 8
    pixels = int((inputs["image_grid_thw"].prod(dim=1) * 14 * 14).sum())
    assert packed[LEVELS].nbytes == BYTES_A_PIXEL * pixels
    assert packed[TABLE].nbytes == 3 * 256 * 4
    again = unpack(packed)
    assert again.keys() == inputs.keys()
    assert all(torch.equal(again[name], inputs[name]) for name in inputs)


@pytest.mark.parametrize("kind", ["video", "noise", "nothing"])
def test_what_does_not_fit_stays_as_it_is(kind: str) -> None:
    import torch

    from medix_verl.plugins.pixel_levels import pack, unpack

    pixels = pictures((56, 56))["pixel_values"].clone()
    if kind == "video":
        pixels.view(len(pixels), 3, 2, -1)[0, 0, 1, 0] += 1
    inputs = {} if kind == "nothing" else {"pixel_values": torch.rand_like(pixels) if kind == "noise" else pixels}
    assert pack(inputs, image_processor()) is inputs
    assert unpack(inputs) is inputs
    assert unpack(None) is None


def test_verls_own_extraction_reads_levels_beside_text_only_rows() -> None:
    import torch
    from tensordict import NonTensorData
    from verl.utils.model import extract_multi_modal_inputs

    from medix_verl.plugins.pixel_levels import pack

    rows = [pictures((56, 84)), {}, pictures((28, 28))]
    packed = [NonTensorData(pack(row, image_processor())) for row in rows]
    found = extract_multi_modal_inputs(packed)
    assert torch.equal(found["pixel_values"], torch.cat([rows[0]["pixel_values"], rows[2]["pixel_values"]]))
    assert found["image_grid_thw"].tolist() == [[1, 4, 6], [1, 2, 2]]
    assert extract_multi_modal_inputs(packed, [1]) == {}


def test_a_prompts_pictures_are_processed_once_and_stored_without_the_prompt() -> None:
    from types import ModuleType, SimpleNamespace

    from PIL import Image

    from medix_verl.plugins.patches import extend_agent_loop
    from medix_verl.plugins.pixel_levels import LEVELS

    class FakeWorker:
        """What veRL's worker does with a response: compute, score, compute again, store."""

        computed, processor = 0, SimpleNamespace(image_processor=image_processor())

        def _compute_multi_modal_inputs(self, output: Any, input_ids: Any) -> dict[str, Any]:
            self.computed += 1
            return pictures((56, 84)) | {"mm_token_type_ids": [0]}

        async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
            self._compute_multi_modal_inputs(outputs[0], None).pop("mm_token_type_ids")
            outputs[0].reward_score = kwargs["reward"]

        async def _run_agent_loop(self, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
            output = SimpleNamespace(reward_score=None, multi_modal_data=kwargs["media"])
            await self._compute_score([output], kwargs)
            return self._compute_multi_modal_inputs(output, None), kwargs

    module: Any = ModuleType("agent_loop")
    module.AgentLoopWorker = FakeWorker
    extend_agent_loop(module)
    worker = FakeWorker()
    one, other = ({"images": [Image.new("RGB", (8, 8), shade)]} for shade in ("red", "blue"))
    # A response: its pictures, its reward (None: a reward model at the end reads the prompt), computed so far.
    for media, reward, computed in [(one, 0.5, 1), (one, None, 1), (other, 0.5, 2), (None, 0.5, 4)]:
        inputs, stored = asyncio.run(worker._run_agent_loop({}, {}, media=media, reward=reward, raw_prompt=["picture"]))
        assert LEVELS in inputs
        assert "mm_token_type_ids" in inputs  # for the positions, which are computed again
        assert worker.computed == computed
        assert ("raw_prompt" in stored) == (reward is None)


def test_an_error_of_a_rollout_names_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    import transfer_queue
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    told: dict[str, Any] = {}

    async def fake_put(key: str, partition_id: str, tag: dict[str, str]) -> None:
        told[partition_id, key] = tag

    monkeypatch.setattr(transfer_queue, "async_kv_put", fake_put)
    arguments = {"agent_name": "no such agent", "uid": "u1", "extra_info": {"sample_id": "scan-7"}}
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": True}
    with pytest.raises(AssertionError):
        asyncio.run(AgentLoopWorker._run_agent_loop(object(), {}, trajectory, trace=False, **arguments))
    error = told["val", "u1"]["error"]
    assert error.startswith("sample 'scan-7': AssertionError: Agent loop no such agent not registered")
