"""Checkpoints of tiny models, sharded by torch's own FSDP and saved as veRL saves them: one forked process a rank."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medix_verl.export import pipeline
from medix_verl.export.contract import Checkpoint, WeightProof

from .fake_shards import FakeShard

TEXT = dict(
    vocab_size=203,  # a prime: no number of ranks cuts it evenly
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    bos_token_id=0,
    eos_token_id=1,
    rope_parameters={"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4},
)
VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=32, patch_size=14)
DEEP = VISION | dict(deepstack_visual_indexes=[0, 1], num_position_embeddings=16)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, decoder_sparse_step=1)
FAMILIES = {
    "qwen2_5_vl": ("Qwen2_5_VL", TEXT, VISION | dict(fullatt_block_indexes=[1])),
    "qwen3_vl": ("Qwen3VL", TEXT, DEEP),
    "qwen3_vl_moe": ("Qwen3VLMoe", TEXT | EXPERTS, DEEP),
}


@dataclass(frozen=True)
class Recipe:
    """What to build. `strategy` is fsdp1, fsdp2 or plain; `fsdp_size` below `world` makes an HSDP mesh."""

    family: str = "qwen2_5_vl"
    tied: bool = False
    world: int = 2
    fsdp_size: int = 0
    strategy: str = "fsdp2"
    lora: bool = False
    dtype: str = "float32"
    seed: int = 0
    step: int = 5

    @property
    def name(self) -> str:
        return "-".join(str(value) for value in vars(self).values())


def live_model(recipe: Recipe) -> Any:
    """The model before it is sharded: every weight its own random numbers, the same for one seed."""
    import torch
    import transformers

    name, text, vision = FAMILIES[recipe.family]
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
    config.tie_word_embeddings, config.dtype = recipe.tied, recipe.dtype
    torch.manual_seed(recipe.seed)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).to(getattr(torch, recipe.dtype))
    if recipe.lora:
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", bias="none")
        model = get_peft_model(model, settings)
        model.to(getattr(torch, recipe.dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.02)
    return model


def _save_rank(recipe: Recipe, rank: int, actor: Path, rendezvous: Path) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    world = recipe.world
    if recipe.strategy == "fsdp1":
        store = distributed.FileStore(str(rendezvous), world)
        distributed.init_process_group("gloo", rank=rank, world_size=world, store=store)
    else:
        from torch.testing._internal.distributed.fake_pg import FakeStore

        # FSDP2 cuts its parameters without asking other ranks, so a group that answers nothing will do.
        distributed.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    model = live_model(recipe)
    config = (model.get_base_model() if recipe.lora else model).config
    state, optimizer = _sharded(recipe, model)
    name = f"world_size_{world}_rank_{rank}.pt"
    torch.save(state, f"{actor}/model_{name}")
    torch.save(optimizer.state_dict(), f"{actor}/optim_{name}")
    scheduler = {"base_lrs": [0.0], "last_epoch": recipe.step, "_step_count": recipe.step + 1}
    torch.save({"lr_scheduler": scheduler, "rng": {"cpu": torch.get_rng_state()}}, f"{actor}/extra_state_{name}")
    if rank == 0:
        config.architectures = [type(model.get_base_model() if recipe.lora else model).__name__.removeprefix("FSDP")]
        config.save_pretrained(actor / "huggingface")
        version = 1 if recipe.strategy == "fsdp1" else 2
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": version, "world_size": world}))
        if recipe.lora:
            meta = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"}
            (actor / "lora_train_meta.json").write_text(json.dumps(meta))


def _sharded(recipe: Recipe, model: Any) -> tuple[dict[str, Any], Any]:
    """The rank's state dict, and an optimizer that has made `step` updates that change nothing (lr 0)."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, StateDictType, fully_shard

    world, size = recipe.world, recipe.fsdp_size or recipe.world
    if size == world:
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
    else:
        mesh = init_device_mesh("cpu", (world // size, size), mesh_dim_names=("ddp", "fsdp"))
    if recipe.strategy == "fsdp1":
        plain = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))], lr=0.0)
        strategy = ShardingStrategy.FULL_SHARD if size == world else ShardingStrategy.HYBRID_SHARD
        wrapped = FullyShardedDataParallel(
            model, sharding_strategy=strategy, device_mesh=mesh, device_id=torch.device("cpu"), use_orig_params=True
        )
        with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.SHARDED_STATE_DICT):
            state = wrapped.state_dict()
    elif recipe.strategy == "fsdp2":
        base = model.get_base_model() if recipe.lora else model
        for layer in [*base.model.language_model.layers, *base.model.visual.blocks]:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        state = model.state_dict()
        plain = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad][:2], lr=0.0)
    else:
        state, plain = model.state_dict(), torch.optim.AdamW(list(model.parameters())[:2], lr=0.0)
    for group in plain.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    for _ in range(recipe.step):
        plain.step()
    return state, plain


def save_sharded(recipe: Recipe, actor: Path) -> Path:
    """Fork one process a rank; each saves its shard into `actor`."""
    _import_all(recipe)
    (actor / "huggingface").mkdir(parents=True)
    rendezvous = actor.parent / "rendezvous"
    children = []
    for rank in range(recipe.world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _save_rank(recipe, rank, actor, rendezvous)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    try:
        codes = [os.waitpid(child, 0)[1] for child in children]
    except BaseException:  # A time-out must not leave ranks behind.
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        raise
    assert codes == [0] * recipe.world, codes
    rendezvous.unlink(missing_ok=True)
    return actor


def _import_all(recipe: Recipe) -> None:
    """What the ranks need, imported once, before the forks: it takes longer than all else."""
    import torch
    import torch.distributed.device_mesh
    import torch.distributed.fsdp
    import torch.testing._internal.distributed.fake_pg
    import transformers

    torch.set_num_threads(1)
    for kind in ("Config", "ForConditionalGeneration"):
        getattr(transformers, FAMILIES[recipe.family][0] + kind)
    if recipe.lora:
        import peft  # noqa: F401


def fake_weights(checkpoint: Checkpoint, target: Path, **how: Any) -> WeightProof:
    """One file that says how it was asked for."""
    (target / "model.safetensors").write_text(str(how["dtype"]))
    nothing: tuple[str, ...] = ()
    return WeightProof(1, 1, 4, "d", "float32", "option", nothing, nothing, 1, "s", (), nothing, None, nothing, nothing)


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Step 3 of a run; the export of its weights is a fake."""
    monkeypatch.setattr(pipeline, "export_weights", fake_weights)
    folder = tmp_path / "run/checkpoints/global_step_3/actor"
    folder.mkdir(parents=True)
    shard = FakeShard()
    shard.save(folder / "model_world_size_1_rank_0.pt", {"w": shard.tensor([1.0], (1,))})
    return folder


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """`global_step_N/actor` of a recipe, made once a session; not to be changed."""
    made: dict[str, Path] = {}

    def make(recipe: Recipe) -> Path:
        if recipe.name not in made:
            folder = tmp_path_factory.mktemp("sharded") / "checkpoints" / f"global_step_{recipe.step}"
            made[recipe.name] = save_sharded(recipe, folder / "actor")
        return made[recipe.name]

    return make


@pytest.fixture
def copy_of(sharded: Callable[[Recipe], Path], tmp_path: Path) -> Callable[[Recipe], Path]:
    """A copy of a recipe's `actor` folder, to be damaged."""

    def make(recipe: Recipe) -> Path:
        source = sharded(recipe)
        target = tmp_path / "run" / "checkpoints" / f"global_step_{recipe.step}" / "actor"
        shutil.copytree(source, target)
        return target

    return make
