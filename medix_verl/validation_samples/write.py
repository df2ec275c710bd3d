"""The chosen samples of a validation as `rollouts/validation_samples/step_N.jsonl` and a page with the pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from medix_verl.validation_samples.collect import ShownSample

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Held-out samples, step {{ step }}</title>
<style>body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
article{display:grid;grid-template-columns:14em 1fr;gap:1.5em;border-top:1px solid #bbb;padding:1em 0}
img{max-width:100%}pre{white-space:pre-wrap;background:#f4f4f4;padding:.6em}</style>
<h1>Held-out samples, step {{ step }}</h1>
{% for sample in samples %}<article><div>{% for image in sample.images %}
<img src="images/{{ image.name }}" alt="image {{ loop.index }} of {{ sample.sample_id }}">{% endfor %}</div>
<div><h2>{{ sample.sample_id }}: {{ "%.3f"|format(sample.scores["score"]) }}</h2>
<p><b>Question</b> {{ sample.question }}<br><b>Reference</b> {{ sample.reference }}</p>
<pre>{{ sample.response }}</pre></div></article>
{% endfor %}</html>
"""


def write_samples(folder: Path, step: int, samples: Sequence[ShownSample]) -> None:
    """Write both files; a validation that a resume does again replaces them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {**vars(sample), "step": step, "images": [f"images/{image.name}" for image in sample.images]}
        for sample in samples
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    page = Environment(autoescape=True).from_string(_PAGE).render(step=step, samples=samples)
    for name, content in ((f"step_{step}.jsonl", text), (f"step_{step}.html", page)):
        temporary = folder / f"{name}.part"
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
        temporary.replace(folder / name)
