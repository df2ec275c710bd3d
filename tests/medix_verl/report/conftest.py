"""Synthetic runs: folders shaped as a training run's, filled with made-up numbers and texts. No model wrote them."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

COMPONENTS = ("llm_accuracy", "embed_accuracy", "modality", "format")
WEIGHTS = {"llm_accuracy": 0.5175, "embed_accuracy": 0.3375, "modality": 0.045, "format": 0.10}
CASES = (
    ("X_RAY", "Which organ is enlarged?", "heart"),
    ("CT_SCAN", "What lies in the left lung?", "a nodule"),
    ("FUNDUS_PHOTOGRAPHY", "What is the bright disc?", "optic disc"),
    ("MRI_SCAN", "Which plane is shown?", "sagittal plane"),
)


def scored_response(
    step: int, group: str, session: int, case: int, rng: random.Random, skill: float, split: str = "train", **over: Any
) -> dict[str, Any]:
    """One object of `scored.jsonl`. `skill` in [0, 1] is the chance of each component to be earned."""
    modality, question, reference = CASES[case % len(CASES)]
    right, formed, tagged = (rng.random() < skill for _ in range(3))
    answer = reference if right else rng.choice(["liver", "no finding", "a fracture of the rib"])
    tag = modality if tagged else "OTHER"
    response = f"<{tag}><thinking>The picture shows case {case}.</thinking><answer>{answer}</answer>"
    values = {
        "llm_accuracy": float(right),
        "embed_accuracy": float(right or rng.random() < 0.1),
        "modality": float(tagged),
        "format": float(formed),
    }
    total = sum(WEIGHTS[name] * value for name, value in values.items())
    flat = {
        "score": total, "acc": values["llm_accuracy"], **values, "llm_accuracy_ok": 1.0, "embed_accuracy_ok": 1.0,
        "judge_seconds": 0.02, "embed_seconds": 0.01, "judge_yes_probability": -1.0,
        "embed_similarity": 0.9 if right else 0.3, "answer_hash": float(len(answer)),
    }  # fmt: skip
    return {
        "time": 1.0 + step, "step": step, "split": split, "group": group, "session": session,
        "sample_id": f"case-{case}", "question": question, "reference": reference, "modality": modality,
        "response": response if formed else response.replace("</thinking>", ""),
        "scores": flat,
        "detail": {
            **flat,
            "details": {"llm_accuracy": {"why": "judge"}, "format": {"problems": []}},
            "judge": {"correct": right, "raw": "YES" if right else "NO", "latency_s": 0.02, "attempts": 1,
                      "yes_probability": -1.0, "cached": False, "coalesced": False},
        },
        **over,
    }  # fmt: skip


def step_metrics(step: int, rows: list[dict[str, Any]], rng: random.Random) -> dict[str, float]:
    """The metrics that a step of these responses would have logged, and made-up ones of the engine."""
    metrics: dict[str, float] = {}
    for name in ("score", *COMPONENTS, "llm_accuracy_ok"):
        values = [row["scores"][name] for row in rows]
        mean = sum(values) / len(values)
        metrics[f"reward/{name}/mean"] = mean
        metrics[f"reward/{name}/std"] = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        metrics[f"reward/{name}/zero_std_group_fraction"] = 0.25
    return {
        **metrics,
        "reward/judge_seconds/p50": 0.02, "reward/judge_seconds/p95": 0.05,
        "reward/duplicate_answer_fraction": rng.random() * 0.3, "reward/judge_embedder_disagreement": 0.05,
        "training/rollout_actor_probs_pearson_corr": 0.9999, "actor/entropy": 2.0 / (1 + step / 20),
        "actor/ppo_kl": 0.001 * rng.random(), "actor/grad_norm": 0.5, "response_length/mean": 30.0 - step * 0.02,
        "timing_s/step": 11.0, "timing_s/gen": 6.0, "timing_s/old_log_prob": 1.0, "timing_s/update_actor": 3.0,
        "timing_s/update_weights": 0.8,
    }  # fmt: skip


def write_synthetic_run(
    folder: Path, steps: int = 12, groups: int = 3, size: int = 4, seed: int = 1, thinking_words: int = 0, **hydra: Any
) -> Path:
    """A run of `steps` steps with `groups` groups of `size` responses, and a validation every fourth step.

    `thinking_words` made-up words are added to each response's thinking, so that it packs as badly as prose does.
    """
    rng = random.Random(seed)
    (folder / "rollouts").mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("w") as metrics, (folder / "rollouts" / "scored.jsonl").open("w") as scored:
        for step in range(steps + 1):
            skill = 0.2 + 0.7 * step / max(1, steps)
            rows = [
                scored_response(step, f"uid-{step}-{g}", s, g + step, rng, skill)
                for g in range(groups if step else 0)
                for s in range(size)
            ]
            data = step_metrics(step, rows, rng) if rows else {}
            if step % 4 == 0:
                ids = [f"val-{step}-{c}" for c in range(8)]
                checks = [scored_response(step, uid, 0, c, rng, skill, "val") for c, uid in enumerate(ids)]
                mean = {n: sum(r["scores"][n] for r in checks) / len(checks) for n in ("score", "acc", *COMPONENTS)}
                data["val-core/medix_sample/acc/mean@1"] = mean.pop("acc")
                data |= {f"val-aux/medix_sample/{name}/mean@1": value for name, value in mean.items()}
                rows += checks
            for row in rows:
                words = " ".join(f"{rng.randrange(8000):x}" for _ in range(thinking_words))
                row["response"] = row["response"].replace("The picture", words or "The picture")
            metrics.write(json.dumps({"step": step, "data": data}) + "\n")
            scored.writelines(json.dumps(row) + "\n" for row in rows)
    _write_settings(folder, seed, hydra)
    _write_images(folder / "data" / "train.parquet", groups + steps)
    return folder


def _write_settings(folder: Path, seed: int, hydra: dict[str, Any]) -> None:
    import yaml

    config = {
        "actor_rollout_ref": {
            "model": {"path": "synthetic/tiny-vlm"},
            "rollout": {"n": 4, "load_format": "auto"},
            "actor": {"optim": {"lr": 4e-4}},
        },
        "algorithm": {"adv_estimator": "grpo"},
        "data": {"train_files": "data/train.parquet", "train_batch_size": 3, "seed": seed},
        "medix": {"scorer": {"judge": {"model": "rule-judge", "urls": ["http://127.0.0.1:8085"]}}},
        "trainer": {"total_training_steps": 12},
        **hydra,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "versions.json").write_text(json.dumps({"verl": "0.9.1", "torch": "2.13.0"}))


def _write_images(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for case in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (37 * case % 256, 90, 120)).save(buffer, "PNG")
        info = {"index": case, "sample_id": f"case-{case}"}
        rows.append({"images": [{"bytes": buffer.getvalue(), "path": None}], "extra_info": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def synthetic_run(tmp_path: Path) -> Path:
    return write_synthetic_run(tmp_path / "synthetic-run")


@pytest.fixture(scope="session")
def make_synthetic_run() -> Callable[..., Path]:
    """`write_synthetic_run`, which a test module can not import."""
    return write_synthetic_run
