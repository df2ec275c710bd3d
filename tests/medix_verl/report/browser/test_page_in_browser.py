"""The page as a whole: charts, colour schemes, widths, accessibility, and time.

`MEDIX_AXE_JS` may name axe-core's `axe.min.js`, to run it beside our own checks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medix_verl.cli import app
from medix_verl.report.compare import write_comparison
from medix_verl.report.page import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_charts_are_drawn_and_a_screenshot_is_kept(open_page: Callable[..., Any], keep: Callable[..., None]) -> None:
    page = open_page()
    page.wait_for_selector("#plot-main .main-svg")
    assert page.locator("#plot-main .scatterlayer .trace").count() >= 6  # reward, four components, band, validations
    for place in page.locator(".plot").all():
        place.scroll_into_view_if_needed()
        playwright.expect(place.locator(".main-svg").first).to_be_attached()
    page.evaluate("window.scrollTo(0, 0)")
    keep(page, "report-light", full_page=True)


def test_dark_mode_when_the_system_wants_it(open_page: Callable[..., Any], keep: Callable[..., None]) -> None:
    page = open_page(color_scheme="dark")
    page.wait_for_selector("#plot-main .main-svg")
    colours = (
        "[getComputedStyle(document.body).backgroundColor, document.querySelector('#plot-main .xtick text').style.fill]"
    )
    dark = page.evaluate(colours)
    keep(page, "report-dark")
    page.emulate_media(color_scheme="light")
    tick = page.locator("#plot-main .xtick text").first
    playwright.expect(tick).to_have_css("fill", "rgb(22, 25, 29)", timeout=30_000)
    light = page.evaluate(colours)
    assert dark[0] == "rgb(17, 20, 24)"
    assert dark[1] == "rgb(232, 234, 237)"
    assert light[0] == "rgb(246, 247, 249)"
    assert light[1] == "rgb(22, 25, 29)"


def test_narrow_screen_needs_no_sideways_scrolling(open_page: Callable[..., Any], keep: Callable[..., None]) -> None:
    page = open_page("#rollouts&group=12%2Fhostile", viewport={"width": 360, "height": 740})
    page.wait_for_selector(".response")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, "report-narrow")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 360)])
def test_accessibility_has_no_serious_finding(open_page: Callable[..., Any], scheme: str, width: int) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    page.wait_for_selector("#plot-main .main-svg")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate((Path(__file__).parent / "accessibility.js").read_text()) == []
    if axe := os.environ.get("MEDIX_AXE_JS"):
        page.evaluate(Path(axe).read_text())
        found = page.evaluate("axe.run()")["violations"]
        assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []


def test_the_accessibility_check_finds_what_is_wrong(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', "
        '\'<img src="data:,"><button></button><p style="color:#999;background:#fff">pale</p><h4>deep</h4>\')'
    )
    found = " ".join(page.evaluate((Path(__file__).parent / "accessibility.js").read_text()))
    for words in ("picture without a text", "control without a name", 'contrast 2.85 of "pale"', "heading jumps"):
        assert words in found


def test_two_hundred_steps_of_sixty_four_render_and_open_in_time(
    browser: Any,
    make_synthetic_run: Callable[..., Path],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    run = make_synthetic_run(tmp_path / "large", steps=200, groups=8, size=8, thinking_words=120)
    start = time.monotonic()
    path = write_report(run)
    render_s = time.monotonic() - start
    opened = []
    for _ in range(3):  # the best of three: the machine may be busy with something else
        page = browser.new_page()
        start = time.monotonic()
        page.goto(f"file://{path}")
        page.wait_for_selector("html[data-ready=yes]")
        page.wait_for_selector(".response")
        page.wait_for_selector("#plot-main .main-svg")
        opened.append(time.monotonic() - start)
        page.close()
    size_mb = path.stat().st_size / 1e6
    print(f"\n200 x 64: rendered in {render_s:.1f} s, opened in {sorted(opened)} s, {size_mb:.1f} MB")
    record_property("render_s", render_s)
    assert render_s < 30
    assert min(opened) < 3
    assert size_mb < 25


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 800), ("dark", 390)])
def test_data_and_comparison_have_the_same_look(
    open_page: Callable[..., Any],
    keep: Callable[..., None],
    report: Path,
    tmp_path: Path,
    scheme: str,
    width: int,
) -> None:
    prepared = tmp_path / "prepared"
    rows = [{"id": str(i), "question": f"Which organ is number {i}?", "answer": "liver" * 20} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(app, ["prepare", f"jsonl:{tmp_path / 'rows.jsonl'}", "--out", str(prepared)])
    assert result.exit_code == 0, result.output
    compared = write_comparison([report.parent, report.parent], tmp_path / "compare.html")
    context = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    for path in (prepared / "data.html", compared):
        page = open_page(path=path, wait_for="main", **context)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wanted = "rgb(17, 20, 24)" if scheme == "dark" else "rgb(246, 247, 249)"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == wanted
        keep(page, f"{path.stem}-{scheme}-{width}")
