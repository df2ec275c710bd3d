# shellcheck shell=bash
# Sourced by the GPU recipes, which set RECIPE, MODEL and ALGO; `launch "$@"` does the rest. Every step that starts
# something goes through `step`, which only names it in a dry run.
source recipes/medix/lib/knobs.sh
source recipes/medix/lib/judge.sh
source recipes/medix/lib/train.sh

launch() {
  choose_hardware
  if [[ $DRY_RUN != 1 ]]; then check_gpus; fi
  use_environment
  choose_judge
  collect_overrides "$@"
  read_configuration
  prepare_data
  start_judge
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

fail() {
  echo "error: $*" >&2
  exit 2
}

# The names of config/hardware say how many GPUs train and how many judge: gpu_6_judge_2. gpu_24gb is one.
choose_hardware() {
  JUDGE=${JUDGE:-${JUDGE_URL:+external}}
  if [[ $HARDWARE == gpu_24gb ]]; then
    JUDGE=${JUDGE:-external} LORA_RANK=${LORA_RANK:-64}
  fi
  JUDGE=${JUDGE:-colocated}
  if [[ $JUDGE != colocated ]]; then
    HARDWARE=${HARDWARE:-gpu_8}
  elif ((NNODES > 1)); then
    HARDWARE=${HARDWARE:-gpu_7_judge_1}  # 12 trainers on two nodes do not divide an update, 14 do
  else
    HARDWARE=${HARDWARE:-gpu_6_judge_2}
  fi
}

# Before anything else, and without Python: importing torch takes seconds, preparing data hours.
check_gpus() {
  local needed=1 found script=recipes/medix/run_${RECIPE#medix_}.sh
  if [[ -n ${RAY_ADDRESS:-} ]]; then return; fi  # the GPUs are the cluster's; preflight counts them
  if ((NNODES > 1)); then
    fail "expected RAY_ADDRESS, the Ray cluster of $NNODES nodes; found none. Fix: start it with" \
      "recipes/medix/ray_cluster.sh, which prints the exports"
  fi
  if [[ $HARDWARE =~ ^gpu_([0-9]+)(_judge_([0-9]+))?$ ]]; then
    needed=$((${GPUS:-${BASH_REMATCH[1]}} + ${BASH_REMATCH[3]:-0}))
  fi
  found=$(timeout 8 nvidia-smi -L 2>/dev/null | grep -c '^GPU') || true
  case ${CUDA_VISIBLE_DEVICES-all} in
    all) ;;
    '' | -1) found=0 ;;
    *) found=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l) ;;
  esac
  if ((found == 0)); then
    fail "expected $needed NVIDIA GPU(s) for $script with HARDWARE=$HARDWARE; found none. Fix: without a GPU run" \
      "\`make demo\`, the whole pipeline on two CPU cores; \`DRY_RUN=1 bash $script\` shows this recipe's configuration"
  elif ((found < needed)); then
    fail "expected $needed NVIDIA GPU(s) for $script with HARDWARE=$HARDWARE; found $found. Fix:" \
      "JUDGE_URL=http://HOST:PORT GPUS=$found, or on one GPU HARDWARE=gpu_24gb bash recipes/medix/run_3b.sh"
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

# Sets `folder` to a local copy of a model: the folder itself, or what the hub id is downloaded to.
fetch_model() {
  folder=$1
  if [[ -d $1 || $DRY_RUN == 1 ]]; then return; fi
  echo "fetching $1"
  folder=$(hf download "$1" --quiet | tail -n 1)
  [[ -d $folder ]] || fail "expected a model folder or a hub id; found $1. Fix: download it elsewhere, then set MODEL="
}

collect_overrides() {
  local algorithm=$ALGO
  # The released GRPO run has a KL term and a wider clip in force; plain `grpo` is the CPU demo's.
  if [[ $ALGO == grpo ]]; then algorithm=grpo_kl; fi
  if [[ $REWARD == paper ]]; then EMBEDDER=${EMBEDDER:-abhinand/MedEmbed-large-v0.1}; fi
  fetch_model "$MODEL"
  model_folder=$folder
  overrides=(
    algorithm="$algorithm" reward_preset="$REWARD" hardware="$HARDWARE" "${judge_overrides[@]}"
    medix.run_dir="$RUN" actor_rollout_ref.model.path="$model_folder"
    data.seed="$SEED" actor_rollout_ref.rollout.seed="$SEED"
    trainer.nnodes="$NNODES" trainer.logger="[$LOGGER]"
  )
  if [[ -n $DATA ]]; then overrides+=(medix.data_dir="$DATA"); fi
  if [[ -n $GPUS ]]; then overrides+=(trainer.n_gpus_per_node="$GPUS"); fi
  if [[ -n $EMBEDDER ]]; then overrides+=(medix.scorer.embedder.model="$EMBEDDER"); fi
  # Also when two epochs are fewer.
  if [[ -n $STEPS ]]; then overrides+=(trainer.total_training_steps="$STEPS" trainer.total_epochs=1000000); fi
  if [[ -n $LORA_RANK ]]; then
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

prepare_data() {
  local folder=${prepare[0]}
  if [[ -f $folder/manifest.json && $DRY_RUN != 1 ]]; then return; fi
  step medix prepare "$SOURCE" --out "$folder" --model "$model_folder" --max-prompt-tokens "${prepare[1]}" \
    --min-pixels "${prepare[2]}" --max-pixels "${prepare[3]}"
}

# Both models with the bare question, as the released evaluation asks. GPU 0 answers, GPU 1 judges.
evaluate() {
  local which folder
  if [[ $JUDGE != external ]]; then JUDGE_DEVICES=1 JUDGE_MEMORY=0.9 serve_judge "$EVAL_JUDGE_MODEL"; fi
  for which in base trained; do
    if [[ $which == base ]]; then folder=$model_folder; else folder=$RUN/export; fi
    step env CUDA_VISIBLE_DEVICES=0 medix eval run --model "$folder" --tasks "$EVAL_TASKS" \
      --judge-url "${JUDGE_URL%%,*}" --judge-model "$JUDGE_MODEL" --out "$RUN/eval/$which"
  done
  step medix eval compare "$RUN/eval/base" "$RUN/eval/trained"
  stop_judge
}
