"""The composite: weights, ablations, what does not apply, the flat record, custom components, and its errors."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medix.errors import ConfigError, ScorerError
from medix.modality import MODALITIES
from medix.response import format_response
from medix.same_answer import answer_key
from reward_fns import AssumedScorers, ScoringInput, build_composite
from reward_fns.scorers.types import JudgeRequest, Similarity, Verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "rewards" / "brevity.py"
RIGHT = ScoringInput(format_response("X_RAY", "t", "lung infection"), "pneumonia", "Diagnosis?", "X_RAY")
ASSUMED = AssumedScorers(judge_says=True, cosine=0.9)
COSINE = "return (await scorers.similarity('a', 'b')).cosine"
TAKEN = (
    *("score", "acc", "reward", "judge_seconds", "embed_similarity", "answer_hash", "judge_faults"),
    *("judge_embedder_disagree", "llm_accuracy_ok"),
)


def components(**options: Any) -> dict[str, Any]:
    return {"preset": "strict", "components": options}


def test_effective_weights_sum_to_one_and_are_in_the_table() -> None:
    composite = build_composite(components(embed_accuracy={"weight": 0}), ASSUMED)
    table = {row["component"]: row["effective"] for row in composite.table()}
    assert table["llm_accuracy"] == pytest.approx(0.5175 / 0.6625)  # 0.5175 + 0.045 + 0.10 are left
    assert sum(table.values()) == pytest.approx(1)
    json.dumps(composite.table())


async def test_a_text_only_sample_drops_the_modality_and_renormalises() -> None:
    item = ScoringInput(format_response(None, "t", "other"), "pneumonia", "q", None)
    score = await build_composite({}, AssumedScorers(False, 0.1)).score(item)
    assert score.total == pytest.approx(0.10 / 0.955)  # only the form is paid, out of 1 - 0.045
    assert score.flat()["modality"] == -1


async def test_every_response_has_the_same_float_keys() -> None:
    composite = build_composite(components(embed_accuracy={"weight": 0}), ASSUMED)
    items = [RIGHT, ScoringInput("", "x"), ScoringInput("pneumonia", "pneumonia", modality="X_RAY")]
    flats = [(await composite.score(item)).flat() for item in items]
    expected = ["score", "acc", "llm_accuracy", "embed_accuracy", "modality", "format"]
    expected += ["llm_accuracy_ok", "embed_accuracy_ok", "judge_seconds", "embed_seconds"]
    expected += ["judge_yes_probability", "embed_similarity", "answer_hash", "judge_asked", "judge_cached"]
    expected += ["judge_shared", "judge_embedder_disagree", "judge_faults"]
    assert all(list(flat) == expected for flat in flats)
    assert all(type(value) is float for flat in flats for value in flat.values())


async def test_the_record_is_json_with_verdict_reply_and_reasons() -> None:
    record = json.loads(json.dumps((await build_composite({}, ASSUMED).score(RIGHT)).record()))
    assert record["judge"]["raw"] == "assumed"
    assert record["details"]["embed_accuracy"] == {"why": "synonym", "cosine": 0.9, "near": True}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"preset": "strickt"}, "[Dd]id you mean 'strict'"),
        ({"presets": "strict"}, "[Dd]id you mean 'preset'"),
        (components(embed_acuracy={"weight": 1}), "[Dd]id you mean 'embed_accuracy'"),
        (components(llm_accuracy={"weigth": 1}), "[Dd]id you mean 'weight'"),
        (components(embed_accuracy={"treshold": 0.5}), "[Dd]id you mean 'threshold'"),
        (components(embed_accuracy={"threshold": "high"}), "threshold"),
        (components(embed_accuracy={"threshold": 1.5}), "less than or equal to 1"),
        (components(embed_accuracy={"veto": "jugde"}), "'judge' or 'none'"),
        (components(format={"weight": -0.1}), "finite number of at least 0"),
        (components(format={"weight": float("nan")}), "finite number of at least 0"),
        (components(format={"weight": float("inf")}), "finite number of at least 0"),
        (components(format={"weight": True}), "finite number of at least 0"),
        (components(format=0.1), "a mapping"),
        (components(brevity={"path": "none.py:brevity", "weight": 1}), "none.py"),
        (components(brevity={"path": "brevity", "weight": 1}), "FILE.py:NAME"),
        (components(brevity={"path": f"{EXAMPLE}:brevty", "weight": 1}), "brevty"),
        (components(brevity={"path": f"{EXAMPLE}:brevity", "weight": 1, "wrods": 3}), "wrods"),
        ({"components": 5}, "a mapping"),
        ({"components": ["llm_accuracy"]}, "a mapping"),
        ({"components": {1: {"weight": 1}}}, "name"),
        ({"preset": "paper", "components_of": "strict"}, "reward_preset=paper"),
        *((components(**{name: {"path": f"{EXAMPLE}:brevity", "weight": 1}}), f"'{name}'") for name in TAKEN),
        (components(llm_accuracy=None, embed_accuracy=None, modality=None, format=None), "weight above 0"),
    ],
)
def test_a_wrong_configuration_fails_at_the_start(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_composite(config, ASSUMED)


async def test_the_judge_is_asked_once_for_the_accuracy_and_the_veto() -> None:
    asked: list[JudgeRequest] = []

    class FakeCounter(AssumedScorers):
        async def judge(self, request: JudgeRequest) -> Verdict:
            asked.append(request)
            return Verdict(True)

    await build_composite({}, FakeCounter(cosine=0.9)).score(RIGHT)
    assert [(request.question, request.reference, request.candidate) for request in asked] == [
        ("Diagnosis?", "pneumonia", "lung infection")
    ]


async def test_what_is_switched_off_is_never_asked() -> None:
    config = components(llm_accuracy={"weight": 0}, embed_accuracy={"veto": "none"})
    composite = build_composite(config, AssumedScorers(cosine=0.9))  # raises if the judge is asked
    assert composite.needs == {"similarity"}
    assert (await composite.score(RIGHT)).flat()["acc"] == 1.0


@pytest.mark.parametrize(
    ("form", "cosine", "value"), [("cosine", 0.6, 0.6), ("cosine", -0.2, 0.0), ("binary", 0.6, 0.0)]
)
async def test_embed_accuracy_is_binary_or_the_cosine(form: str, cosine: float, value: float) -> None:
    config = components(embed_accuracy={"form": form, "threshold": 0.8, "synonyms": False})
    score = await build_composite(config, AssumedScorers(True, cosine)).score(RIGHT)
    assert score.components["embed_accuracy"].value == value


@pytest.mark.parametrize("answer", ["A", "3", "2:1", "a__b", "why?", "< 5 mm", "10/12", "Pneumonia.", " pneumonia "])
async def test_strict_pays_gold_answers_of_any_shape_in_full(answer: str) -> None:
    item = ScoringInput(format_response("CT_SCAN", "t", answer), answer, "q", "CT_SCAN")
    assert (await build_composite({}, AssumedScorers()).score(item)).total == 1.0


@settings(deadline=None, max_examples=60)
@given(
    st.text(min_size=1).filter(lambda t: answer_key(t) and "<" not in t and ">" not in t),
    st.sampled_from([*MODALITIES]),
)
def test_strict_pays_any_gold_answer_in_full(answer: str, tag: str) -> None:
    item = ScoringInput(format_response(tag, "t", answer), answer, "q", tag)
    assert asyncio.run(build_composite({}, AssumedScorers()).score(item)).total == 1.0


@pytest.mark.slow
def test_a_preset_named_over_the_groups_components_is_refused_and_the_group_itself_works() -> None:
    # Hydra's group has laid strict's options over it by then: it would train `strict` under the name `paper`.
    omegaconf = pytest.importorskip("omegaconf")
    pytest.importorskip("verl")
    from medix_verl.run_config import compose_config

    def composite(override: str) -> Any:
        reward = compose_config("medix_cpu", [override]).medix.reward
        return build_composite(omegaconf.OmegaConf.to_container(reward, resolve=True), ASSUMED)

    with pytest.raises(ConfigError, match="reward_preset=paper"):
        composite("medix.reward.preset=paper")
    paper = composite("reward_preset=paper")
    assert paper.table() == build_composite({"preset": "paper"}, ASSUMED).table()


async def test_a_scorer_that_fails_is_raised_through() -> None:
    class FakeOutage:
        async def judge(self, request: JudgeRequest) -> Verdict:
            raise ScorerError("There is no judge.", "Start it.")

        async def similarity(self, reference: str, candidate: str) -> Similarity:
            return Similarity(0.99)

    with pytest.raises(ScorerError, match="no judge"):
        await build_composite({}, FakeOutage()).score(RIGHT)


@pytest.mark.parametrize(
    ("judge_says", "cosine", "differs"),
    # A NO vetoes the embedder's pay: both components are 0 at 0.9, and yet they differ in what they say.
    [(True, 0.9, 0.0), (False, 0.1, 0.0), (True, 0.1, 1.0), (False, 0.9, 1.0)],
)
async def test_judge_and_embedder_differ_by_what_they_say(judge_says: bool, cosine: float, differs: float) -> None:
    flat = (await build_composite({}, AssumedScorers(judge_says, cosine)).score(RIGHT)).flat()
    assert flat["judge_embedder_disagree"] == differs
    exact = ScoringInput(format_response("X_RAY", "t", "pneumonia"), "pneumonia", "Diagnosis?", "X_RAY")
    unasked = (await build_composite({}, AssumedScorers()).score(exact)).flat()
    assert (unasked["judge_embedder_disagree"], unasked["judge_asked"], flat["judge_asked"]) == (-1.0, 0.0, 1.0)


async def test_faults_of_the_judge_are_those_since_the_response_before() -> None:
    scorers = AssumedScorers(True, 0.9)
    composite = build_composite({}, scorers)
    found = []
    for faults in (2, 2, 5):
        object.__setattr__(scorers, "judge_faults", faults)
        found.append((await composite.score(RIGHT)).flat()["judge_faults"])
    assert found == [2.0, 0.0, 3.0]


async def test_only_so_many_responses_are_worked_on_at_once() -> None:
    """Ten responses, three at once: all are scored, and never more than three wait for the judge."""

    class CountingScorers(AssumedScorers):
        waiting = most = 0

        async def judge(self, request: JudgeRequest) -> Verdict:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            await asyncio.sleep(0.001)
            self.waiting -= 1
            return await super().judge(request)

    scorers = CountingScorers(judge_says=True, cosine=0.9)
    composite = build_composite({"components": {"embed_accuracy": None}}, scorers, at_once=3)
    items = [
        ScoringInput(f"<X_RAY><thinking>t</thinking><answer>a{n}</answer>", "reference", "q") for n in "bcdfghjklm"
    ]
    scores = await asyncio.gather(*(composite.score(item) for item in items))
    assert len(scores) == 10
    assert scorers.most == 3


async def test_the_example_component_works_by_path() -> None:
    config = components(brevity={"path": f"{EXAMPLE}:brevity", "weight": 0.1, "words": 4})
    composite = build_composite(config, ASSUMED)
    long = ScoringInput(format_response("X_RAY", "t", "a b c d e f g h"), "pneumonia", "q", "X_RAY")
    # 2 words of 4 allowed: 1; 8 words: 4 / 8.
    assert (await composite.score(RIGHT)).flat()["brevity"] == 1.0
    assert (await composite.score(long)).flat()["brevity"] == 0.5
    assert {row["component"]: row["effective"] for row in composite.table()}["brevity"] == pytest.approx(0.1 / 1.1)


def custom(tmp_path: Path, code: str, **options: Any) -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(code)
    return components(mine={"path": f"{tmp_path}/mine.py:f", "weight": 1, **options})


@pytest.mark.parametrize("value", ["1 / 0", "2.0", "float('nan')", "None"])
async def test_a_broken_component_is_a_fault_and_never_a_score(value: str, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match="mine"):
        await build_composite(custom(tmp_path, f"def f(item): return {value}"), ASSUMED).score(RIGHT)


@pytest.mark.parametrize(
    "code",
    [
        "def f(item, min_words): return 1.0",  # an option without a default, not set
        "def f(): return 1.0",
        "def f(item, *, others): return 1.0",
        "x = undefined\ndef f(item): return 1.0",
        "x = {}['a']\ndef f(item): return 1.0",
        "import sys; sys.exit(3)\ndef f(item): return 1.0",
        "class f:\n    def __init__(self): open('/nonexistent')\n    def __call__(self, item): return 1.0",
        "class f: pass",
        "f = 3",
        "def f(item): return 1.0\nf.needs = 'jugde'",
    ],
)
def test_a_component_that_can_not_be_called_fails_at_the_start(code: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine"):
        build_composite(custom(tmp_path, code), ASSUMED)


@pytest.mark.parametrize(
    ("code", "options", "expected"),
    [
        (f"async def f(item, words=1, scorers=None): {COSINE}", {"words": 3}, 0.9),
        (f"async def f(item, words=1, scorers=None): {COSINE}", {}, 0.9),
        (f"async def f(item, *, scorers): {COSINE}", {}, 0.9),
        (f"async def f(item, scorers): {COSINE}\nf.needs='similarity'", {}, 0.9),
        ("import numpy as np\ndef f(item): return np.float32(0.9)", {}, 0.9),
        ("import numpy as np\nfrom reward_fns import *\ndef f(item): return ComponentScore(np.float32(0.9))", {}, 0.9),
        ("def f(item): return 1", {}, 1.0), ("def f(item): return True", {}, 1.0),
    ],
)  # fmt: skip
async def test_a_component_gets_the_scorers_by_name_and_gives_any_number(
    code: str, options: dict[str, Any], expected: float, tmp_path: Path
) -> None:
    value = (await build_composite(custom(tmp_path, code, **options), ASSUMED).score(RIGHT)).flat()["mine"]
    assert (type(value), value) == (float, pytest.approx(expected))


async def test_a_scorer_that_a_component_misses_is_named_not_the_component(tmp_path: Path) -> None:
    config = custom(tmp_path, f"async def f(item, scorers): {COSINE}\nf.needs = ('similarity',)")
    config["components"]["embed_accuracy"] = None
    with pytest.raises(ConfigError, match="--embedder"):
        await build_composite(config, AssumedScorers(judge_says=True)).score(RIGHT)
