"""A wheel, built from this tree and installed into an environment of its own, works from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[1]
RESPONSE = "<X_RAY><thinking>I see a lung.</thinking><answer>pneumonia</answer>"
Medix = Callable[..., str]


@pytest.fixture(scope="module")
def medix(tmp_path_factory: pytest.TempPathFactory) -> Medix:
    """Run the installed command in an empty folder, without this tree on the import path; return what it printed."""
    work = tmp_path_factory.mktemp("wheel")
    source, elsewhere = work / "source", work / "elsewhere"
    elsewhere.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, tracked.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", work / "venv"], check=True)
    site = next((work / "venv" / "lib").glob("python*/site-packages"))
    # The dependencies are those of this environment; its own editable install is not seen, as no .pth is read there.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", work, source]
    subprocess.run(build, env=environment, check=True, timeout=120)
    wheel = next(work.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, wheel], env=environment, check=True)

    def run(*arguments: object, **variables: str) -> str:
        code = "from medix_verl.cli import main; main()"
        command = [work / "venv" / "bin" / "python", "-P", "-c", code, *map(str, arguments)]
        env = {**environment, "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **variables}
        done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = elsewhere  # type: ignore[attr-defined]
    return run


@pytest.fixture
def model() -> Iterator[str]:
    """The address of a fake OpenAI-compatible server that gives one and the same response."""

    class Handler(BaseHTTPRequestHandler):
        def _send(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "fake", "object": "model"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": RESPONSE}
            self._send({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_it_is_the_wheel_that_runs(medix: Medix) -> None:
    assert medix("--version") == "medix 0.1.0\n"
    assert "Data and reward" in medix("--help")


def test_score(medix: Medix) -> None:
    (row,) = map(
        json.loads, medix("score", RESPONSE, "--reference", "pneumonia", "--modality", "X_RAY", "--json").splitlines()
    )
    assert row["score"] == 1.0


def test_prepare_sample(medix: Medix) -> None:
    medix("prepare", "sample", "--out", "data")
    folder = medix.folder / "data"  # type: ignore[attr-defined]
    assert json.loads((folder / "manifest.json").read_text())["splits"]["train"]["rows"] == 910
    assert (folder / "train.parquet").stat().st_size > 1_000_000


def test_evaluate_the_sample_task(medix: Medix, model: str) -> None:
    arguments = (
        "--model",
        "fake",
        "--model-url",
        model,
        "--tasks",
        "sample",
        "--limit",
        4,
        "--judge-url",
        "rule-judge",
    )
    medix("eval", "run", "--out", "evaluation", *arguments)
    folder = medix.folder / "evaluation"  # type: ignore[attr-defined]
    assert json.loads((folder / "scores.json").read_text())["tasks"]["sample"]["items"] == 4


@pytest.mark.parametrize("recipe", ["medix_cpu", "medix_7b"])
def test_a_recipe_is_shown(medix: Medix, recipe: str) -> None:
    judge = {"JUDGE_URL": "http://127.0.0.1:1/v1", "JUDGE_MODEL": "fake"}
    shown = medix("recipe", recipe, DRY_RUN="1", **({} if recipe == "medix_cpu" else judge))
    assert f"{recipe}: what would run" in shown
    assert "pkg://medix_verl.plugins.reward_manager" in shown


def test_report(medix: Medix) -> None:
    run = medix.folder / "run"  # type: ignore[attr-defined]
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "data": {"reward/score/mean": 0.5}}\n')
    assert medix("report", run).split() == [str(run / name) for name in ("report.html", "curve.png", "curve.csv")]
