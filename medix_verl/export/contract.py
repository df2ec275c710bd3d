"""What the two halves of the export hand each other: the weights, and all that stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

RECORD: Final = "export.json"
"""The proofs, in every exported folder; a folder without it is not ours."""
LoraMode = Literal["fold", "adapter"]
Progress = Callable[[str, int, int], None]
"""`progress(stage, done_bytes, total_bytes)`; called often, so it must be quick."""


@dataclass(frozen=True)
class Checkpoint:
    """One `actor` folder of a run, found but not yet read.

    Attributes:
        actor: folder of `model_world_size_W_rank_R.pt`.
        step: global step of the folder's name; None where the name does not say.
        run_dir: `outputs/RUN`; None for a checkpoint that stands alone.
        world_size: number of shards that there must be.
        base_files: `actor/huggingface`: config, tokenizer, processor, generation config.
    """

    actor: Path
    step: int | None
    run_dir: Path | None
    world_size: int
    base_files: Path


@dataclass(frozen=True)
class ShardProof:
    """One shard as read. `digest` is `archive.Archive.digest`: over names, sizes and checked CRC32s."""

    file: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class LoraProof:
    """What became of a LoRA checkpoint. `pairs` counts (A, B) pairs; `changed` those whose B @ A is not all zero."""

    mode: LoraMode
    rank: int
    alpha: float
    scale: float
    pairs: int
    changed: int
    largest_update: float


@dataclass(frozen=True)
class WeightProof:
    """What was read and what was written, for `export.json`.

    Attributes:
        digest: sha256 over every written tensor's name, dtype, shape and bytes, in order of name.
        dtype: of the written weights; `dtype_from` says why: `option` or `config.json`.
        strategy: `fsdp1`, `fsdp2` or `unknown` (no fsdp_config.json), and the mesh, such as `fsdp2 ddp=2 fsdp=2`.
        tied: keys left out because the model class ties them to another.
        proved, unproved: sentences on rank order and step, with the evidence or the lack of it.
    """

    tensors: int
    parameters: int
    bytes: int
    digest: str
    dtype: str
    dtype_from: str
    checkpoint_dtypes: Sequence[str]
    files: Sequence[str]
    world_size: int
    strategy: str
    shards: Sequence[ShardProof]
    tied: Sequence[str]
    lora: LoraProof | None
    proved: Sequence[str]
    unproved: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """For `export.json`."""
        return asdict(self)


@dataclass(frozen=True)
class ExportOptions:
    """What `medix export` was asked for, as far as the weights and the folder go.

    Attributes:
        checkpoint: a run folder, its `checkpoints/`, a `global_step_N` or an `actor` folder.
        dtype: `float32`, `bfloat16` or `float16`; None takes the one in the checkpoint's config.json.
        overwrite: replace a folder that stands at `out`, in one rename, once the new one is whole.
        base: folder of the base model; None where the run names it.
    """

    checkpoint: Path
    out: Path
    best: bool = False
    last: bool = False
    dtype: str | None = None
    lora: LoraMode = "fold"
    overwrite: bool = False
    base: Path | None = None


Check = Callable[[Path, Checkpoint], dict[str, Any]]
"""A step after the weights: completes or proves the folder it is given (not yet at its final name), raises
`ExportError` where it cannot, and returns what `export.json` shall say under the function's name."""
