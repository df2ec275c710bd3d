# shellcheck shell=bash
# Sourced by the GPU recipes, which set RECIPE, MODEL and ALGO; `launch "$@"` does the rest. Every step that starts
# something goes through `step`, which only names it in a dry run.
source recipes/medix/lib/knobs.sh
source recipes/medix/lib/values.sh
source recipes/medix/lib/gpus.sh
source recipes/medix/lib/judge.sh
source recipes/medix/lib/train.sh

# What can be refused is refused before the downloads: knobs, GPUs, then the configuration that they make together.
launch() {
  expect_common_knobs
  expect '[1-9][0-9]*' 'a whole number above 0' NNODES GPUS
  choose_hardware
  if [[ $DRY_RUN != 1 ]]; then check_gpus; fi
  check_judge
  use_environment
  if [[ $DRY_RUN != 1 ]]; then check_cluster; fi
  model_folder=$MODEL judge_folder=$JUDGE_MODEL eval_judge_folder=$EVAL_JUDGE_MODEL
  collect_overrides "$@"
  read_configuration
  check_data
  step medix preflight --config-name "$RECIPE" --config-only -- "${overrides[@]}"
  fetch_models
  prepare_data
  start_judge
  collect_overrides "$@"
  step medix preflight --config-name "$RECIPE" -- "${overrides[@]}"
  step train --config-name "$RECIPE" -- "${overrides[@]}"
  stop_judge
  if [[ $EXPORT == 1 || $EVAL == 1 ]]; then step medix export "$RUN" --out "$RUN/export" --overwrite; fi
  if [[ $EVAL == 1 ]]; then evaluate; fi
  step medix report "$RUN"
}

step() {
  if [[ $DRY_RUN == 1 ]]; then
    if [[ $1 == train ]]; then set -- medix "$@"; fi
    printf '#'; printf ' %q' "$@"; echo  # to be copied as it stands
  else
    "$@"
  fi
}

use_environment() {
  if [[ -x .venv/bin/medix ]]; then
    PATH="$PWD/.venv/bin:$PATH"
    export PATH
  elif ! command -v medix >/dev/null; then
    fail "expected the environment with the command medix; found no .venv. Fix: bash recipes/medix/setup_gpu.sh"
  fi
  source recipes/medix/lib/gpu_env.sh
}

# Sets `folder` to a local copy of the model in that knob: the folder itself, or what the hub id is downloaded to.
fetch_model() {
  local name=${!1}
  folder=$name
  if [[ -d $name || $DRY_RUN == 1 ]]; then return; fi
  command -v hf >/dev/null || fail "expected the command hf, to download $name; found none. Fix:" \
    "bash recipes/medix/setup_gpu.sh, or $1=FOLDER"
  echo "fetching $name"
  folder=$(hf download "$name" --quiet | tail -n 1) || folder=
  [[ -d $folder ]] || fail "expected a folder or a hub id in $1; found $name, which could not be downloaded. Fix:" \
    "correct it, or download it elsewhere, then $1=FOLDER"
}

fetch_models() {
  fetch_model MODEL
  model_folder=$folder
  if [[ $JUDGE == external ]]; then return; fi
  fetch_model JUDGE_MODEL
  judge_folder=$folder
  if [[ $EVAL != 1 ]]; then return; fi
  fetch_model EVAL_JUDGE_MODEL
  eval_judge_folder=$folder
}

