#!/usr/bin/env bash
# Qwen3-VL-8B with the released 8B runs' DAPO or GRPO, on eight GPUs.
# Extra arguments are Hydra overrides. Settings, memory and differences from the paper: README.md beside this file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RECIPE=medix_8b
MODEL=${MODEL:-Qwen/Qwen3-VL-8B-Instruct}  # a folder, or a hub id to download
ALGO=${ALGO:-dapo}            # dapo | grpo (as released: KL loss, upper clip 0.3) | gspo
source recipes/medix/lib/launch.sh  # the other knobs, with their defaults: lib/knobs.sh
launch "$@"
