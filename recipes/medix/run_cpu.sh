#!/usr/bin/env bash
# The whole pipeline on two CPU cores, no GPU: `make demo` runs this. Extra arguments are Hydra overrides.
# Real parts: veRL, Ray, vLLM, FSDP2, an HTTP judge, a sentence-transformers embedder. The judge is the rule-based
# `rule-judge` unless JUDGE_URL names an LLM, or JUDGE=colocated has veRL serve one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RUN=${RUN:-outputs/demo}
ALGO=${ALGO:-grpo}            # grpo | gspo | dapo
STEPS=${STEPS:-40}
SEED=${SEED:-0}
TINY_STEPS=${TINY_STEPS:-720}  # warm-start steps of the tiny model
REWARD=${REWARD:-strict}      # strict | paper
MODEL=${MODEL:-}              # a model folder; empty: build the tiny one
DATA=${DATA:-}                # a folder of `medix prepare`; empty: prepare the sample set
JUDGE=${JUDGE:-external}      # external | colocated: veRL serves the language model in the folder JUDGE_MODEL
JUDGE_URL=${JUDGE_URL:-}      # an OpenAI-compatible endpoint; empty: start the rule-judge
JUDGE_MODEL=${JUDGE_MODEL:-rule-judge}
LORA_RANK=${LORA_RANK:-}      # adapters of this rank; empty or 0: all weights
EXPORT=${EXPORT:-1}           # 1: a Hugging Face folder at the end, RUN/export
EVAL=${EVAL:-1}               # 1: evaluate the model before and after on the held-out task (exports too)
DRY_RUN=${DRY_RUN:-0}         # 1: print the resolved configuration and start nothing
source recipes/medix/lib/cpu_env.sh
source recipes/medix/lib/values.sh
source recipes/medix/lib/train.sh
expect_common_knobs
expect '[1-9][0-9]*' 'a whole number above 0' TINY_STEPS

model=${MODEL:-$RUN/tiny-vlm}
data=${DATA:-$RUN/data}
judge=(medix.scorer.judge.model="$(quoted "$JUDGE_MODEL")")
if [[ $JUDGE == colocated ]]; then judge=(reward.reward_model.model_path="$(quoted "$JUDGE_MODEL")"); fi
overrides=(
  algorithm="$ALGO" reward_preset="$REWARD" medix.run_dir="$(quoted "$RUN")" data.seed="$SEED"
  data.train_files="$(quoted "$data/train.parquet")" data.val_files="$(quoted "$data/val.parquet")"
  actor_rollout_ref.model.path="$(quoted "$model")" trainer.total_training_steps="$STEPS"
  judge="$JUDGE" "${judge[@]}"
)
if ((${LORA_RANK:-0} > 0)); then
  # Ten times the demo's rate, as adapters take.
  overrides+=(+lora=adapter actor_rollout_ref.model.lora_rank="$LORA_RANK" actor_rollout_ref.actor.optim.lr=3e-3)
fi
overrides+=("$@")
if [[ $DRY_RUN == 1 ]]; then
  exec medix config medix_cpu -- "${overrides[@]}"
fi
started=$(date +%s)
mkdir -p "$RUN"

if [[ -z $MODEL && ! -f $RUN/tiny-vlm/config.json ]]; then
  python -m examples.tiny_vlm --out "$RUN/tiny-vlm" --seed "$SEED" --steps "$TINY_STEPS"
fi
if [[ -z $DATA && ! -f $RUN/data/manifest.json ]]; then
  medix prepare sample --out "$RUN/data" --model "$model"
fi
if [[ -z $JUDGE_URL && $JUDGE != colocated ]]; then
  judge_address=$(mktemp)
  python -m examples.rule_judge --port 0 --parent-pid $$ >"$judge_address" &
  trap 'kill '$!' 2>/dev/null || true' EXIT
  until JUDGE_URL=$(grep -om1 'http://[0-9.:]*' "$judge_address"); do sleep 0.2; done
  rm -f "$judge_address"
fi
if [[ $JUDGE != colocated ]]; then overrides+=(medix.scorer.judge.urls="$(quoted_list "$JUDGE_URL")"); fi

medix preflight --config-name medix_cpu -- "${overrides[@]}"
train --config-name medix_cpu -- "${overrides[@]}"

if [[ $EXPORT == 1 || $EVAL == 1 ]]; then
  # Written beside and renamed last; its proofs are in export.json. What an earlier release left has none: it goes.
  if [[ ! -f $RUN/export/export.json ]]; then rm -rf "$RUN/export"; fi
  medix export "$RUN" --out "$RUN/export" --base "$model" --overwrite
fi

# The exported folder, and the model that training began with, each loaded by transformers, on the held-out task.
# A colocated judge has ended with the run, so there is nobody to ask.
if [[ $EVAL == 1 && $JUDGE != colocated ]]; then
  for which in base trained; do
    if [[ $which == base ]]; then folder=$model; else folder=$RUN/export; fi
    medix eval run --model "$folder" --tasks sample --backend transformers --prompt training \
      --judge-url "$JUDGE_URL" --judge-model "$JUDGE_MODEL" --out "$RUN/eval/$which"
  done
  medix eval compare "$RUN/eval/base" "$RUN/eval/trained" | tee "$RUN/eval/compare.md"
fi
medix report "$RUN"
medix summary "$RUN" --seconds-total $(($(date +%s) - started))
