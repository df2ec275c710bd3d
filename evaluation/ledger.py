"""What a run has cost: tokens from the rows, seconds from the stages, money where a price is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.run_folder import RunFolder
from medix.errors import ConfigError


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens; None where no price is known, and then no money is stated."""

    model_in: float | None = None
    model_out: float | None = None
    judge_in: float | None = None
    judge_out: float | None = None
    currency: str = "USD"


def ledger(folder: RunFolder, prices: Prices) -> dict[str, Any]:
    """Tokens, seconds and money of the model and of the judges; every row that was ever paid for counts once a key."""
    model = _tokens(folder.generations.latest())
    judges = _tokens(folder.judgements.latest())
    return {
        "model": model | {"money": _money(model, prices.model_in, prices.model_out)},
        "judges": judges | {"money": _money(judges, prices.judge_in, prices.judge_out)},
        "seconds": _seconds(folder),
        "prices_per_million": asdict(prices),
    }


def _tokens(rows: Any) -> dict[str, Any]:
    total: dict[str, Any] = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "call_seconds": 0.0}
    for row in rows:
        total["calls"] += 1
        total["prompt_tokens"] += row["usage"].get("prompt_tokens", 0)
        total["completion_tokens"] += row["usage"].get("completion_tokens", 0)
        total["call_seconds"] += row["latency_s"]
    return total | {"call_seconds": round(total["call_seconds"], 3)}


def _money(tokens: Mapping[str, Any], price_in: float | None, price_out: float | None) -> float | None:
    if price_in is None and price_out is None:
        return None
    prompt, completion = int(tokens["prompt_tokens"]), int(tokens["completion_tokens"])
    return round((prompt * (price_in or 0.0) + completion * (price_out or 0.0)) / 1e6, 6)


def _seconds(folder: RunFolder) -> dict[str, float]:
    """Wall seconds of each stage, over all its calls that ended, well or not."""
    total: dict[str, float] = {}
    if folder.ledger.exists():
        for line in folder.ledger.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # half a line of a killed stage
            total[entry["stage"]] = round(total.get(entry["stage"], 0.0) + entry["seconds"], 3)
    return total


def read_prices(text: str) -> Prices:
    """`MODEL_IN,MODEL_OUT[,JUDGE_IN,JUDGE_OUT]`, money for a million tokens; empty for none.

    Raises:
        ConfigError: not two or four numbers of 0 or more.
    """
    if not text:
        return Prices()
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 4) or not all(0 <= number < float("inf") for number in numbers):
        raise ConfigError("two or four prices", repr(text), "e.g. --prices 0.15,0.60,0.10,0.30")
    judge_in, judge_out = numbers[2:] or (None, None)
    return Prices(numbers[0], numbers[1], judge_in, judge_out)
