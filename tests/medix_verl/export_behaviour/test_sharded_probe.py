"""The sharded checkpoint as a witness: shards of other releases, experts turned, LoRA, what can not be loaded.

The shards are put together by hand, from the weights of a living model that the same question is put to.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medix_verl.export.contract import Checkpoint
from medix_verl.export.loading import load_processor, response_log_probs
from medix_verl.export.probes import TEXT
from tests.medix_verl.export.fake_shards import FakeShard, Made, Named, cut

pytestmark = pytest.mark.slow  # imports torch and transformers, forks ranks

SIZES = dict(
    vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=4, bos_token_id=0, eos_token_id=1,
)  # fmt: skip
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, decoder_sparse_step=1)
ALPHA, RANK = 0.5, 2
Change = Callable[[dict[str, Any]], dict[str, Any]]


def write_tokenizer(folder: Path) -> None:
    """Three words, with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0, "the": 1, "heart": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "the", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def living(folder: Path, case: Case) -> Any:
    """A model of random weights; its config.json goes into the folder."""
    import torch
    import transformers

    name, sizes = ("Qwen3Moe", SIZES | EXPERTS) if case.experts else ("Qwen3", SIZES)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**sizes, tie_word_embeddings=case.tied)
    )
    model.config.save_pretrained(folder)
    if case.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "up_proj"]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model.eval()


