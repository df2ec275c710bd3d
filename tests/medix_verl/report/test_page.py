"""The page as a file: self-contained, bounded, and unmoved by what stands in the run's files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix.errors import DataError
from medix.pages import json_block
from medix_verl.report.page import render_run, write_report
from medix_verl.report.run_folder import load_run

HOSTILE = "</script><script>window.stolen=1</script><img src=x onerror=window.stolen=1>"


def script(page: str, name: str) -> str:
    match = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert match
    return match[1]


def unpacked(page: str, name: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(script(page, name))))


def test_the_page_asks_nothing_of_the_network(synthetic_run: Path) -> None:
    page = write_report(synthetic_run).read_text(encoding="utf-8")
    targets = re.findall(r'(?:src|href)\s*=\s*"([^"]+)"', page)
    assert targets
    assert all(re.match("#|data:|[a-z]+/", target) and "//" not in target[:9] for target in targets)
    assert "default-src &#39;none&#39;" in page
    assert "unsafe-eval" not in page


def test_only_our_own_scripts_are_allowed(synthetic_run: Path) -> None:
    page = write_report(synthetic_run).read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    library = gzip.decompress(base64.b64decode(script(page, "library"))).decode()
    assert len(scripts) == 2
    for code in (*scripts, library):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in html.unescape(page)


def test_the_library_is_the_file_that_the_readme_names() -> None:
    folder = resources.files("medix_verl.report") / "vendor"
    digest = hashlib.sha256((folder / "plotly-basic.min.js").read_bytes()).hexdigest()
    assert digest == "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
    assert "plotly.js-basic-dist-min` 4.1.1" in (folder / "README.md").read_text()


def test_everything_of_a_response_is_in_the_page(synthetic_run: Path) -> None:
    page = write_report(synthetic_run).read_text(encoding="utf-8")
    index, chunk = unpacked(page, "index"), unpacked(page, "chunk-3")
    assert len([group for group in index if group["step"] == 3]) == 3
    responses = chunk["3/uid-3-0"]
    assert [response["session"] for response in responses] == [0, 1, 2, 3]
    assert {(response["raw"], response["right"]) for response in responses} <= {("YES", True), ("NO", False)}
    assert sum(response["advantage"] for response in responses) == pytest.approx(0, abs=1e-3)  # distances from a mean


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts/scored.jsonl", "config.yaml", "versions.json"])
@pytest.mark.parametrize("fate", ["missing", "empty", "cut", "noise", "a list"])
def test_any_file_may_be_missing_or_broken(
    make_synthetic_run: Callable[..., Path], tmp_path: Path, name: str, fate: str
) -> None:
    run = make_synthetic_run(tmp_path, steps=4, groups=1, size=2)
    path = run / name
    content = path.read_bytes()
    if fate == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[:-7], "noise": b"\xff\x00{" * 9, "a list": b"[1, 2]\n"}[fate])
    page = write_report(run).read_text(encoding="utf-8")
    assert "Hacking monitors" in page
    if fate == "missing" and name != "versions.json":
        assert f"{name}: not there (yet)" in page


def test_a_run_that_has_only_begun_has_a_page_and_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the folder of a training run"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    assert "No step logged yet" in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["metrics.jsonl", "rollouts/scored.jsonl", "config.yaml", "guards.jsonl"])
def test_a_file_that_is_a_link_elsewhere_is_left_out(synthetic_run: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"level": "warn", "message": "planted", "step": 1, "data": {"reward/planted/mean": 1}}\n')
    (synthetic_run / name).unlink(missing_ok=True)
    (synthetic_run / name).symlink_to(secret)
    page = write_report(synthetic_run).read_text(encoding="utf-8")
    assert "planted" not in page
    assert f"{name}: left out" in page


def test_a_link_in_the_place_of_the_page_is_replaced_not_followed(synthetic_run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("report.html", "report.html.part"):
        (synthetic_run / name).symlink_to(victim)
    assert write_report(synthetic_run).stat().st_size > 100_000
    assert victim.read_text() == "precious"


def test_text_of_a_run_never_becomes_markup(synthetic_run: Path) -> None:
    (synthetic_run / "config.yaml").write_text(
        json.dumps({"trainer": {"x": HOSTILE}, "data": {"train_files": HOSTILE}})
    )
    (synthetic_run / "guards.jsonl").write_text(json.dumps({"level": HOSTILE, "step": 1, "message": HOSTILE}) + "\n")
    (synthetic_run / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "data": {f"reward/{HOSTILE}/mean": 1.0}}) + "\n"
    )
    (synthetic_run / "reward_table.json").write_text(json.dumps([{"component": HOSTILE, "effective": HOSTILE}, {}]))
    page = write_report(synthetic_run).read_text(encoding="utf-8")
    assert "stolen" in page
    assert "<img src=x" not in page
    assert "<script>window" not in page


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_json_block_can_not_be_ended_from_within(content: object) -> None:
    block = json_block(content)
    assert "<" not in block
    assert block.isascii()
    assert json.loads(block) == content


def test_lone_surrogates_do_not_break_the_page(synthetic_run: Path) -> None:
    (synthetic_run / "guards.jsonl").write_text('{"level": "warn", "step": 1, "message": "\\ud800"}\n')
    assert write_report(synthetic_run).stat().st_size > 100_000


def test_the_same_folder_gives_the_same_page_but_for_the_time(synthetic_run: Path) -> None:
    first, second = (re.sub(rb"Written \S+", b"", render_run(load_run(synthetic_run))) for _ in range(2))
    assert first == second
