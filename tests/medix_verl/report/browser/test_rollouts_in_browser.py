"""The rollout browser: filters, keys, links, and hostile text that stays text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RTL = "\u202e"


def expect_count(page: Any, text: str) -> None:
    """Waits: the list is filtered once typing has paused."""
    playwright.expect(page.locator("#count")).to_contain_text(f"{text} of 69 groups", timeout=10_000)


FILTERS = {
    # All: 12 steps x 3 groups + the hostile one in training; 4 validations (0, 4, 8, 12) x 8 prompts.
    "validation": ({"part": "val"}, 32),
    "everything": ({"part": ""}, 69),
    "one step": ({"from": "5", "to": "5"}, 3),
    "from a step": ({"from": "12"}, 4),
    "groups without spread in the validation": ({"part": "val", "only": "spread"}, 0),
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
        box.select_option(value) if field in ("part", "modality", "only") else box.fill(value)
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
    for _ in range(40):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                "document.activeElement.className || document.activeElement.name || document.activeElement.id"
            )
        )
    assert order[0] == "skip"
    fields = [name for name in order if name in ("part", "from", "to", "modality", "only", "sort", "find")]
    assert fields == ["part", "from", "to", "modality", "only", "sort", "find"]
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


def test_the_answer_s_colour_is_the_verdict(shared_page: Any, report: Path) -> None:
    shared_page.goto(f"file://{report}#rollouts&from=5&to=5")
    shared_page.wait_for_selector(".seg-answer")
    right, wrong = (
        [card.text_content() for card in shared_page.locator(f".response:has(.{verdict})").all()]
        for verdict in ("right", "wrong")
    )
    assert right
    assert wrong
    assert all("Judge: YES" in text for text in right)
    assert all("Judge: NO" in text for text in wrong)


def test_a_click_enlarges_a_picture_and_another_makes_it_small(open_page: Callable[..., Any]) -> None:
    page = open_page("#rollouts&group=3%2Fuid-3-0")
    page.wait_for_selector("#group img")
    small = page.locator("#group img").bounding_box()["width"]
    page.click("#group img")
    assert page.locator("#group img").bounding_box()["width"] > 4 * small
    page.click("#group img")
    assert page.locator("#group img").bounding_box()["width"] == small


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
