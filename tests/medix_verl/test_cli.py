"""The command: its help is there at once, and an expected error of the system or the hub is one message."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf.errors import ConfigAttributeError
from typer.testing import CliRunner

from medix.errors import ConfigError
from medix.processes import child_environment
from medix_verl import cli

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "vllm", "verl", "ray", "pyarrow", "pydantic", "hydra")


def hub_error(name: str, module: str = "huggingface_hub.errors") -> Exception:
    """An error of a library that is not loaded here, told by its name."""
    error: Exception = type(name, (OSError,), {"__module__": module})("401 Client Error.\nCannot access x/y")
    return error


@pytest.mark.parametrize(
    ("error", "problem", "fix"),
    [
        (ConfigError("No.", "Yes."), "No.", "Yes."),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.parquet"), "out/a.parquet: No space", "Free some"),
        (OSError(errno.EROFS, "Read-only file system", "/ro"), "/ro: Read-only", "that can be written"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "/root/x: Permission", "permissions"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "Address already in use.", "another port"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"), "x.csv: No such file", "path"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "x"), "x: Too many levels", "Replace the link"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "x: File name too long.", "Check the path"),
        (hub_error("GatedRepoError"), "401 Client Error.", "hf auth login"),
        (hub_error("OfflineModeIsEnabled"), "401 Client Error.", "HF_HUB_OFFLINE"),
        (hub_error("ConnectError", "httpx"), "401 Client Error.", "HTTPS_PROXY"),
        (ConfigAttributeError("Key 'trainer' is not in struct"), "Key 'trainer' is not", "Correct the override"),
    ],
)
def test_an_expected_error_is_a_problem_and_a_remedy(error: Exception, problem: str, fix: str) -> None:
    known = cli.explain(error)
    assert known is not None
    assert known.problem.startswith(problem)
    assert fix in known.fix


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), OSError("x"), ConnectionError("x"), RuntimeError()])
def test_a_fault_of_our_own_keeps_its_traceback(error: Exception) -> None:
    assert cli.explain(error) is None


def medix(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from medix_verl.cli import main; main()"
    env = {**child_environment(), "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "dumb", **environment}
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_folder_that_is_a_file_is_one_message_without_a_traceback_and_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    secret = "hf_" + "a" * 30
    finished = medix("prepare", "sample", "--out", str(tmp_path / "file" / secret))
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert re.match(r"error: .*\. Fix: .*", finished.stderr.splitlines()[-1])
    assert secret not in finished.stderr


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom medix_verl.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "[]"


def test_each_command_has_one_sentence_and_its_own_help() -> None:
    listed = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "80"}).output
    for name, (_, sentence) in {n: entry for panel in cli.COMMANDS.values() for n, entry in panel.items()}.items():
        assert re.fullmatch(r"[A-Z][^.]*(run_\*\.sh[^.]*)?\.", sentence), sentence
        assert f"│ {name} " in listed
        assert CliRunner().invoke(cli.app, [name, "--help"]).exit_code == 0, name
    assert all(panel in listed for panel in cli.COMMANDS)


def test_version() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output == "medix 0.1.0\n"
