"""Labelled pairs, pairs from ontologies, and a judge measured on them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from evaluation.calibrate.ontology import ontology_pairs, read_terms
from evaluation.calibrate.stage import Pair, calibrate, measure, read_pairs
from evaluation.judging.judge import JudgeOptions
from medix.errors import DataError, EvaluationError
from reward_fns.scorers.endpoints import EndpointOptions

OBO = """format-version: 1.2

[Term]
id: HP:1
name: Abnormal heart

[Term]
id: HP:2
name: Cardiac enlargement
synonym: "Cardiomegaly" EXACT []
synonym: "Big \\"heart\\"" RELATED []
is_a: HP:1 ! Abnormal heart

[Term]
id: HP:3
name: Heart murmur
synonym: "Cardiac murmur" EXACT layperson []
is_a: HP:1 ! Abnormal heart

[Term]
id: HP:4
name: Gone
is_obsolete: true

[Typedef]
id: part_of
"""
MESH = """*NEWRECORD
RECTYPE = D
MH = Myocardial Infarction
PRINT ENTRY = Heart Attack|T047|NON|EQV|NLM (1999)|990101|abcdeef
ENTRY = Infarct of the Past|T047|NON|NRW|NLM (1999)|990101|abcdeef
MN = C14.280.647.500
UI = D009203

*NEWRECORD
RECTYPE = D
MH = Angina Pectoris
MN = C14.280.647.187
UI = D000787
"""


def test_ours_cover_the_kinds_in_both_directions():
    pairs = list(read_pairs())
    for kind in ("negation", "laterality", "number", "synonym", "abbreviation"):
        assert {pair.right for pair in pairs if pair.kind == kind} == {True, False}, kind
    assert len({(pair.reference, pair.candidate) for pair in pairs}) == len(pairs)


def test_a_users_csv(tmp_path):
    file = tmp_path / "ratings.csv"
    file.write_text("question,reference,candidate,right\nWhat?,left,on the left,1\nWhat?,left,right,no\n")
    assert [pair.right for pair in read_pairs(file)] == [True, False]
    file.write_text("question,reference,candidate,right\nWhat?,left,right,perhaps\n")
    with pytest.raises(DataError, match="no labelled pair"):
        list(read_pairs(file))


def test_terms_of_an_obo_file(tmp_path):
    (tmp_path / "hp.obo").write_text(OBO)
    terms = read_terms(str(tmp_path / "hp.obo"))
    assert set(terms) == {"HP:1", "HP:2", "HP:3"}
    assert terms["HP:2"].synonyms == ["Cardiomegaly"]  # related is not exact
    assert terms["HP:3"].parents == ["HP:1"]


def test_terms_of_mesh(tmp_path):
    (tmp_path / "d2026.bin").write_text(MESH)
    terms = read_terms(str(tmp_path / "d2026.bin"))
    assert terms["D009203"].synonyms == ["Heart Attack"]  # a narrower term is not a synonym
    assert terms["D009203"].parents == terms["D000787"].parents == ["C14.280.647"]


def ontology(n: int) -> str:
    stanza = '[Term]\nid: HP:{0}\nname: {1} lesion\nsynonym: "{1} focus" EXACT []\nis_a: HP:root{2}\n'
    names = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "lmnrstvz"]
    return "header\n\n" + "\n".join(stanza.format(i, names[i], i % 7) for i in range(n))


def test_pairs_of_an_ontology_are_independent_labelled_and_repeatable(tmp_path):
    (tmp_path / "o.obo").write_text(ontology(200))
    terms = read_terms(str(tmp_path / "o.obo"))
    pairs = list(ontology_pairs(terms, 100))
    assert len(pairs) == 100
    assert {pair.kind for pair in pairs} == {"synonym", "sibling", "negation", "laterality", "number"}
    assert len({pair.group for pair in pairs}) == 100
    assert 35 <= sum(pair.right for pair in pairs) <= 65
    for pair in pairs:
        if pair.kind == "synonym":
            assert pair.right
            assert pair.candidate.replace("focus", "lesion") == pair.reference
        if pair.kind == "sibling":
            assert not pair.right
            assert pair.candidate != pair.reference
        if pair.kind == "number":
            millimetres, centimetres = float(pair.reference.split()[0]), float(pair.candidate.split()[0])
            assert (millimetres == pytest.approx(10 * centimetres)) == pair.right
    assert list(ontology_pairs(terms, 100)) == pairs
    siblings = [pair.candidate for pair in pairs if pair.kind == "sibling"]
    assert not set(siblings) & {pair.reference for pair in pairs}  # a term serves one pair only


def test_measure_by_hand():
    def pair(right: bool, group: str) -> Pair:
        return Pair("", "a", "b", right, "negation" if right else "sibling", group)

    judged = [(pair(True, f"r{n}"), n < 8) for n in range(10)] + [(pair(False, f"w{n}"), n < 1) for n in range(10)]
    judged.append((pair(True, "r10"), None))
    figures = measure(judged)["all"]
    assert (figures["sensitivity"]["mean"], figures["specificity"]["mean"]) == (0.8, 0.9)
    assert figures["kappa"] == pytest.approx(0.7)  # observed 0.85, expected 0.5
    assert (figures["pairs"], figures["unscored"]) == (21, 1)
    assert measure([])["all"]["kappa"] is None


def test_a_judge_is_measured_and_asked_only_once(tmp_path, fake_judge):
    fake_judge.reply = lambda prompt, asked: "NO" if "[[CANDIDATE]]\nno " in prompt else "YES"
    options = JudgeOptions("j", EndpointOptions(urls=(fake_judge.url,), retries=0))
    pairs = list(read_pairs())
    result = asyncio.run(calibrate(tmp_path, options, "verdict", pairs))
    assert result["all"]["unscored"] == 0
    assert result["kinds"]["laterality"]["specificity"]["mean"] == 0.0
    asked = len(fake_judge.bodies)
    assert asyncio.run(calibrate(tmp_path, options, "verdict", pairs)) == result
    assert len(fake_judge.bodies) == asked
    assert json.loads((tmp_path / "calibration.json").read_text()) == result


def test_a_judge_that_gives_no_verdict_is_refused(tmp_path, fake_judge):
    fake_judge.reply = lambda prompt, asked: "Perhaps."
    options = JudgeOptions("j", EndpointOptions(urls=(fake_judge.url,), retries=0))
    with pytest.raises(EvaluationError, match="no verdict on"):
        asyncio.run(calibrate(Path(tmp_path), options, "verdict", list(read_pairs())[:10]))
