#!/usr/bin/env bash
# A checkpoint becomes a Hugging Face folder, checked and described. Extra arguments go to `medix export`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CHECKPOINT=${CHECKPOINT:-outputs/demo}  # a run, its global_step_N or actor folder; or an exported folder, to push it
OUT=${OUT:-}                  # folder to write; empty: CHECKPOINT is an exported folder
DTYPE=${DTYPE:-}              # fp32 | bf16 | fp16; empty: as in the checkpoint
BASE=${BASE:-}                # the base model's folder; empty: the one that the run names
PUSH=${PUSH:-}                # USER/REPO on the hub, private; `PUBLIC=1` makes it public
PUBLIC=${PUBLIC:-0}
CHECK_VLLM=${CHECK_VLLM:-0}   # 1: load it in vLLM too
DRY_RUN=${DRY_RUN:-0}         # 1: list the files; write and send nothing

if [[ -x .venv/bin/medix ]]; then PATH="$PWD/.venv/bin:$PATH"; fi
arguments=("$CHECKPOINT")
if [[ -n $OUT ]]; then arguments+=(--out "$OUT"); fi
if [[ -n $DTYPE ]]; then arguments+=(--dtype "$DTYPE"); fi
if [[ -n $BASE ]]; then arguments+=(--base "$BASE"); fi
if [[ -n $PUSH ]]; then arguments+=(--push "$PUSH"); fi
if [[ $PUBLIC == 1 ]]; then arguments+=(--public); fi
if [[ $CHECK_VLLM == 1 ]]; then arguments+=(--check-vllm); fi
if [[ $DRY_RUN == 1 ]]; then arguments+=(--dry-run); fi
exec medix export "${arguments[@]}" "$@"
