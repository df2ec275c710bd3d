# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared with launch.sh, which sources this
# Sourced by launch.sh: where the judge runs.
#   colocated  veRL serves it in the run's own Ray cluster, on GPUs of its own
#   local      `medix serve judge` on this node, in a corner of the memory of GPUs that train as well
#   external   somebody serves it: JUDGE_URL
JUDGE_DEVICES=${JUDGE_DEVICES:-0,1}   # JUDGE=local: the GPUs that it shares, by position; one tensor-parallel server
JUDGE_MEMORY=${JUDGE_MEMORY:-0.12}    # and how much of each; a 4B model in bf16 takes 4 GB of each of two
judge_pid=

check_judge() {
  local position there
  expect '[0-9]+(,[0-9]+)*' 'positions among the visible GPUs, as 0,1' JUDGE_DEVICES
  case $JUDGE in
    colocated) ;;
    external)
      [[ -n $JUDGE_URL ]] || fail "expected JUDGE_URL, the judge's address; found none with HARDWARE=$HARDWARE." \
        "Fix: JUDGE_URL=http://HOST:PORT JUDGE_MODEL=NAME; on the host, \`medix serve judge\`"
      ;;
    local)
      ((NNODES == 1)) || fail "expected one node for JUDGE=local, whose judge listens on 127.0.0.1; found" \
        "NNODES=$NNODES. Fix: \`medix serve judge\` on an address of its own, then JUDGE_URL="
      devices_at "$JUDGE_DEVICES" >/dev/null
      if [[ $DRY_RUN == 1 ]]; then return; fi
      there=$(visible_gpus)
      for position in ${JUDGE_DEVICES//,/ }; do
        ((10#$position < there)) || fail "expected positions among the $there visible GPU(s) for JUDGE=local; found" \
          "$JUDGE_DEVICES. Fix: JUDGE_DEVICES=0, or list more GPUs"
      done
      ;;
    *) fail "expected JUDGE to be colocated, local or external; found $JUDGE. Fix: correct it" ;;
  esac
}

# Sets `judge_overrides`. A local judge is asked once it runs, where it said it listens.
judge_settings() {
  if [[ $JUDGE == colocated ]]; then
    judge_overrides=(judge=colocated reward.reward_model.model_path="$(quoted "$judge_folder")")
    return
  fi
  judge_overrides=(judge=external)
  if [[ -n $JUDGE_URL ]]; then
    judge_overrides+=(
      medix.scorer.judge.urls="$(quoted_list "$JUDGE_URL")" medix.scorer.judge.model="$(quoted "$JUDGE_MODEL")"
    )
  fi
}

start_judge() {
  if [[ $JUDGE == local ]]; then serve_judge "$JUDGE_MODEL" "$judge_folder"; fi
}

# Serves the model of that name and folder, and sets JUDGE_URL and JUDGE_MODEL to where and how to ask it.
serve_judge() {
  local commas=${JUDGE_DEVICES//[^,]/} devices serve announced
  devices=$(devices_at "$JUDGE_DEVICES")
  serve=(medix serve judge "$2" --name "$1" --port 0 --tensor-parallel-size $((${#commas} + 1)) --parent-pid $$
    --log-dir "$RUN/judge" -- --gpu-memory-utilization "$JUDGE_MEMORY")
  if [[ $DRY_RUN == 1 ]]; then
    step env CUDA_VISIBLE_DEVICES="$devices" "${serve[@]}"
    JUDGE_URL=http://127.0.0.1:8000 JUDGE_MODEL=$1
    return
  fi
  announced=$(mktemp)
  CUDA_VISIBLE_DEVICES=$devices "${serve[@]}" >"$announced" &
  judge_pid=$!
  trap stop_judge EXIT
  until grep -q '^export JUDGE_URL=' "$announced"; do
    kill -0 "$judge_pid" 2>/dev/null || fail "expected a judge of $1; found none, see above. Fix: see $RUN/judge"
    sleep 1
  done
  # shellcheck source=/dev/null
  source "$announced"
  rm -f "$announced"
}

stop_judge() {
  if [[ -n $judge_pid ]]; then
    kill "$judge_pid" 2>/dev/null || true
    wait "$judge_pid" 2>/dev/null || true
    judge_pid=
  fi
}
