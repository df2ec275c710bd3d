"""The weights of a checkpoint as safetensors: held against the model class, joined, folded, written, read back."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix.files import lookup, mapping_inside, read_inside
from medix_verl.export.checkpoint import Checkpoint
from medix_verl.export.manifest import MANIFEST, refuse_other_files
from medix_verl.export.shards import Progress, Shards

FLOATS: Final = ("float32", "bfloat16", "float16")
_LEAST_FILE, _LARGEST_FILE = 256 << 20, 2 << 30
"""Bytes of weights a file. One file's tensors are in memory at a time, beside the shards' pages that they came from."""
_PEFT: Final = "base_model.model."
_ADAPTER: Final = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.default\.weight")
_LORA_META: Final = "lora_train_meta.json"
_EXPERTS: Final = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
_OF_TRAINING: Final = ("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_name_or_path")
"""Keys of config.json: the trainer's attention kernel may be missing elsewhere, and its path is private."""


def meta_model(side_files: Path) -> Any:
    """Build the class that config.json names on torch's meta device: no memory is taken, no code of a folder runs."""
    import torch
    import transformers

    # FSDP2 renames the classes that it wraps, and transformers may have written that name down.
    names = read_inside(side_files, "config.json").get("architectures")
    name = str(names[0] if names and isinstance(names, list) else names).removeprefix("FSDP")
    kind = getattr(transformers, name, None)
    if kind is None or not name.endswith(("ForConditionalGeneration", "ForCausalLM")):
        raise ExportError(f"transformers {transformers.__version__} has no model {name!r}.", "Export the actor.")
    try:
        config = transformers.AutoConfig.from_pretrained(side_files, local_files_only=True, trust_remote_code=False)
        config._attn_implementation = "eager"  # The trainer's kernels need not be installed here.
        with torch.device("meta"):
            model = kind(config)
        model.tie_weights()
    except Exception as error:  # A config of anyone's making may fail in any way.
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise ExportError(f"transformers makes no model of {side_files}: {reason}", "Restore config.json.") from error
    return model


def _saved_name(model: Any, key: str, value: Any) -> str:
    # transformers' own reversal of its loading rules: Qwen2.5-VL is saved under older names than it has in memory.
    from transformers.core_model_loading import revert_weight_conversion

    (name, form), *more = revert_weight_conversion(model, {key: value}).items()
    if more or form.shape != value.shape:
        raise ExportError(f"transformers saves {key} in another form.", "Qwen2.5-VL and Qwen3-VL are supported.")
    return str(name)


def _is_turned(model: Any, key: str) -> bool:
    # Experts lie as [experts, in, out] in a folder, as Qwen publishes them and vLLM reads them; transformers 5 keeps
    # [experts, out, in] in memory.
    return "VLMoe" in type(model).__name__ and key.endswith(_EXPERTS)


def _refuse_other(model: Any, found: Mapping[str, Any]) -> None:
    tied = {key: value for key, value in model.state_dict().items() if key in model.all_tied_weights_keys}
    try:
        model.load_state_dict({**tied, **found}, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).partition("\n")[2].split())[:400]
        fix = "Export with the config.json that the model was trained with, in the actor's huggingface/ folder."
        raise ExportError(f"The checkpoint does not fit {type(model).__name__}. {reason}", fix) from None


@dataclass
class Lora:
    """The adapters of a peft checkpoint. `pairs`: weight -> keys of its A [rank, in] and B [out, rank]."""

    rank: int
    alpha: float
    task_type: str
    pairs: dict[str, tuple[str, str]]
    changed: int = 0
    """How many changed their weight, counted while they are folded."""

    def fold(self, weight: Any, a: Any, b: Any) -> Any:
        """Return the weight [out, in] with alpha / rank * B @ A added, in float32 and in peft's order of operations."""
        change = (b.float() @ a.float()) * (self.alpha / self.rank)
        self.changed += bool(change.any())
        return weight.float() + change


