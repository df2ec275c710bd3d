"""When two ways of running a model count as the same model."""

from __future__ import annotations

from typing import Any, Final

from medix.errors import ExportError

EXACT: Final = 1e-3
"""Largest difference of a log-probability, in nats, where both sides hold the same weights and compute in float32."""
NEAR_TIE: Final = 0.25
"""Two tokens whose logits are as near as this may change places under another kernel or dtype."""


def agree_log_probs(ours: dict[str, list[float]], sharded: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Log-probabilities of the exported folder against the sharded model's; for `export.json`.

    Without LoRA both sides hold the same rounded weights. A folded adapter can only be held against the unfolded one
    before rounding, so in a 16-bit export the comparison is with the distance to the base model.

    Raises:
        ExportError: the folder is another model.
    """
    reference = sharded["log_probs"]
    difference = _largest(ours, reference)
    record: dict[str, Any] = {
        "by": f"FSDP2 over {sharded['ranks']} gloo process(es), each loading its raw shard",
        "tokens": sum(len(values) for values in reference.values()),
        "largest_difference": difference,
    }
    limit = EXACT
    if "log_probs_without_lora" in sharded:
        base = sharded["log_probs_without_lora"]
        record["largest_difference_without_lora"] = to_base = _largest(ours, base)
        record["lora_moves_by"] = moved = _largest(reference, base)
        if dtype != "float32":
            limit = max(EXACT, moved / 2)
        if moved > EXACT and to_base < difference:
            raise ExportError(
                "an export that gives what the model with its LoRA adapter gives",
                f"one nearer to the base model (by at most {to_base:.4f} nats, {difference:.4f} to the adapted one)",
                "the adapter was not folded: report this",
            )
    record["allowed"] = limit
    if not difference <= limit:
        raise ExportError(
            f"log-probabilities within {limit:g} nats of the sharded checkpoint's",
            f"a difference of {difference:.4f}",
            "the folder is not the model that was trained: report this with its export.json",
        )
    return record


def agree_tokens(ours: dict[str, Any], vllm: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens of transformers against vLLM's; for `export.json`.

    Raises:
        ExportError: they part at a token where the choice was clear.
    """
    record: dict[str, Any] = {"version": vllm["version"], "dtype": vllm["dtype"]}
    for name, tokens in vllm["tokens"].items():
        expected = ours[name]["tokens"]
        same = next((at for at, pair in enumerate(zip(expected, tokens, strict=False)) if pair[0] != pair[1]), None)
        if same is None and len(expected) == len(tokens):
            record[name] = {"tokens": len(tokens), "same": len(tokens)}
            continue
        same = min(len(expected), len(tokens)) if same is None else same
        margin = ours[name]["margins"][same] if same < len(expected) else float("inf")
        theirs = tokens[same] if same < len(tokens) else None
        if margin > NEAR_TIE or theirs != ours[name]["second"][same]:
            raise ExportError(
                f"vLLM's greedy answer to the {name} question to be transformers' {expected}",
                f"{tokens}, another at token {same + 1} where the choice was clear by {margin:.2f}",
                "vLLM loads these weights in another way: check its version against the project's pin",
            )
        record[name] = {"tokens": len(expected), "same": same, "parted_at_a_tie_of": margin}
    return record


def _largest(left: dict[str, list[float]], right: dict[str, list[float]]) -> float:
    """NaN where a value is none, so that no comparison with it holds."""
    pairs = [pair for name in left for pair in zip(left[name], right[name], strict=True)]
    differences = [abs(a - b) for a, b in pairs]
    return float("nan") if any(value != value for value in differences) else max(differences)
