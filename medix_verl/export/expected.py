"""What the model class expects: keys and shapes in memory, and the names and layout of the folder to be written.

The class of `config.architectures` is built on torch's meta device, so no weight is allocated. transformers' own table
turns its names into those of a saved folder (Qwen2.5-VL is saved under older names than it has in memory).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix.errors import ExportError

FUSED_EXPERTS = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")


@dataclass(frozen=True)
class Expected:
    """The model class's view.

    Attributes:
        shapes: of every key of the state dict.
        tied: key -> the key that it shares its values with, and under which alone they are saved.
        saved_names: key -> key in the folder.
        swapped: 3-dimensional expert weights whose last two dimensions change places in a folder: what Qwen publishes
            and vLLM reads is [experts, in, out]; transformers 5 keeps [experts, out, in] in memory and would save that.
    """

    class_name: str
    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]
    saved_names: Mapping[str, str]
    swapped: frozenset[str]

    def refuse_other(self, found: Mapping[str, tuple[int, ...]]) -> None:
        """Hold keys and shapes against the class.

        Raises:
            ExportError: a key is missing or left over, or a shape differs.
        """
        missing = [key for key in self.shapes if key not in found and key not in self.tied]
        if missing:
            raise _other(self.class_name, f"missing key {_few(missing)}")
        extra = [key for key in found if key not in self.shapes]
        if extra:
            raise _other(self.class_name, f"extra key {_few(extra)}")
        for key, shape in found.items():
            if shape != self.shapes[key] and not self.is_saved_layout(key, shape):
                raise ExportError(
                    f"shape {self.shapes[key]} of {key} in {self.class_name}",
                    f"wrong shape {shape} in the shards",
                    "use the config.json that the model was trained with: it stands in the actor's huggingface/ folder",
                )

    def is_saved_layout(self, key: str, shape: tuple[int, ...]) -> bool:
        """Whether experts are held as they are saved, as transformers 4 (and so EasyR1) did."""
        wanted = self.shapes[key]
        return key in self.swapped and shape != wanted and shape == (wanted[0], wanted[2], wanted[1])


def expected_of(base_files: Path) -> Expected:
    """The expectation of the config.json in a folder; no code of the folder is run.

    Raises:
        ExportError: there is no config.json, transformers does not know its class, or cannot load it.
    """
    import torch
    import transformers

    name = _class_name(base_files)
    model_class = getattr(transformers, name, None)
    if model_class is None:
        found = f"{name!r}, which transformers {transformers.__version__} lacks"
        raise ExportError("a model class of transformers in config.json", found, "no code of a folder is run here")
    try:
        config = transformers.AutoConfig.from_pretrained(base_files, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # A config of anybody's making may fail in any way.
        found, fix = f"{type(error).__name__}: {error}"[:400], f"mend {base_files / 'config.json'}"
        raise ExportError("a config.json that transformers loads", found, fix) from error
    # The trainer's attention kernels need not be installed here; keys and shapes do not depend on them.
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = model_class(config)
    model.tie_weights()
    state = model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    swapped = frozenset(key for key in shapes if "VLMoe" in name and key.endswith(FUSED_EXPERTS))
    for key in swapped:
        if shapes[key][1] == shapes[key][2]:
            raise ExportError(
                "experts whose two sides differ in length",
                f"{shapes[key]} for {key}: transformers and vLLM would each read the folder in another orientation",
                "no folder can serve both; keep the sharded checkpoint",
            )
    return Expected(name, shapes, dict(model.all_tied_weights_keys), _saved_names(model, state), swapped)


def _class_name(base_files: Path) -> str:
    path = base_files / "config.json"
    if not path.is_file():
        fix = "take it from the base model: the checkpoint was not saved to its end"
        raise ExportError("the model's config.json in the checkpoint", f"none in {base_files}", fix)
    config = json.loads(path.read_text(encoding="utf-8"))
    names = config.get("architectures") or []
    # FSDP2 renames the classes that it wraps, and transformers may have written that name down.
    name = str(names[0]).removeprefix("FSDP") if names else ""
    if not name.endswith(("ForConditionalGeneration", "ForCausalLM")):
        raise ExportError("a generating model in config.json's architectures", repr(names), "export the actor")
    return name


def _saved_names(model: Any, state: Mapping[str, Any]) -> dict[str, str]:
    """Names by transformers' own reversal of its loading rules; a rule that does more than rename is refused."""
    from transformers.core_model_loading import revert_weight_conversion

    names = {}
    for key, value in state.items():
        saved = revert_weight_conversion(model, {key: value})
        if len(saved) != 1 or next(iter(saved.values())).shape != value.shape:
            found = f"{key}, which is saved as {len(saved)} tensors of another form"
            raise ExportError("a Qwen2.5-VL or Qwen3-VL model", found, "this model family is not supported")
        names[key] = next(iter(saved))
    return names


def _other(class_name: str, found: str) -> ExportError:
    return ExportError(
        f"the keys of {class_name}", found, "export with the config.json that the model was trained with"
    )


def _few(keys: Sequence[str]) -> str:
    return f"{keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