def take_apart(checkpoint: Checkpoint, whole: Mapping[str, Any]) -> tuple[dict[str, str], Lora | None]:
    """Return (the model's key -> its key in the shards, the adapters or None)."""
    if not any(key.startswith(_PEFT) for key in whole):
        return {key: key for key in whole}, None
    base: dict[str, str] = {}
    sides: dict[str, dict[str, str]] = {}
    for key in whole:
        bare = key.removeprefix(_PEFT)
        if match := _ADAPTER.fullmatch(bare):
            sides.setdefault(f"{match['module']}.weight", {})[match["side"]] = key
        elif "lora_" in bare:
            raise ExportError(f"{key} is no plain LoRA adapter on a linear layer.", "Merge this checkpoint with peft.")
        else:
            base[bare.replace(".base_layer.", ".")] = key
    meta = mapping_inside(checkpoint.actor, _LORA_META)
    rank, alpha = meta.get("r"), meta.get("lora_alpha")
    if not (isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0 and alpha > 0):
        fix = f'Write {{"r": ..., "lora_alpha": ...}} of the run into {_LORA_META}: the change is scaled by alpha / r.'
        raise ExportError(f"No {_LORA_META} in {checkpoint.actor} names LoRA's rank and alpha.", fix)
    for weight, keys in sides.items():
        shapes = [tuple(whole[keys[side]].shape) for side in "AB" if side in keys]
        out, inner = shapes[-1][0], shapes[0][-1]
        fits = not base or (weight in base and tuple(whole[base[weight]].shape) == (out, inner))
        if not fits or shapes != [(rank, inner), (out, rank)]:
            raise ExportError(f"The adapters {shapes} of {weight} do not fit it at rank {rank}.", "Restore the shards.")
    pairs = {weight: (keys["A"], keys["B"]) for weight, keys in sides.items()}
    return base, Lora(rank, float(alpha), str(meta.get("task_type") or "CAUSAL_LM"), pairs)


