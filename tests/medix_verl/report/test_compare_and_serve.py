"""Runs compared on one page, and a page that follows a live run."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medix.errors import ConfigError, DataError
from medix_verl.cli import app
from medix_verl.report.compare import labels, results, write_comparison
from medix_verl.report.run_folder import load_run
from medix_verl.report.serve import LivePage, make_server


def test_the_ablation_table_has_a_column_a_run(synthetic_run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = [{"step": 5, "data": {"reward/score/mean": 0.5, "val-core/medix_sample/acc/mean@1": 0.25}}]
    (tmp_path / "other" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = dict(results([load_run(synthetic_run), load_run(tmp_path / "other")]))
    assert table["Steps"] == ["12", "5"]
    assert table["Last validation accuracy, medix_sample"][1] == "0.250 (step 5)"
    assert table["Reward, last steps"][1] == "0.500"
    assert table["format, last steps"][1] == "–"


def test_the_page_puts_the_differing_settings_first(synthetic_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text((synthetic_run / "config.yaml").read_text().replace("lr: 0.0004", "lr: 0.1"))
    page = write_comparison([synthetic_run, other]).read_text(encoding="utf-8")
    at = page.index("actor_rollout_ref.actor.optim.lr")
    assert at < page.index("Results")
    assert "actor_rollout_ref.rollout.n" not in page


def test_two_runs_of_one_name_are_told_apart(synthetic_run: Path) -> None:
    run = load_run(synthetic_run)
    assert labels([run, run]) == ["synthetic-run (1)", "synthetic-run (2)"]


@pytest.fixture
def address(synthetic_run: Path) -> Iterator[str]:
    with make_server(synthetic_run, 0, pace=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert server.server_address[0] == "127.0.0.1"
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return bytes(answer.read())


def test_the_served_state_changes_when_the_run_goes_on(address: str, synthetic_run: Path) -> None:
    page = get(address + "/").decode()
    state = json.loads(get(address + "/state"))["state"]
    assert f'data-state="{state}"' in page
    assert "connect-src &#39;self&#39;" in page
    with (synthetic_run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "data": {"reward/score/mean": 0.5}}\n')
    assert json.loads(get(address + "/state"))["state"] != state
    assert "13 of 12" in get(address + "/").decode()


@pytest.mark.parametrize("path", ["/metrics.jsonl", "/../config.yaml"])
def test_nothing_but_the_page_is_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(address + path)


def test_another_sites_name_for_this_machine_is_refused(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(address + "/", Host="evil.example")


def test_a_page_is_not_made_anew_all_the_time(synthetic_run: Path) -> None:
    live = LivePage(synthetic_run)
    first = live.page()
    (synthetic_run / "metrics.jsonl").write_text("")
    assert live.page() is first


def test_a_taken_port_is_a_clear_error(synthetic_run: Path) -> None:
    with make_server(synthetic_run, 0) as server, pytest.raises(ConfigError, match="--port 0"):
        make_server(synthetic_run, server.server_port)


def test_the_command_writes_page_and_curve_and_prints_their_paths(synthetic_run: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(synthetic_run)])
    assert result.exit_code == 0
    assert [Path(line).name for line in result.output.split()] == ["report.html", "curve.png", "curve.csv"]


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
    assert isinstance(result.exception, DataError)
