#!/usr/bin/env bash
# Qwen3-VL-2B with the released 2B run's DAPO, on eight GPUs.
# Extra arguments are Hydra overrides. Settings, memory and differences from the paper: README.md beside this file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RECIPE=medix_2b
MODEL=${MODEL:-Qwen/Qwen3-VL-2B-Instruct}  # a folder, or a hub id to download
ALGO=${ALGO:-dapo}            # dapo | grpo | gspo
source recipes/medix/lib/launch.sh  # the other knobs, with their defaults: lib/knobs.sh
launch "$@"
