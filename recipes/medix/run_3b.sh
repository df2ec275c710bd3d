#!/usr/bin/env bash
# Qwen2.5-VL-3B with the settings of the 7B run, on eight GPUs or (HARDWARE=gpu_24gb) on one of 24 GB.
# Extra arguments are Hydra overrides. Settings, memory and differences from the paper: README.md beside this file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RECIPE=medix_3b
MODEL=${MODEL:-Qwen/Qwen2.5-VL-3B-Instruct}  # a folder, or a hub id to download
ALGO=${ALGO:-gspo}            # gspo | grpo | dapo
source recipes/medix/lib/launch.sh  # the other knobs, with their defaults: lib/knobs.sh
launch "$@"
