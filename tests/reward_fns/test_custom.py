"""Components from a user's own file: what they may be, what they get, and that their faults are never a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medix.errors import ConfigError, ScorerError
from medix.response import format_response
from reward_fns import AssumedScorers, ScoringInput, build_composite

EXAMPLE = Path(__file__).parents[2] / "examples" / "rewards" / "brevity.py"
RIGHT = ScoringInput(format_response("X_RAY", "t", "lung infection"), "pneumonia", "Diagnosis?", "X_RAY")
ASSUMED = AssumedScorers(judge_says=True, cosine=0.9)


def components(**options: Any) -> dict[str, Any]:
    return {"preset": "strict", "components": options}


async def test_the_example_component_works_by_path() -> None:
    config = components(brevity={"path": f"{EXAMPLE}:brevity", "weight": 0.1, "words": 4})
    composite = build_composite(config, ASSUMED)
    long = ScoringInput(format_response("X_RAY", "t", "a b c d e f g h"), "pneumonia", "q", "X_RAY")
    # 2 words of 4 allowed: 1; 8 words: 4 / 8.
    assert (await composite.score(RIGHT)).flat()["brevity"] == 1.0
    assert (await composite.score(long)).flat()["brevity"] == 0.5
    assert {row["component"]: row["effective"] for row in composite.table()}["brevity"] == pytest.approx(0.1 / 1.1)


@pytest.mark.parametrize(
    "code",
    [
        "def f(item): return 1 / 0",
        "def f(item): return 2.0",
        "def f(item): return float('nan')",
        "def f(item): return None",
    ],
)
async def test_a_broken_component_is_a_fault_and_never_a_score(code: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(code)
    composite = build_composite(components(mine={"path": f"{tmp_path}/mine.py:f", "weight": 1}), ASSUMED)
    with pytest.raises(ScorerError, match="mine"):
        await composite.score(RIGHT)


def custom(tmp_path: Path, code: str, **options: Any) -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(code)
    return components(mine={"path": f"{tmp_path}/mine.py:f", "weight": 1, **options})


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
    ("code", "options"),
    [
        ("async def f(item, words=1, scorers=None): return (await scorers.similarity('a', 'b')).cosine", {"words": 3}),
        ("async def f(item, words=1, scorers=None): return (await scorers.similarity('a', 'b')).cosine", {}),
        ("async def f(item, *, scorers): return (await scorers.similarity('a', 'b')).cosine", {}),
        ("async def f(item, scorers): return (await scorers.similarity('a', 'b')).cosine\nf.needs='similarity'", {}),
        ("import numpy as np\ndef f(item): return np.float32(0.9)", {}),
        ("import numpy as np\nfrom reward_fns import *\ndef f(item): return ComponentScore(np.float32(0.9))", {}),
    ],
)
async def test_a_component_gets_the_scorers_by_name_and_gives_any_number(
    code: str, options: dict[str, Any], tmp_path: Path
) -> None:
    composite = build_composite(custom(tmp_path, code, **options), ASSUMED)
    value = (await composite.score(RIGHT)).flat()["mine"]
    assert type(value) is float
    assert value == pytest.approx(0.9)


@pytest.mark.parametrize(("code", "value"), [("return 1", 1.0), ("return True", 1.0)])
async def test_whole_numbers_and_truth_become_floats(code: str, value: float, tmp_path: Path) -> None:
    found = (await build_composite(custom(tmp_path, f"def f(item): {code}"), ASSUMED).score(RIGHT)).flat()["mine"]
    assert (found, type(found)) == (value, float)


async def test_a_scorer_that_a_component_misses_is_named_not_the_component(tmp_path: Path) -> None:
    code = "async def f(item, scorers): return (await scorers.similarity('a', 'b')).cosine\nf.needs = ('similarity',)"
    config = custom(tmp_path, code)
    config["components"]["embed_accuracy"] = None
    with pytest.raises(ConfigError, match="--embedder"):
        await build_composite(config, AssumedScorers(judge_says=True)).score(RIGHT)
