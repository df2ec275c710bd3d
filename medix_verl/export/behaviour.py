"""Proofs by behaviour: the folder loads, answers, ends its turns, and gives what the sharded model gives."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix_verl.export.agreement import agree_log_probs, agree_tokens
from medix_verl.export.base_model import BaseModel
from medix_verl.export.children import Child, available_bytes
from medix_verl.export.contract import Checkpoint
from medix_verl.export.loading import is_adapter
from medix_verl.export.shards import open_shards

FLOAT32_BYTES: Final = 4
OVERHEAD_BYTES: Final = 1 << 30
"""An interpreter with torch and transformers, and the activations of one short prompt. A model smaller than this is
loaded in both forms at once: the imports take most of the time, and the libraries most of the memory."""
SHARED_PART: Final = 0.25
"""Share of a model that each rank of the sharded one holds while it computes: embeddings, head and one block."""


@dataclass(frozen=True)
class BehaviourOptions:
    """`max_new_tokens`: what an answer may have. `check_vllm`: load the folder in vLLM too."""

    max_new_tokens: int = 256
    check_vllm: bool = False


def prove_behaviour(folder: Path, checkpoint: Checkpoint, base: BaseModel, options: BehaviourOptions) -> dict[str, Any]:
    """Run the children and hold their findings against each other; for `export.json`.

    What memory or time does not allow is skipped, and `skipped` says so.

    Raises:
        ExportError: the folder does not load, answers nothing, or disagrees with the sharded model or vLLM.
    """
    plan = _plan(folder, checkpoint, base, options)
    if "all" in plan.skipped:
        return {"skipped": plan.skipped}
    with ExitStack() as children:
        sharded = None if "sharded model" in plan.skipped else children.enter_context(plan.sharded())
        # A large model's witness is asked first and gone before the folder is loaded.
        expected = sharded.answer() if sharded and not plan.at_once else None
        found = children.enter_context(Child("medix_verl.export.folder_probe", plan.request)).answer()
        if "skipped" in found:
            return {"skipped": plan.skipped | {"all": found["skipped"]}}
        record: dict[str, Any] = {"loads": {name: found[name] for name in ("class", "keys", "dtype")}}
        record["generations"] = judge_generations(found)
        if sharded:
            expected = expected or sharded.answer()
            if "skipped" in expected:
                plan.skipped["sharded model"] = expected["skipped"]
            else:
                record["sharded_model"] = agree_log_probs(found["log_probs"], expected, plan.request["round_to"])
        if "vLLM" not in plan.skipped:
            vllm = children.enter_context(Child("medix_verl.export.vllm_probe", plan.request, gpus=True)).answer()
            if "skipped" in vllm:
                plan.skipped["vLLM"] = vllm["skipped"]
            else:
                record["vllm"] = agree_tokens(found["generations"], vllm)
    return record | {"skipped": plan.skipped}


@dataclass
class _Plan:
    """What will be run. `skipped`: proof -> why it is not. `at_once`: the sharded model and the folder together."""

    request: dict[str, Any]
    skipped: dict[str, str]
    at_once: bool = False

    def sharded(self) -> Child:
        return Child("medix_verl.export.sharded_probe", self.request)


def _plan(folder: Path, checkpoint: Checkpoint, base: BaseModel, options: BehaviourOptions) -> _Plan:
    adapter = is_adapter(folder)
    skipped = {} if options.check_vllm else {"vLLM": "not asked for: --check-vllm"}
    if adapter and base.folder is None:
        return _Plan({}, {"all": f"an adapter works on its base model, and {base.why_not}"})
    parameters, dtype = stored(folder)
    if adapter and base.folder is not None:
        parameters += stored(base.folder)[0]
        skipped["vLLM"] = "an adapter's folder does not hold the whole model"
    need, room = parameters * FLOAT32_BYTES + OVERHEAD_BYTES, available_bytes()
    if need > room:
        return _Plan({}, {"all": _want_of_memory(need, room)})
    sharded_need = int(parameters * FLOAT32_BYTES * (1 + SHARED_PART * checkpoint.world_size)) + OVERHEAD_BYTES
    if sharded_need > room:
        skipped.setdefault("sharded model", _want_of_memory(sharded_need, room))
    request = {
        "folder": str(folder),
        "base": str(base.folder) if base.folder else None,
        "config": str(base.folder if adapter else folder),
        "dtype": "float32",
        "round_to": dtype,
        "max_new_tokens": options.max_new_tokens,
        "actor": str(checkpoint.actor),
        "world_size": checkpoint.world_size,
        "ranks": 0 if "sharded model" in skipped else mesh_size(checkpoint),
    }
    small = parameters * FLOAT32_BYTES < OVERHEAD_BYTES
    return _Plan(request, skipped, small and need + sharded_need <= room)


def mesh_size(checkpoint: Checkpoint) -> int:
    """Ranks that hold the model once: all of them, or the first replica of a ddp x fsdp mesh.

    By the export's own reader, which knows the meshes of all releases of torch; a DTensor only knows its own.
    """
    mesh = open_shards(checkpoint).mesh
    return mesh.shape[-1] if mesh is not None else 1


def _want_of_memory(need: int, room: int) -> str:
    return f"{need / 1e9:.1f} GB of memory needed in float32, {room / 1e9:.1f} GB are there"


def judge_generations(found: dict[str, Any]) -> dict[str, Any]:
    """The answers for the record, with a note on one that did not end by itself.

    Raises:
        ExportError: an answer is empty.
    """
    record: dict[str, Any] = {"image_from": found["image"]}
    for name, generation in found["generations"].items():
        if not generation["answer"].strip():
            raise ExportError(
                f"an answer to the {name} question {generation['question']!r}",
                f"nothing: the tokens {generation['tokens'][:5]}",
                "the policy answers nothing at this step, or its chat template is another: try an earlier checkpoint",
            )
        record[name] = {key: generation[key] for key in ("question", "answer", "terminated")}
        record[name]["tokens"] = len(generation["tokens"])
    return record


def stored(folder: Path) -> tuple[int, str]:
    """(parameters, dtype of most of them) of the safetensors of a folder."""
    from math import prod

    from safetensors import safe_open

    names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    by_dtype: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                part = tensors.get_slice(key)
                by_dtype[part.get_dtype()] = by_dtype.get(part.get_dtype(), 0) + prod(part.get_shape())
    if not by_dtype:
        raise ExportError("weights as safetensors", f"none in {folder}", "see the export's messages above")
    return sum(by_dtype.values()), names.get(max(by_dtype, key=lambda name: by_dtype[name]), "float32")


def response_limit(checkpoint: Checkpoint, default: int = BehaviourOptions.max_new_tokens) -> int:
    """Tokens that an answer may have: as many as in the run's training, at most `default`."""
    import yaml

    if checkpoint.run_dir is None or not (checkpoint.run_dir / "config.yaml").is_file():
        return default
    try:
        config = yaml.safe_load((checkpoint.run_dir / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return default
    data = config.get("data") if isinstance(config, dict) else None
    value = data.get("max_response_length") if isinstance(data, dict) else None
    return min(value, default) if isinstance(value, int) and value > 0 else default
