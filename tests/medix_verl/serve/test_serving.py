"""Serving as a user meets it: the rule-judge stands in for vLLM, everything around it is real."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from evaluation.backends.server_process import claim_port
from medix.errors import ConfigError
from medix_verl.serve.vllm import embedder_command, judge_command, served_name, server_environment, share_gpus

# `medix serve judge`, but for the server's command line.
SERVE = """
import sys
from functools import partial
from pathlib import Path
from medix_verl.cli import app
from medix_verl.serve.probe import probe_judge
from medix_verl.serve.replicas import Serving
port, replicas, parent, model = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) or None, sys.argv[4]
medix = [sys.executable, "-c", "from medix_verl.cli import main; main()"]
command = lambda at: [*medix, "serve", "rule-judge", "--port", str(at)]
serving = Serving("127.0.0.1", port, replicas, 1, "", Path("logs"), 30.0, parent)
serving.run("judge", command, partial(probe_judge, model=model, api_key_env=""), lambda urls: print(*urls, flush=True))
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(replicas: int = 1, port: int = 0, parent: int = 0, model: str = "rule-judge") -> subprocess.Popen[str]:
        arguments = [str(port), str(replicas), str(parent), model]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", SERVE, *arguments],
                cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    urls = process.stdout.readline().split()
    assert urls, process.communicate()[1]
    return urls


def servers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_two_replicas_are_announced_once_they_answer_and_end_with_a_signal(
    start: Start, number: signal.Signals
) -> None:
    process = start(replicas=2)
    urls = first_line(process)
    servers = servers_of(process)
    assert len(set(urls)) == len(servers) == 2
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    assert err.count("rule-judge answered YES") == 2
    assert f"stopping: {number.name}" in err
    assert not any(server.is_running() for server in servers)


@pytest.mark.slow
def test_a_replica_that_dies_is_reported_and_the_last_one_ends_the_command(start: Start) -> None:
    process = start(replicas=2)
    first_line(process)
    first, second = servers_of(process)
    first.kill()
    assert process.stderr is not None
    said = ""
    while "1 of 2 replicas are left" not in said:
        said += process.stderr.readline()
    assert "to go on serving; found exit code -9" in said
    second.kill()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ScorerError" in err


@pytest.mark.slow
def test_the_servers_end_with_the_process_that_needed_them(start: Start) -> None:
    parent = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    process = start(parent=parent.pid)
    first_line(process)
    servers = servers_of(process)
    parent.kill()  # and nobody waits for it, as in a shell that reads our output
    _, err = process.communicate(timeout=20)
    parent.wait()
    assert (process.returncode, f"process {parent.pid} is gone" in err) == (0, True)
    assert not any(server.is_running() for server in servers)


@pytest.mark.slow
def test_a_server_that_does_not_answer_sensibly_is_not_announced(start: Start) -> None:
    process = start(model="another-model")
    out, err = process.communicate(timeout=30)
    assert out == ""
    assert "HTTP 404" in err
    assert process.returncode == 1


@pytest.mark.slow
def test_a_taken_port_is_refused_before_anything_starts(start: Start) -> None:
    port = claim_port("127.0.0.1", 0)
    first = start(port=port)
    first_line(first)
    began = time.monotonic()
    _, err = start(port=port).communicate(timeout=20)
    assert f"port {port} free on 127.0.0.1" in err
    assert "starting judge" not in err
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("gpus", "replicas", "each", "shares"),
    [
        ([], 2, 1, [[], []]),
        (["0", "1", "2", "3"], 2, 2, [["0", "1"], ["2", "3"]]),
        (["4", "5", "6"], 2, 1, [["4"], ["5"]]),
    ],
)
def test_gpus_of_each_replica(gpus: list[str], replicas: int, each: int, shares: list[list[str]]) -> None:
    assert share_gpus(gpus, replicas, each) == shares


@pytest.mark.parametrize(("replicas", "each", "found"), [(2, 2, "found 3"), (0, 1, "found 0 of 1")])
def test_too_few_gpus_are_refused(replicas: int, each: int, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        share_gpus(["0", "1", "2"], replicas, each)


def test_the_key_travels_by_environment_and_never_by_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "s3cret")
    assert server_environment("MY_JUDGE_KEY", [])["VLLM_API_KEY"] == "s3cret"
    assert "s3cret" not in " ".join(judge_command("m", "m", "127.0.0.1", 1, 8192, 4))
    monkeypatch.delenv("MY_JUDGE_KEY")
    with pytest.raises(ConfigError, match="MY_JUDGE_KEY"):
        server_environment("MY_JUDGE_KEY", [])


def test_each_replica_sees_its_own_gpus() -> None:
    assert server_environment("", ["2", "3"])["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "CUDA_VISIBLE_DEVICES" not in server_environment("", [])


def test_what_vllm_is_told() -> None:
    judge = " ".join(judge_command("/models/judge", "judge", "127.0.0.1", 8000, 4096, 64))
    assert "--host 127.0.0.1 --port 8000" in judge
    assert "--max-model-len 4096 --max-num-seqs 64 --enable-prefix-caching" in judge
    assert "--runner pooling --convert embed" in " ".join(embedder_command("/m", "m", "127.0.0.1", 8100, 64))


def test_a_folder_is_served_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "my-judge").mkdir()
    assert served_name(str(tmp_path / "my-judge")) == "my-judge"
    assert served_name("Qwen/Qwen3-4B") == "Qwen/Qwen3-4B"
