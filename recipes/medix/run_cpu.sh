#!/usr/bin/env bash
# The whole pipeline on two CPU cores, no GPU: `make demo` runs this. Hydra overrides follow the script's name.
# Real parts: veRL, Ray, vLLM, FSDP2, an HTTP judge, a sentence-transformers embedder. The judge is the rule-based
# `rule-judge` unless JUDGE_URL names an LLM, or JUDGE=colocated has veRL serve the model in JUDGE_MODEL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export ALGO=${ALGO:-grpo}  # grpo | gspo | dapo
export REWARD=${REWARD:-strict}  # strict | paper
demo=outputs/demo  # of GRPO with the strict reward; a folder holds one configuration
if [[ $ALGO-$REWARD != grpo-strict ]]; then demo=outputs/demo_${ALGO}_$REWARD; fi
export RUN=${RUN:-$demo}  # folder of the run; the same RUN again resumes
export STEPS=${STEPS:-40} SEED=${SEED:-0}
export TINY_STEPS=${TINY_STEPS:-720}  # warm-start steps of the tiny model
export MODEL=${MODEL:-} DATA=${DATA:-}  # a model's folder and a folder of `medix prepare`; empty: made here
source recipes/medix/lib/cpu_env.sh
source recipes/medix/lib/start.sh medix_cpu "$@"
