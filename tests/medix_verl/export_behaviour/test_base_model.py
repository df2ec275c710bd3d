"""Which base model a checkpoint has, and where its folder is. No network is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medix.errors import ExportError
from medix_verl.export.base_model import find_base
from medix_verl.export.contract import Checkpoint


def test_the_option_wins(checkpoint: Checkpoint, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    assert find_base(checkpoint, other).folder == other


def test_an_option_that_names_no_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a model folder at --base; found no config\.json"):
        find_base(checkpoint, tmp_path)


def test_a_moved_run_finds_the_model_inside_it(checkpoint: Checkpoint, base: Path) -> None:
    assert checkpoint.run_dir is not None
    base.rename(checkpoint.run_dir / "base")
    assert find_base(checkpoint, None).folder == checkpoint.run_dir / "base"


def test_a_hub_name_that_is_not_here_is_not_fetched(checkpoint: Checkpoint) -> None:
    assert checkpoint.run_dir is not None
    named = {"actor_rollout_ref": {"model": {"path": "nobody/nothing"}}}
    (checkpoint.run_dir / "config.yaml").write_text(json.dumps(named))
    found = find_base(checkpoint, None)
    assert (found.name, found.folder) == ("nobody/nothing", None)
    assert "neither a folder here nor in the local hub cache" in found.why_not


def test_a_local_folder_that_is_gone_is_told_by_its_name(checkpoint: Checkpoint, base: Path) -> None:
    """The reason stands in export.json, which goes to the hub."""
    shutil.rmtree(base)
    assert find_base(checkpoint, None).why_not.startswith("base is neither a folder here nor")
