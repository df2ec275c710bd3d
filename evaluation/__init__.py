"""One evaluation framework for text-only and image+text benchmarks, with a judge that can be checked.

    medix eval run --model my-model --tasks vlm --judge-url http://host:8000 --judge-model JUDGE --out outputs/eval/mine

runs four stages, each resumable alone: `generate`, `judge`, `score`, `report`. See docs/evaluation.md.
"""
