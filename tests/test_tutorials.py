"""The tutorials' `bash` blocks are run and what they print is compared with the `text` block that follows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medix.processes import child_environment

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
DEMO = Path(os.environ.get("MEDIX_DEMO", ROOT / "outputs" / "demo"))
"""A finished `make demo`, which the third and fourth tutorial start from."""
BLOCK = re.compile(r"```bash\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


def pattern_of(expected: str) -> re.Pattern[str]:
    """`...` stands for anything; the end of a line may be padded."""
    parts = [re.escape(part.strip()) for part in expected.split("...")]
    return re.compile(".*".join(parts))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["2_my_data_and_reward", "3_my_checkpoint_on_the_hub", "4_comparing_two_models"])
def test_a_tutorial_says_what_happens(name: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    if "outputs/demo" in text and not (DEMO / "export" / "config.json").is_file():
        pytest.skip(f"no finished demo in {DEMO}: make demo, or MEDIX_DEMO=FOLDER")
    for folder in ("examples", "recipes", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "demo").symlink_to(DEMO)
    (tmp_path / "medix").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m medix_verl.cli "$@"\n')
    (tmp_path / "medix").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = child_environment(PATH=path, PYTHONPATH=str(ROOT), COLUMNS="100", HF_HUB_OFFLINE="1")
    blocks = BLOCK.findall(text)
    assert blocks
    for commands, expected in blocks:
        run = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False)
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        for line in filter(None, expected.splitlines()):
            assert any(pattern_of(line).search(found) for found in printed.splitlines()), (line, printed)


@pytest.mark.slow
def test_the_first_tutorial_is_the_demo_and_a_second_run_beside_it() -> None:
    """Its two trainings are shown, not run: `tests/engine` trains the same recipe."""
    commands = (FOLDER / "1_from_zero_to_a_curve.md").read_text(encoding="utf-8").split("```")[1::2]
    demo, activate, second, compare = [line for part in commands for line in part.splitlines() if line]
    assert (demo, activate) == ("make demo", "source .venv/bin/activate")
    env = child_environment(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), DRY_RUN="1")
    run = ["bash", "-c", second]
    shown = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=True).stdout
    assert "## run            outputs/gspo," in shown
    assert "## algorithm      GSPO:" in shown
    assert "it would be refused" not in shown  # a folder of its own, also where the demo is finished
    assert compare == "medix report outputs/demo outputs/gspo"


def test_the_tutorials_name_files_that_exist() -> None:
    for path in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path.name, target)
