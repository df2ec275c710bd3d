"""The report in a real browser: renders, filters, shows images, is safe against what a model writes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from data_prep.records import Unfit
from evaluation.generate import keep_thumbnail
from evaluation.options import Scoring
from evaluation.report import write_report
from evaluation.run_folder import RunFolder
from evaluation.score import score
from medix.errors import EvaluationError
from medix.pages import json_block
from tests.evaluation.conftest import row
from tests.evaluation.layouts import png

HOSTILE = "</script><script>window.harmed=1</script><img src=x onerror='window.harmed=1'>\u2028<!--"
PICTURE = "0123456789abcdef"
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Fifty items: 47 right, one hostile and unjudged, one without an answer, one choice in another task."""
    run = RunFolder(tmp_path / "run")
    task = {"version": 1, "judging": "verdict", "group": "sample"}
    tasks = {"sample": task | {"items": 49, "refused": {"missing_image": 1}}, "other": task | {"items": 1}}
    generate = {"run": "r", "model": {"model": HOSTILE}, "prompt": "bare", "limit": None, "tasks": tasks}
    run.update_settings("generate", generate | {"decoding": {}, "complete": True})
    run.note_asked("sample", [f"k{number}" for number in range(49)])
    run.note_asked("other", ["k49"])
    keep_thumbnail(run.images, PICTURE, png(200, 40))
    with run.generations.writer() as writer:
        for number in range(47):
            writer.append(row(key=f"k{number}", id=f"item-{number}", question=f"What is seen in {number}?"))
        writer.append(
            row(key="k47", response=HOSTILE, question=HOSTILE, images=[PICTURE], modality="CT_SCAN", id=HOSTILE)
        )
        writer.append(row(key="k48", response="", modality=None))
        choice = {"kind": "choice", "choices": ["lung", "liver"], "letter": "A", "task": "other", "response": "B"}
        writer.append(row(key="k49", **choice))
    score(run, Scoring(max_unscored=0.1, max_refused=0.1))
    return run


def test_json_in_a_script_can_not_end_it():
    text = str(json_block({"a": HOSTILE}))
    assert "<" not in text
    assert json.loads(text) == {"a": HOSTILE}


def test_the_page_is_self_contained_and_escaped(folder):
    page = write_report(folder).read_text()
    assert page.count("<script") == 3  # two of data, one of ours
    assert HOSTILE not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)


def test_a_report_needs_scores(tmp_path):
    with pytest.raises(EvaluationError, match="no scores in"):
        write_report(RunFolder(tmp_path))


@pytest.mark.parametrize(("name", "data"), [("not an image", b"GIF89a nonsense"), ("empty", b"")])
def test_bad_images_are_refused(tmp_path, name, data):
    with pytest.raises(Unfit):
        keep_thumbnail(tmp_path, "x", data)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\x02\0\0\0"  # claims 65,536 x 65,536
    with pytest.raises(Unfit):
        keep_thumbnail(tmp_path, "x", header + b"\0" * 100)


@pytest.mark.slow
def test_in_a_browser(folder, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    page_file = write_report(folder)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(page_file.as_uri())
        assert page.locator("#count").inner_text() == "50 of 50 items"
        assert "Unscored: 1 of 50. Refused rows: 1." in page.locator("body").inner_text()
        assert page.locator("article").count() == 40
        page.click("#next")
        assert page.locator("article").count() == 10
        page.select_option("#verdict", "wrong")
        assert page.locator("#count").inner_text() == "2 of 50 items"
        page.select_option("#task", "other")
        assert page.locator("article.wrong").count() == 1
        assert "B" in page.locator("article dd").all_inner_texts()
        page.select_option("#task", "")
        page.select_option("#verdict", "unscored")
        page.select_option("#modality", "CT_SCAN")
        assert page.locator("article.unscored").count() == 1
        assert HOSTILE.replace("\u2028", "") in page.locator("article strong").inner_text().replace("\u2028", "")
        size = page.evaluate(
            "(i => [i.complete, i.naturalWidth, i.naturalHeight])(document.querySelector('article img'))"
        )
        assert size == [True, 40, 40]
        page.select_option("#verdict", "")
        page.select_option("#modality", "")
        page.fill("#text", "seen in 12?")
        assert page.locator("#count").inner_text() == "1 of 50 items"
        page.fill("#text", "")
        page.check("#disagree")
        assert page.locator("#count").inner_text() == "0 of 50 items"
        assert page.evaluate("window.harmed") is None
        assert page.locator("script").count() == 3
        for scheme, width in (("light", 1400), ("dark", 800), ("dark", 390)):
            page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            wanted = "rgb(17, 20, 24)" if scheme == "dark" else "rgb(246, 247, 249)"
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == wanted
            kept = Path(os.environ.get("MEDIX_SCREENSHOTS", tmp_path)) / f"evaluation-{scheme}-{width}.png"
            page.screenshot(path=kept)
            assert kept.stat().st_size > 5_000
        assert said == []
        browser.close()
