"""Metrics of reports beside the judge: BLEU and ROUGE-L, RaTEScore and RadGraph-F1, from packages of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from evaluation.judging.stage import ScoredItem
from evaluation.statistics import clustered_mean
from medix.errors import ConfigError

Texts = Sequence[str]


def _bleu(package: Any, candidates: Texts, references: Texts) -> list[float]:
    """Return sentence BLEU with up to four words, smoothed, as a share."""
    pairs = zip(candidates, references, strict=True)
    return [package.sentence_bleu(candidate, [reference]).score / 100 for candidate, reference in pairs]


def _rouge_l(package: Any, candidates: Texts, references: Texts) -> list[float]:
    scorer = package.rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    return [scorer.score(r, c)["rougeL"].fmeasure for c, r in zip(candidates, references, strict=True)]


def _ratescore(package: Any, candidates: Texts, references: Texts) -> list[float]:
    on_gpu = import_module("torch").cuda.is_available()  # its default is a GPU, and an error without one
    return [float(s) for s in package.RaTEScore(use_gpu=on_gpu).compute_score(list(candidates), list(references))]


def _radgraph(package: Any, candidates: Texts, references: Texts) -> list[float]:
    _, rewards, _, _ = package.F1RadGraph(reward_level="partial")(hyps=list(candidates), refs=list(references))
    return [float(score) for score in rewards]


METRICS: dict[str, tuple[str, str, Callable[[Any, Texts, Texts], list[float]]]] = {
    "bleu": ("sacrebleu", "sacrebleu", _bleu),
    "rouge_l": ("rouge_score.rouge_scorer", "rouge-score", _rouge_l),
    "ratescore": ("RaTEScore", "RaTEScore", _ratescore),
    "radgraph": ("radgraph", "radgraph", _radgraph),
}
"""Name -> module, what to install, and the scores of [n] reports. The last two load models and download them."""


def report_metrics(items: Iterable[ScoredItem], names: Sequence[str]) -> dict[str, Any]:
    """Return task -> metric -> the mean over its reports with its interval. A report without an answer scores 0.

    Raises:
        ConfigError: a metric is unknown, or its package is not installed.
    """
    packages = {name: load(name) for name in names}
    by_task: dict[str, list[tuple[str, str, str]]] = {}
    for item in items:
        if item.row.kind == "report" and item.decision is not None:
            texts = (item.decision.answer or "", item.row.reference, item.row.cluster)
            by_task.setdefault(item.row.task, []).append(texts)
    result: dict[str, Any] = {}
    for task, rows in by_task.items():
        answered = [(candidate, reference) for candidate, reference, _ in rows if candidate.strip()]
        for name, package in packages.items():
            # RaTEScore gives 0.5 to a text without an entity, an empty one among them.
            found = iter(METRICS[name][2](package, *zip(*answered, strict=True)) if answered else ())
            scores = [next(found) if candidate.strip() else 0.0 for candidate, _, _ in rows]
            clusters = [cluster for _, _, cluster in rows]
            result.setdefault(task, {})[name] = clustered_mean(scores, clusters).within().as_json()
    return result


def load(name: str) -> Any:
    """Return the package of a metric."""
    if name not in METRICS:
        raise ConfigError(f"There is no report metric {name!r}.", f"Use some of: {', '.join(METRICS)}.")
    module, install, _ = METRICS[name]
    try:
        import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"The report metric {name} needs {install}, which is not installed.", f"pip install {install}"
        ) from error
    return import_module(module.partition(".")[0])
