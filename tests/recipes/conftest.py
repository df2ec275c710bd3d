"""Shared here: one composition of each configuration, as it takes seconds; and a runner that only writes down."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from omegaconf import DictConfig

from medix_verl.preflight.machine import Gpu
from medix_verl.recipe import stages
from medix_verl.recipe.knobs import KNOBS
from medix_verl.run_config import compose_config
from tests.recipes.checkout import FAKE_PYTHON, ROOT, Checkout


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """`composed(name, *overrides)`: treat the result as read-only."""

    @cache
    def compose(name: str, *overrides: str) -> DictConfig:
        return compose_config(name, overrides)

    return compose


class Recorder(stages.Runner):
    """Stands in for the commands: writes down each with its variables, and fails where a test says so."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails = fails
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def call(self, command: Sequence[str], variables: Mapping[str, str] = stages.NONE, tee: Path | None = None) -> None:
        words = ["medix" if word == stages.MEDIX else word for word in command]
        self.calls.append((words, dict(variables)))
        if self.fails and self.fails in " ".join(words):
            raise typer.Exit(2)

    def fetch(self, name: str, knob: str) -> str:
        self.calls.append((["fetch", name], {}))
        return name if Path(name).is_dir() else f"hub/{name}"

    @contextlib.contextmanager
    def serve(self, command: Sequence[str], variables: Mapping[str, str] = stages.NONE) -> Iterator[str]:
        self.call(command, variables)
        try:
            yield "http://127.0.0.1:4242"
        finally:
            self.calls.append((["judge ends"], {}))

    def steps(self) -> list[str]:
        """The first two words of each call, or the kind of a server."""
        return [" ".join(words[:2]) if words[0] != "bash" else "serve judge" for words, _ in self.calls]

    def of(self, step: str) -> tuple[list[str], dict[str, str]]:
        """The last call of that step."""
        return self.calls[len(self.calls) - 1 - self.steps()[::-1].index(step)]

    def settings(self, step: str) -> dict[str, Any]:
        """The overrides of the last call of a step, as Hydra reads them."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        words = self.of(step)[0]
        parsed = OverridesParser.create().parse_overrides(words[words.index("--") + 1 :])
        return {override.key_or_group: override.value() for override in parsed}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Recorder]:
    """`launch(recipe, *overrides, gpus=8, fails="", KNOB=value)` in an empty folder, on a machine of so many cards."""
    for name in (*KNOBS, "RAY_ADDRESS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def start(recipe: str, *overrides: str, gpus: int = 8, fails: str = "", **knobs: str) -> Recorder:
        for name, value in knobs.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("medix_verl.recipe.hardware.list_gpus", lambda: [Gpu("H100", 80.0)] * gpus)
        recorder = Recorder(fails)
        start.recorder = recorder  # type: ignore[attr-defined]
        stages.launch(recipe, list(overrides), recorder)
        return recorder

    return start


@pytest.fixture
def equipped(tmp_path: Path) -> Checkout:
    """A copy of the recipes, and a Python that answers for Ray: for the scripts that stay shell."""
    root, commands = tmp_path / "clone", tmp_path / "bin"
    commands.mkdir()
    shutil.copytree(ROOT / "recipes", root / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    checkout = Checkout(root, commands)
    checkout.fake("python", FAKE_PYTHON)
    return checkout
