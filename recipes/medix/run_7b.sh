#!/usr/bin/env bash
# Qwen2.5-VL-7B with the released 7B run's GSPO, on eight GPUs.
# Extra arguments are Hydra overrides. Settings, memory and differences from the paper: README.md beside this file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RECIPE=medix_7b
RUN=${RUN:-outputs/$RECIPE}   # everything of the run; the same RUN again resumes
MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}  # a folder, or a hub id to download
ALGO=${ALGO:-gspo}            # gspo | grpo | dapo
REWARD=${REWARD:-strict}      # strict | paper
DATA=${DATA:-}                # a folder of `medix prepare`; empty: data/medix_rl_*, made if absent
JUDGE_URL=${JUDGE_URL:-}      # OpenAI-compatible endpoints, separated by commas
JUDGE=${JUDGE:-}              # colocated | local | external; empty: external with a JUDGE_URL, else colocated
JUDGE_MODEL=${JUDGE_MODEL:-Qwen/Qwen3-4B-Instruct-2507}  # a folder, a hub id, or the endpoints' name for it
LORA_RANK=${LORA_RANK:-}      # adapters of this rank; empty: all weights
HARDWARE=${HARDWARE:-}        # a file of config/hardware; empty: what goes with JUDGE
NNODES=${NNODES:-1}           # above 1 on a Ray cluster: ray_cluster.sh
GPUS=${GPUS:-}                # of each node that train; empty: as HARDWARE says
STEPS=${STEPS:-}              # empty: two epochs, as released
SEED=${SEED:-1}
EXPORT=${EXPORT:-1}           # 1: a Hugging Face folder at the end, RUN/export
EVAL=${EVAL:-0}               # 1: evaluate the model before and after on EVAL_TASKS
DRY_RUN=${DRY_RUN:-0}         # 1: print the resolved configuration and the steps, start nothing
source recipes/medix/lib/launch.sh
launch "$@"
