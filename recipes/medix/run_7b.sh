#!/usr/bin/env bash
# Qwen2.5-VL-7B with the released 7B run's GSPO, on eight GPUs.
# Extra arguments are Hydra overrides. Settings, memory and differences from the paper: README.md beside this file.
# Knobs, beside the two below: RUN, REWARD, DATA, JUDGE_URL, JUDGE, JUDGE_MODEL, LORA_RANK, HARDWARE, NNODES,
# GPUS, STEPS, SEED, EXPORT, EVAL, DRY_RUN. Defaults and meanings: lib/knobs.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RECIPE=medix_7b
MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}  # a folder, or a hub id to download
ALGO=${ALGO:-gspo}            # gspo | grpo | dapo
source recipes/medix/lib/launch.sh
launch "$@"