collect_overrides() {
  local algorithm=$ALGO
  # The released GRPO run has a KL term and a wider clip in force; plain `grpo` is the CPU demo's.
  if [[ $ALGO == grpo ]]; then algorithm=grpo_kl; fi
  if [[ $REWARD == paper ]]; then EMBEDDER=${EMBEDDER:-abhinand/MedEmbed-large-v0.1}; fi
  judge_settings
  overrides=(
    algorithm="$algorithm" reward_preset="$REWARD" hardware="$HARDWARE" "${judge_overrides[@]}"
    medix.run_dir="$(quoted "$RUN")" actor_rollout_ref.model.path="$(quoted "$model_folder")"
    data.seed="$SEED" actor_rollout_ref.rollout.seed="$SEED"
    trainer.nnodes="$NNODES" trainer.logger="$(quoted_list "$LOGGER")"
  )
  if [[ -n $DATA ]]; then overrides+=(medix.data_dir="$(quoted "$DATA")"); fi
  if [[ -n $GPUS ]]; then overrides+=(trainer.n_gpus_per_node="$GPUS"); fi
  if [[ -n $EMBEDDER ]]; then overrides+=(medix.scorer.embedder.model="$(quoted "$EMBEDDER")"); fi
  # Also when two epochs are fewer.
  if [[ -n $STEPS ]]; then overrides+=(trainer.total_training_steps="$STEPS" trainer.total_epochs=1000000); fi
  if ((${LORA_RANK:-0} > 0)); then
    if [[ $HARDWARE != gpu_24gb ]]; then overrides+=(+lora=adapter); fi
    overrides+=(actor_rollout_ref.model.lora_rank="$LORA_RANK")
  fi
  overrides+=("$@")
}

# The composed configuration: shown in a dry run, and asked for what the preparation of data depends on.
read_configuration() {
  local shown
  shown=$(medix config "$RECIPE" -- "${overrides[@]}")
  if [[ $DRY_RUN == 1 ]]; then printf '%s\n' "$shown"; fi
  mapfile -t prepare < <(python -c 'import sys, yaml
config = yaml.safe_load(sys.stdin)
medix = config["medix"]
print(medix["data_dir"], config["data"]["max_prompt_length"], *medix["prepare"].values(), sep="\n")' <<<"$shown")
}

# Sets `preparation`, the command that makes the data.
data_command() {
  preparation=(medix prepare "$SOURCE" --out "${prepare[0]}" --model "$model_folder"
    --max-prompt-tokens "${prepare[1]}" --min-pixels "${prepare[2]}" --max-pixels "${prepare[3]}")
}

# A folder that the user named is the user's: it is never written to.
check_data() {
  if [[ -z $DATA || -f $DATA/manifest.json || $DRY_RUN == 1 ]]; then return; fi
  local fetch='' command
  if [[ ! -d $MODEL ]]; then fetch="MODEL=\$(hf download $MODEL --quiet | tail -n 1);" model_folder=\$MODEL; fi
  data_command
  command=$(printf ' %q' "${preparation[@]}")
  fail "expected a folder of \`medix prepare\` in DATA, with a manifest.json; found none in $DATA. Fix: correct DATA," \
    "or make it: $fetch${command//\\\$MODEL/\"\$MODEL\"}"
}

prepare_data() {
  if [[ -n $DATA || ( -f ${prepare[0]}/manifest.json && $DRY_RUN != 1 ) ]]; then return; fi
  data_command
  step "${preparation[@]}"
}

# Both models with the bare question, as the released evaluation asks. The first visible GPU answers, the second judges.
evaluate() {
  local which folder device
  device=$(devices_at 0)
  if [[ $JUDGE != external ]]; then
    JUDGE_DEVICES=1 JUDGE_MEMORY=0.9 serve_judge "$EVAL_JUDGE_MODEL" "$eval_judge_folder"
  fi
  for which in base trained; do
    if [[ $which == base ]]; then folder=$model_folder; else folder=$RUN/export; fi
    step env CUDA_VISIBLE_DEVICES="$device" medix eval run --model "$folder" --tasks "$EVAL_TASKS" \
      --judge-url "${JUDGE_URL%%,*}" --judge-model "$JUDGE_MODEL" --out "$RUN/eval/$which"
  done
  step medix eval compare "$RUN/eval/base" "$RUN/eval/trained"
  stop_judge
}
