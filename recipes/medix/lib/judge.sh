# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared with launch.sh, which sources this
# Sourced by launch.sh: where the judge runs.
#   colocated  veRL serves it in the run's own Ray cluster, on GPUs of its own
#   local      `medix serve judge` on this node, in a corner of the memory of GPUs that train as well
#   external   somebody serves it: JUDGE_URL
JUDGE_DEVICES=${JUDGE_DEVICES:-0,1}   # JUDGE=local: the GPUs that it shares, one tensor-parallel server
JUDGE_MEMORY=${JUDGE_MEMORY:-0.12}    # and how much of each; a 4B model in bf16 takes 4 GB of each of two
judge_pid=

choose_judge() {
  case $JUDGE in
    colocated)
      fetch_model "$JUDGE_MODEL"
      judge_overrides=(judge=colocated reward.reward_model.model_path="$folder")
      ;;
    external)
      [[ -n $JUDGE_URL ]] || fail "expected JUDGE_URL, the judge's address; found none with HARDWARE=$HARDWARE." \
        "Fix: JUDGE_URL=http://HOST:PORT JUDGE_MODEL=NAME; on the host, \`medix serve judge\`"
      judge_overrides=(judge=external "medix.scorer.judge.urls=[$JUDGE_URL]" medix.scorer.judge.model="$JUDGE_MODEL")
      ;;
    local)
      ((NNODES == 1)) || fail "expected one node for JUDGE=local, whose judge listens on 127.0.0.1; found" \
        "NNODES=$NNODES. Fix: \`medix serve judge\` on an address of its own, then JUDGE_URL="
      judge_overrides=(judge=external)  # the rest is known once it runs
      ;;
    *) fail "expected JUDGE to be colocated, local or external; found $JUDGE. Fix: correct it" ;;
  esac
}

start_judge() {
  if [[ $JUDGE != local ]]; then return; fi
  serve_judge "$JUDGE_MODEL"
  # Before the command line's own overrides, which win.
  overrides=("medix.scorer.judge.urls=[$JUDGE_URL]" medix.scorer.judge.model="$JUDGE_MODEL" "${overrides[@]}")
}

# Serves the model of that name and sets JUDGE_URL and JUDGE_MODEL to where and how to ask it.
serve_judge() {
  local devices=${JUDGE_DEVICES//[^,]/} serve announced
  fetch_model "$1"
  serve=(medix serve judge "$folder" --name "$1" --port 0 --tensor-parallel-size $((${#devices} + 1)) --parent-pid $$
    --log-dir "$RUN/judge" -- --gpu-memory-utilization "$JUDGE_MEMORY")
  if [[ $DRY_RUN == 1 ]]; then
    echo "# CUDA_VISIBLE_DEVICES=$JUDGE_DEVICES ${serve[*]}"
    JUDGE_URL=http://127.0.0.1:8000 JUDGE_MODEL=$1
    return
  fi
  announced=$(mktemp)
  CUDA_VISIBLE_DEVICES=$JUDGE_DEVICES "${serve[@]}" >"$announced" &
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
