"""The page of a synthetic run in a real headless Chromium.

Needs Debian's `chromium` and the package `playwright`; without them the tests here are skipped, with the reason.
`MEDIX_SCREENSHOTS` names a folder that keeps the screenshots.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medix_verl.report.page import write_report

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOSTILE = (
    "<X_RAY><thinking><script>window.stolen=1</script>\u202etxt</thinking>"
    "<answer><img src=x onerror=window.stolen=1></answer>"
)


@pytest.fixture(scope="module")  # while its driver lives, nothing else in this process can run an event loop
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
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

    def open_it(address: str = "", path: Path = report, wait_for: str = "html[data-ready=yes]", **context: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or faults.append(request.url)
        )
        page.goto(f"file://{path}{address}")
        page.wait_for_selector(wait_for)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., None]:
    """Keeps a screenshot."""

    def keep_it(page: Any, name: str, full_page: bool = False) -> None:
        folder = Path(os.environ.get("MEDIX_SCREENSHOTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path, full_page=full_page)
        assert path.stat().st_size > 5_000

    return keep_it
