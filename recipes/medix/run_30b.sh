#!/usr/bin/env bash
# Qwen3-VL-30B-A3B with the released 30B run's DAPO, on eight GPUs of 80 GB.
# DRY_RUN=1 shows the run on one screen. Hydra overrides follow the script's name. Every knob: `medix recipe x --knobs`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export MODEL=${MODEL:-Qwen/Qwen3-VL-30B-A3B-Instruct}  # a folder, or a hub name to download
export ALGO=${ALGO:-dapo}  # grpo | gspo | dapo
export REWARD=${REWARD:-strict}  # strict | paper
export DATA=${DATA:-}  # a folder of `medix prepare`; empty: the released data, prepared in data/
export JUDGE_URL=${JUDGE_URL:-}  # a judge that is served elsewhere; empty: one on GPUs of its own
export JUDGE_MODEL=${JUDGE_MODEL:-Qwen/Qwen3-4B-Instruct-2507}
source recipes/medix/lib/start.sh medix_30b "$@"
