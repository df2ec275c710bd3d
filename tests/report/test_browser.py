"""The page in a real headless Chromium: what a reader does with it, and what hostile text does not do to it.

Needs Debian's `chromium` and the package `playwright`; without them every test here is skipped, with the reason.
`MEDIX_AXE_JS` may name axe-core's `axe.min.js`, to run it beside our own checks; `MEDIX_SCREENSHOTS` a folder that
keeps the screenshots.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medix.report.page import write_report
from medix.report.serve import make_server

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]
RTL = "\u202e"
HOSTILE = (
    f"<X_RAY><thinking><script>window.stolen=1</script>{RTL}txt</thinking>"
    "<answer><img src=x onerror=window.stolen=1></answer>"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(make_synthetic_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 x 3 groups of 4, and a hostile group at step 12 with a megabyte of text and a paid answer of one letter."""
    run = make_synthetic_run(tmp_path_factory.mktemp("browser") / "synthetic-run")
    scored = run / "rollouts" / "scored.jsonl"
    last = json.loads(scored.read_text().splitlines()[-1])
    base = {**last, "step": 12, "split": "train", "group": "hostile", "question": HOSTILE, "sample_id": "constructor"}
    judge = {"correct": True, "raw": HOSTILE, "latency_s": 0.1, "attempts": 1}
    texts = (HOSTILE, "<X_RAY><thinking>" + "x" * 1_000_000, "<X_RAY><thinking>.</thinking><answer>B</answer>")
    with scored.open("a") as file:
        for session, text in enumerate(texts):
            scores = {**base["scores"], "llm_accuracy": 1.0}
            row = {**base, "session": session, "response": text, "scores": scores, "detail": {"judge": judge}}
            file.write(json.dumps(row) + "\n")
    return write_report(run)