def write_shards(actor: Path, state: dict[str, Any], form: str, ranks: int = 1) -> None:
    for rank in range(ranks):
        shard = FakeShard()
        mesh = {
            "2.8": lambda shard=shard, rank=rank: shard.mesh_2_8((ranks,), range(ranks), (rank,)),
            "2.9": lambda shard=shard, rank=rank: shard.mesh_2_9((ranks,), range(ranks), rank),
            "of a release to come": lambda: Made(Named("torch.distributed.device_mesh", "MeshToCome"), {}),
        }[form if rank == ranks - 1 or form != "of a release to come" else "2.9"]()
        content = {}
        for key, tensor in state.items():
            rows = -(-tensor.shape[0] // ranks)
            local = tensor[rank * rows : (rank + 1) * rows]
            held = shard.tensor(local.flatten().tolist(), local.shape)
            content[key] = shard.dtensor(held, tensor.shape, mesh, [cut(0)])
        path = shard.save(actor / f"model_world_size_{ranks}_rank_{rank}.pt", content)
        with zipfile.ZipFile(path, "a") as archive:  # torch reads no archive without it
            archive.writestr(f"{path.stem}/version", "3\n")


def as_it_is(state: dict[str, Any]) -> dict[str, Any]:
    return state


def other_way_round(state: dict[str, Any]) -> dict[str, Any]:
    """[experts, in, out], as transformers 4 and EasyR1 keep them."""
    return {key: t.transpose(1, 2).contiguous() if t.ndim == 3 else t for key, t in state.items()}


def wider(state: dict[str, Any]) -> dict[str, Any]:
    return {key: t.repeat(2, 1) if key == "lm_head.weight" else t for key, t in state.items()}


def renamed(state: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("lm_head", "head"): tensor for key, tensor in state.items()}


@dataclass(frozen=True)
class Case:
    """A checkpoint: what is saved of the living model, by which torch, over how many ranks. `skipped`: the reason."""

    form: str
    ranks: int = 1
    change: Change = as_it_is
    experts: bool = False
    tied: bool = False
    lora: bool = False
    skipped: str = ""


CASES = {
    "torch 2.8": Case("2.8"),
    "torch 2.8, two ranks": Case("2.8", 2),
    "torch 2.9": Case("2.9"),
    "experts": Case("2.9", 2, experts=True),
    "experts the other way round": Case("2.8", 2, other_way_round, experts=True),
    "tied heads": Case("2.9", 2, tied=True),
    "LoRA": Case("2.9", lora=True),
    # The last rank's alone: the first has nobody to compute with, and must say so and not hang or fail.
    "a pickle it can not read": Case("of a release to come", 2, skipped="can not read model_world_size_2_rank_1.pt"),
    "another shape": Case("2.9", 2, wider, skipped="lm_head.weight has the shape (32, 8), here (16, 8)"),
    "another key": Case("2.9", 2, renamed, skipped="its keys are not those of Qwen3ForCausalLM here"),
}
LOADED = [name for name, case in CASES.items() if not case.skipped]
PROBE = """
import sys
from medix_verl.export.sharded_probe import Path, json, probe_sharded
for place in map(Path, sys.argv[1:]):
    probe_sharded(json.loads((place / "request.json").read_text()), place / "answer.json")
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], list[float]]]:
    """What the child answers for each case, and the living model's log-probabilities.

    One process for all of them, as its imports take most of the time; and not this one, whose threads do not outlive
    a fork.
    """
    places, wanted = {}, {}
    for name, case in CASES.items():
        place = places[name] = tmp_path_factory.mktemp("actor")
        folder = place / "huggingface"
        write_tokenizer(folder)
        model = living(folder, case)
        write_shards(place, case.change(model.state_dict()), case.form, case.ranks)
        (place / "lora_train_meta.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
        request = {"config": str(folder), "actor": str(place), "world_size": case.ranks, "ranks": case.ranks}
        (place / "request.json").write_text(json.dumps(request | {"round_to": "float32"}))
        wanted[name] = response_log_probs(model, load_processor(folder, False), TEXT, False)
    command = [sys.executable, "-c", PROBE, *map(str, places.values())]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return {name: (json.loads((place / "answer.json").read_text()), wanted[name]) for name, place in places.items()}


@pytest.mark.parametrize("case", LOADED)
def test_the_shards_give_what_the_living_model_gives(
    case: str, probed: dict[str, tuple[dict[str, Any], list[float]]]
) -> None:
    found, wanted = probed[case][0]["found"], probed[case][1]
    assert found["ranks"] == CASES[case].ranks
    assert found["log_probs"]["text"] == pytest.approx(wanted, abs=1e-5)
    if CASES[case].lora:
        # Alpha 0.5 over rank 2 scales by 0.25; rounded to a whole number, by 0: the base model.
        assert found["log_probs_without_lora"]["text"] != pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("case", [name for name in CASES if name not in LOADED])
def test_what_can_not_be_loaded_is_skipped_with_a_reason(
    case: str, probed: dict[str, tuple[dict[str, Any], list[float]]]
) -> None:
    assert CASES[case].skipped in probed[case][0]["skipped"]


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.experts or case.tied])
def test_only_tied_weights_are_gathered_for_the_whole_pass(case: str, tmp_path: Path) -> None:
    from medix_verl.export.sharded_model import units

    model = living(tmp_path, CASES[case])
    alone = {id(p) for unit in units(model) for p in unit.parameters(recurse=False)}
    left = [name for name, p in model.named_parameters() if id(p) not in alone]
    assert left == (["model.embed_tokens.weight"] if CASES[case].tied else [])


@pytest.mark.parametrize(("shape", "ranks"), [((2,), 2), ((2, 1), 1), ((1, 2), 2)], ids=str)
def test_one_replica_is_enough(shape: tuple[int, ...], ranks: int, tmp_path: Path) -> None:
    """Two ranks: as one mesh, as two replicas, and as one replica cut in two."""
    from medix_verl.export.behaviour import mesh_size

    for rank in range(2):
        shard = FakeShard()
        mesh = shard.mesh_2_8(shape, range(2), (rank,) if len(shape) == 1 else divmod(rank, shape[1]))
        whole = shape[-1] == 1
        held = shard.tensor([1.0, 2.0] if whole else [1.0 + rank], (2,) if whole else (1,))
        placements = [cut(0)] if len(shape) == 1 else [cut(None), cut(0)]
        shard.save(tmp_path / f"model_world_size_2_rank_{rank}.pt", {"w": shard.dtensor(held, (2,), mesh, placements)})
    assert mesh_size(Checkpoint(tmp_path, None, None, 2, tmp_path)) == ranks
