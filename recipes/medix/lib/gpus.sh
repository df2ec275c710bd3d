# shellcheck shell=bash disable=SC2153  # RECIPE and the knobs are set by the script and knobs.sh
# Sourced by launch.sh: which arrangement of GPUs, whether they are there, and what else would run.
script=recipes/medix/run_${RECIPE#medix_}.sh
cpu_instead="without a GPU run \`make demo\`, the whole pipeline on two CPU cores"

choose_hardware() {
  JUDGE=${JUDGE:-${JUDGE_URL:+external}}
  if [[ $HARDWARE == gpu_24gb ]]; then
    JUDGE=${JUDGE:-external} LORA_RANK=${LORA_RANK:-64}
    ((LORA_RANK > 0)) || fail "expected adapters with HARDWARE=gpu_24gb, which has no room to train all weights;" \
      "found LORA_RANK=0. Fix: leave LORA_RANK out"
  fi
  JUDGE=${JUDGE:-colocated}
  if [[ $JUDGE != colocated ]]; then
    HARDWARE=${HARDWARE:-gpu_8}
  elif ((NNODES > 1)); then
    HARDWARE=${HARDWARE:-gpu_7_judge_1}  # 12 trainers on two nodes do not divide an update, 14 do
  else
    HARDWARE=${HARDWARE:-gpu_6_judge_2}
  fi
  if [[ $RECIPE == medix_30b && $HARDWARE == gpu_7_judge_1 ]]; then
    fail "expected JUDGE_URL, a judge elsewhere, for the 30B with NNODES=$NNODES; found HARDWARE=$HARDWARE, whose" \
      "rollout engines of one GPU do not hold it. Fix: JUDGE=external JUDGE_URL=http://HOST:PORT HARDWARE=gpu_8"
  fi
  count_needed
}

# Sets `needed`, the GPUs of a node. The names of config/hardware say how many train and how many judge: gpu_6_judge_2.
count_needed() {
  needed=${GPUS:-1}
  if [[ $HARDWARE =~ ^gpu_([0-9]+)(_judge_([0-9]+))?$ ]]; then
    needed=${GPUS:-${BASH_REMATCH[1]}}
    if [[ $JUDGE == colocated ]]; then needed=$((needed + ${BASH_REMATCH[3]:-1})); fi
  fi
}

# Before anything else, and without Python: importing torch takes seconds, preparing data hours.
check_gpus() {
  local found
  if [[ -n ${RAY_ADDRESS:-} ]]; then
    reach_cluster
    return
  fi
  if ((NNODES > 1)); then
    fail "expected RAY_ADDRESS, the Ray cluster of $NNODES nodes; found none. Fix: start it with" \
      "recipes/medix/ray_cluster.sh, which prints the exports; $cpu_instead"
  fi
  found=$(visible_gpus)
  if ((found == 0)); then
    fail "expected $needed NVIDIA GPU(s) for $script with HARDWARE=$HARDWARE; found none. Fix: $cpu_instead;" \
      "\`DRY_RUN=1 bash $script\` shows this recipe's configuration"
  elif ((found < needed)); then
    fail "expected $needed NVIDIA GPU(s) for $script with HARDWARE=$HARDWARE; found $found. Fix: $(smaller_run "$found")"
  fi
}

# How many there are, or as many as CUDA_VISIBLE_DEVICES lists if that is less: it may name what is not there.
visible_gpus() {
  local there listed
  there=$(timeout 8 nvidia-smi -L 2>/dev/null | grep -c '^GPU') || true
  case ${CUDA_VISIBLE_DEVICES-all} in
    all) listed=$there ;;
    -1) listed=0 ;;
    *) listed=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .) || true ;;
  esac
  echo $((there < listed ? there : listed))
}

# What divides on so few GPUs: 640 responses an update and engines of two GPUs leave 2, 4 or 8 trainers; the 30B's
# engines take all eight.
smaller_run() {
  local trainers=2 run=$script judge="JUDGE=external JUDGE_URL=${JUDGE_URL:-http://HOST:PORT}"
  if (($1 == 1)); then
    echo "on one GPU of 24 GB: HARDWARE=gpu_24gb GPUS=1 $judge bash recipes/medix/run_3b.sh"
    return
  fi
  if (($1 >= 8)); then trainers=8; elif (($1 >= 4)); then trainers=4; fi
  if [[ $RECIPE == medix_30b ]] && ((trainers < 8)); then run=recipes/medix/run_8b.sh; fi
  if [[ $JUDGE == local ]]; then judge="JUDGE=local"; fi
  echo "HARDWARE=gpu_8 GPUS=$trainers $judge bash $run"
}

# Is anybody there? Without Python, as above. An address of another form (auto) is left to check_cluster.
reach_cluster() {
  if [[ $RAY_ADDRESS =~ ^(ray://)?([^]:/[]+):([0-9]+)$ ]] &&
    ! timeout 3 bash -c ": <'/dev/tcp/${BASH_REMATCH[2]}/${BASH_REMATCH[3]}'" 2>/dev/null; then
    no_cluster
  fi
}

no_cluster() {
  fail "expected the Ray cluster of RAY_ADDRESS=$RAY_ADDRESS; found no answer. Fix: start it with" \
    "recipes/medix/ray_cluster.sh (docs/cluster.md), or unset RAY_ADDRESS to run on this machine; $cpu_instead"
}

# The cluster's GPUs, before anything is downloaded. Needs the environment. Ray asks a dead address for minutes: a
# machine without a GPU, which may be nobody's node, waits 5 s for it.
check_cluster() {
  local found patience=60 remedy="the other nodes join by recipes/medix/ray_cluster.sh worker"
  if [[ -z ${RAY_ADDRESS:-} ]]; then return; fi
  if (($(visible_gpus) == 0)); then patience=5; fi
  found=$(python -c 'import ray, signal, sys
signal.alarm(int(sys.argv[2]))
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(int(ray.cluster_resources().get("GPU", 0)))' "$RAY_ADDRESS" "$patience" 2>/dev/null) || no_cluster
  if ((found >= needed * NNODES)); then return; fi
  if ((found == 0)); then
    remedy+="; $cpu_instead"
  elif ((NNODES == 1)); then
    remedy+=", or $(smaller_run "$found")"
  fi
  fail "expected $((needed * NNODES)) GPU(s) in the Ray cluster of RAY_ADDRESS for $script with HARDWARE=$HARDWARE" \
    "NNODES=$NNODES; found $found. Fix: $remedy"
}

# The GPUs at these positions among those that may be used: of CUDA_VISIBLE_DEVICES=4,5,6,7 those at 0,1 are 4,5.
devices_at() {
  local visible position chosen=
  if [[ -z ${CUDA_VISIBLE_DEVICES:-} ]]; then
    echo "$1"
    return
  fi
  IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
  for position in ${1//,/ }; do
    [[ -n ${visible[position]:-} ]] || fail "expected positions within CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES;" \
      "found $1. Fix: correct JUDGE_DEVICES, or list more GPUs"
    chosen+=${chosen:+,}${visible[position]}
  done
  echo "$chosen"
}