@pytest.fixture
def open_page(browser: Any, report: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page and fails the test for any script error or any request but the file itself."""
    contexts, faults = [], []

    def open_it(address: str = "", path: Path = report, **context: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or faults.append(request.url)
        )
        page.goto(f"file://{path}{address}")
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert faults == []


def expect_count(page: Any, text: str) -> None:
    """Waits: the list is filtered once typing has paused."""
    playwright.expect(page.locator("#count")).to_contain_text(f"{text} of 69 groups", timeout=10_000)


def keep(page: Any, name: str, tmp_path: Path, full_page: bool = False) -> None:
    folder = Path(os.environ.get("MEDIX_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=full_page)
    assert path.stat().st_size > 20_000


def test_charts_are_drawn_and_a_screenshot_is_kept(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page()
    page.wait_for_selector("#plot-main .main-svg")
    assert page.locator("#plot-main .scatterlayer .trace").count() >= 6  # reward, four components, band, validations
    for place in page.locator(".plot").all():
        place.scroll_into_view_if_needed()
        playwright.expect(place.locator(".main-svg").first).to_be_attached()
    page.evaluate("window.scrollTo(0, 0)")
    keep(page, "report-light", tmp_path, full_page=True)


FILTERS = {
    # All: 12 steps x 3 groups + the hostile one in training; 4 validations (0, 4, 8, 12) x 8 prompts.
    "validation": ({"part": "val"}, 32),
    "everything": ({"part": ""}, 69),
    "one step": ({"from": "5", "to": "5"}, 3),
    "from a step": ({"from": "12"}, 4),
    "reward above all": ({"low": "1.1"}, 0),
    "found in the question": ({"find": "window.STOLEN"}, 1),
    # Validation asks each of the four cases twice, one of them with CT, four times.
    "modality and part": ({"part": "val", "modality": "CT_SCAN"}, 8),
}


@pytest.fixture(scope="module")
def shared_page(browser: Any, report: Path) -> Any:
    page = browser.new_page()
    page.goto(f"file://{report}")
    page.wait_for_selector("html[data-ready=yes]")
    return page


@pytest.mark.parametrize("name", FILTERS)
def test_filters(shared_page: Any, name: str) -> None:
    values, expected = FILTERS[name]
    for field, value in values.items():
        box = shared_page.locator(f"#filters [name={field}]")
        box.select_option(value) if field in ("part", "modality") else box.fill(value)
    expect_count(shared_page, str(expected))
    shared_page.click("#filters button[type=reset]")
    expect_count(shared_page, "37")


def test_a_monitor_leads_to_its_rollouts(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.click("#figure-short_paid a")
    # The one planted: an answer of "B" that was paid, with a longer reference.
    expect_count(page, "1")
    playwright.expect(page.locator("#group .facts")).to_contain_text("short answer paid")


def test_flags_filter(shared_page: Any) -> None:
    shared_page.select_option("[name=only]", "no_spread")
    playwright.expect(shared_page.locator("#count")).not_to_contain_text("37 of")
    assert all("no spread" in text for text in shared_page.locator("#list .row").all_text_contents())
    shared_page.click("#filters button[type=reset]")
    expect_count(shared_page, "37")


def test_sort(shared_page: Any) -> None:
    shared_page.select_option("[name=sort]", "mean")
    playwright.expect(shared_page).to_have_url(re.compile("sort=mean"))
    means = [float(text) for text in shared_page.locator("#list .row .mean").all_text_contents()]
    assert len(means) > 5
    assert means == sorted(means)
    shared_page.click("#filters button[type=reset]")


def test_keyboard_walks_the_list_and_into_the_group(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator("#list").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    assert page.get_attribute("#list", "aria-activedescendant") == "row-1"
    assert page.get_attribute("#row-1", "aria-selected") == "true"
    page.keyboard.press("End")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-36"
    assert page.locator("#list .row").count() < 37  # only the rows in view exist
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "group"


def test_tab_reaches_everything_in_reading_order(open_page: Callable[..., Any]) -> None:
    page = open_page()
    order = []
    for _ in range(26):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                "document.activeElement.className || document.activeElement.name || document.activeElement.id"
            )
        )
    assert order[0] == "skip"
    fields = [
        name for name in order if name in ("part", "from", "to", "modality", "low", "high", "only", "sort", "find")
    ]
    assert fields == ["part", "from", "to", "modality", "low", "high", "only", "sort", "find"]
    assert order.index("find") < next(i for i, name in enumerate(order) if "card" in name or name == "list")


def test_a_link_leads_to_one_rollout_and_keeps_the_filters(open_page: Callable[..., Any]) -> None:
    page = open_page("#rollouts&from=5&to=7&group=6%2Fuid-6-1&response=2")
    page.wait_for_selector(".response.linked")
    assert page.text_content(".response.linked h4") == "Response 2"
    expect_count(page, "9")  # three steps of three
    assert "step 6" in str(page.text_content("#group .facts"))
    page.locator("#group .response a").nth(3).click()
    assert page.evaluate("location.hash") == "#rollouts&from=5&to=7&group=6%2Fuid-6-1&response=3"
    assert page.text_content(".response.linked h4") == "Response 3"


def test_a_link_to_a_validation_rollout_works_by_itself(open_page: Callable[..., Any]) -> None:
    page = open_page("#rollouts&group=4%2Fval%2Fval-4-3&response=0")
    page.wait_for_selector(".response.linked")
    assert "validation" in str(page.text_content("#group .facts"))
    assert page.locator("#group .adv").count() == 0


def test_a_group_shows_picture_scores_verdict_and_advantage(open_page: Callable[..., Any]) -> None:
    page = open_page("#rollouts&group=3%2Fuid-3-0")
    page.wait_for_selector(".response")
    assert page.evaluate("document.querySelector('#group img').naturalWidth") == 64
    assert page.locator(".response").count() == 4
    first = str(page.text_content(".response >> nth=0"))
    for text in ("advantage", "llm_accuracy", "embed_similarity", "Judge: "):
        assert text in first
    assert page.locator(".response >> nth=0 >> .seg-tag").count() == 1
    assert page.locator(".response .seg-thinking").count() >= 1


def test_hostile_text_stays_text(open_page: Callable[..., Any]) -> None:
    page = open_page("#rollouts&group=12%2Fhostile")
    page.wait_for_selector(".response")
    assert page.evaluate("window.stolen") is None
    assert page.locator("#rollouts script, #group img[src=x]").count() == 0
    assert "<script>window.stolen=1</script>" in str(page.text_content(".response >> nth=0"))
    assert "U+202E" in str(page.text_content(".response >> nth=0"))
    assert RTL not in str(page.text_content("#rollouts"))
    long = str(page.text_content(".response >> nth=1"))
    assert "more characters in line" in long
    assert len(long) < 10_000


def test_dark_mode_by_the_systems_wish_and_when_it_changes(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(color_scheme="dark")
    page.wait_for_selector("#plot-main .main-svg")
    colours = (
        "[getComputedStyle(document.body).backgroundColor, document.querySelector('#plot-main .xtick text').style.fill]"
    )
    dark = page.evaluate(colours)
    keep(page, "report-dark", tmp_path)
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(500)
    light = page.evaluate(colours)
    assert dark[0] == "rgb(17, 20, 24)"
    assert dark[1] == "rgb(232, 234, 237)"
    assert light[0] == "rgb(246, 247, 249)"
    assert light[1] == "rgb(22, 25, 29)"


def test_narrow_screen_needs_no_sideways_scrolling(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page("#rollouts&group=12%2Fhostile", viewport={"width": 360, "height": 740})
    page.wait_for_selector(".response")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, "report-narrow", tmp_path)


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


def test_curve_is_saved_as_csv_and_png(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.wait_for_selector(".downloads")
    with page.expect_download() as table:
        page.click("text=Save as CSV")
    lines = table.value.path().read_text().splitlines()
    assert lines[0].startswith('step,"reward","llm_accuracy"')
    assert len(lines) == 1 + 13  # steps 1 to 12, and the validation at 0
    with page.expect_download() as picture:
        page.click("text=Save as PNG")
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_served_page_follows_the_run(browser: Any, make_synthetic_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_synthetic_run(tmp_path / "live", steps=4)
    with make_server(run, 0, pace=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("html[data-ready=yes]")
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "data": {"reward/score/mean": 0.5}}\n{"step": 6, "da')
        page.wait_for_selector("text=5 of 12", timeout=20_000)
        page.close()
        server.shutdown()


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
