"""The figures above the fold are judged by the run's own settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix_verl.report.health import tiles
from medix_verl.report.run_folder import load_run

FP32: dict[str, Any] = {}
BF16 = {"watchdog": {"pearson_warn_below": 0.99, "pearson_stop_below": 0.9, "pearson_steps": 3}}
WARN_ONLY = {"watchdog": {"pearson_warn_below": 0.99, "pearson_stop_below": -1}}


@pytest.mark.parametrize(
    ("pearson", "settings", "level"),
    [
        (0.9995, FP32, "ok"),
        (0.995, FP32, "watch"),
        (0.98, FP32, "alert"),
        (0.995, BF16, "ok"),
        (0.98, BF16, "watch"),
        (0.85, BF16, "alert"),
        (0.6, WARN_ONLY, "watch"),
    ],
)
def test_pearson_is_judged_by_the_run_s_own_guard(
    pearson: float, settings: dict[str, Any], level: str, make_synthetic_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_synthetic_run(tmp_path / "run", steps=4, medix=settings)
    log = run / "metrics.jsonl"
    log.write_text(log.read_text().replace("0.9999", str(pearson)))
    shown = {tile.label: tile for tile in tiles(load_run(run))}
    assert shown["Rollout/actor Pearson"].level == level