def export_weights(
    checkpoint: Checkpoint, target: Path, dtype: str | None, adapter_only: bool, base: str | None, progress: Progress
) -> dict[str, Any]:
    """Write weights and config.json (or an adapter and its) into `target`; return what was found, for `export.json`.

    Args:
        dtype: `float32`, `bfloat16`, `float16`, or None for the one in the checkpoint's config.json.
        base: the base model's name, for an adapter's config.
    """
    import torch

    has_manifest = refuse_other_files(checkpoint.actor, checkpoint.step)
    unproved = [] if has_manifest else [f"that all shards are of one step: the run wrote no {MANIFEST}"]
    shards = Shards(checkpoint, progress)
    keys, lora = take_apart(checkpoint, shards.whole)
    if (lora is None) if adapter_only else not keys:
        raise ExportError("--adapter-only is for runs with LoRA, and for those that saved no more.", "Add or drop it.")
    progress("building the model class", 0, 0)
    model, config = meta_model(checkpoint.side_files), read_inside(checkpoint.side_files, "config.json")
    own, tied = model.state_dict(), model.all_tied_weights_keys
    if keys:
        _refuse_other(model, {key: shards.whole[held] for key, held in keys.items()})
    if lora and (other := next((weight for weight in lora.pairs if weight in tied or weight not in own), None)):
        raise ExportError(f"The model has no untied layer {other} for its adapter.", "Train without it.")
    for key, other in tied.items():
        states = shards.load()
        if key in keys and not torch.equal(shards.join(keys[key], states), shards.join(keys[other], states)):
            fix = "Set tie_word_embeddings to false in the checkpoint's huggingface/config.json."
            raise ExportError(f"config.json ties {key} to {other}, and the two were trained apart.", fix)
    wanted = dtype or _dtype_of(config)
    sources = {_saved_name(model, key, own[key]): key for key in keys if key not in tied}
    if lora and adapter_only:
        sources = {
            f"{_PEFT}{weight.removesuffix('.weight')}.lora_{side}.weight": key
            for weight, pair in lora.pairs.items()
            for side, key in zip("AB", pair, strict=True)
        }
        _write_adapter_config(target, lora, base)
    else:
        cleaned = _cleaned(config, wanted) | {"architectures": [type(model).__name__], "dtype": wanted}
        (target / "config.json").write_text(json.dumps(cleaned, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def tensor(name: str, states: list[dict[str, Any]]) -> Any:
        key = sources[name]
        value = shards.join(keys.get(key, key), states)
        if lora and not adapter_only and key in lora.pairs:
            a, b = (shards.join(side, states) for side in lora.pairs[key])
            value = lora.fold(value, a, b)
        return _as_written(key, value.transpose(1, 2) if _is_turned(model, key) else value, wanted)

    plan = {}
    for name, key in sorted(sources.items()):
        held = shards.whole[keys.get(key, key)]
        plan[name] = held.to(getattr(torch, wanted)) if held.is_floating_point() else held
    files = _write(target, "adapter_model" if adapter_only else "model", plan, tensor, shards, progress)
    if lora and not adapter_only and not lora.changed:
        unproved.append("that LoRA changed anything: every B @ A is zero, as before the first update")
    version = mapping_inside(checkpoint.actor, "fsdp_config.json").get("FSDP_version", " of unknown version")
    return {
        "tensors": len(plan),
        "parameters": sum(value.numel() for value in plan.values()),
        "dtype": wanted,
        "files": files,
        "strategy": f"FSDP{version}, {checkpoint.world_size} shards",
        "lora": lora and {"rank": lora.rank, "alpha": lora.alpha, "pairs": len(lora.pairs), "changed": lora.changed},
        "unproved": unproved,
    }


def _as_written(key: str, value: Any, dtype: str) -> Any:
    """Return a contiguous tensor in `dtype` (integers keep theirs); refuse what is not finite there."""
    import torch

    if value.is_floating_point() and value.numel():
        cast = value.to(getattr(torch, dtype))
        # NaN wins both comparisons, so that two numbers tell about all of them.
        if not all(math.isfinite(float(end)) for end in torch.aminmax(cast)):
            bad, nans = int((~torch.isfinite(value)).sum()), int(torch.isnan(value).sum())
            found = f"{bad} values that are not finite, {nans} of them NaN" if bad else f"values beyond {dtype}"
            fix = "Export an earlier step: training went wrong before this one." if bad else "Use --dtype bf16 or fp32."
            raise ExportError(f"{key} has {found}.", fix)
        value = cast
    return value.contiguous()


def _write(
    target: Path, stem: str, plan: Mapping[str, Any], tensor: Callable[..., Any], shards: Shards, progress: Progress
) -> dict[str, str]:
    """Write the planned tensors, one file at a time, and read each back; return file -> sha256."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors import safe_open
    from safetensors.torch import save_file

    total, done, digests = sum(value.nbytes for value in plan.values()), 0, {}
    if total > (free := shutil.disk_usage(target).free):
        found = f"{total / 1e6:,.1f} MB of weights do not fit into the {free / 1e6:,.1f} MB free at {target.parent}."
        raise ExportError(found, "Free some space, or choose another --out.")
    limit = min(max(total // 4, _LEAST_FILE), _LARGEST_FILE)
    pattern = f"{stem}{{suffix}}.safetensors"
    split = split_torch_state_dict_into_shards(dict(plan), filename_pattern=pattern, max_shard_size=limit)
    for file, names in split.filename_to_tensors.items():
        states, tensors = shards.load(), {}
        for name in names:
            progress(f"reading {name}", done, total)
            tensors[name] = tensor(name, states)
            done += tensors[name].nbytes
        del states
        progress(f"writing {file}", done, total)
        save_file(tensors, target / file, metadata={"format": "pt"})
        with safe_open(target / file, framework="pt") as written:
            same = [torch.equal(written.get_tensor(name), value) for name, value in tensors.items()]
        if not all(same):
            raise ExportError(f"{file} on the disk is not what was written.", "Check the disk, then export again.")
        digests[file] = file_digest(target / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (target / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return digests


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dtype_of(config: Mapping[str, Any]) -> str:
    # Newer files say `dtype`, older ones `torch_dtype`, some only for the language model; Qwen publishes bfloat16.
    places = ("dtype", "torch_dtype", "text_config.dtype", "text_config.torch_dtype")
    named = next((value for place in places if (value := lookup(config, place))), "bfloat16")
    if (name := str(named).removeprefix("torch.")) not in FLOATS:
        raise ExportError(f"The checkpoint's config.json names the dtype {name!r}.", "Choose one, e.g. --dtype bf16.")
    return name


def _cleaned(part: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    kept = {name: value for name, value in part.items() if name not in (*_OF_TRAINING, "torch_dtype")}
    nested = {name: _cleaned(v, dtype) for name, v in kept.items() if name.endswith("_config") and isinstance(v, dict)}
    return kept | nested | ({"dtype": dtype} if "dtype" in kept else {})


def _write_adapter_config(target: Path, lora: Lora, base: str | None) -> None:
    from peft import LoraConfig

    alpha: Any = lora.alpha  # peft only divides it by the rank; a fraction is as good as a whole number there.
    modules = sorted(key.removesuffix(".weight") for key in lora.pairs)
    config = LoraConfig(task_type=lora.task_type, r=lora.rank, lora_alpha=alpha, target_modules=modules)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(target))
