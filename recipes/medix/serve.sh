#!/usr/bin/env bash
# Serves a judge or an embedder with vLLM until it is ended; further arguments are vLLM's:
#   bash recipes/medix/serve.sh judge Qwen/Qwen3-4B-Instruct-2507 --data-parallel-size 2
#   HOST=0.0.0.0 VLLM_API_KEY=... bash recipes/medix/serve.sh embedder abhinand/MedEmbed-large-v0.1
# Once it is healthy it prints the knobs for a recipe. On other addresses than loopback it asks for a key, which goes by
# the environment: a command line can be read by every user of the machine.
set -euo pipefail
HOST=${HOST:-127.0.0.1} PORT=${PORT:-8000}
START_LIMIT_S=${START_LIMIT_S:-1800}  # a large model is read from a slow disk
LOG=${LOG:-/dev/stderr}               # vLLM's own output
PARENT_PID=${PARENT_PID:-}            # end with this process

fail() {
  echo "error: $1 Fix: $2" >&2
  exit 2
}

kind=${1:-} model=${2:-}
[[ -n $model ]] || fail "A kind and a model are needed." "bash recipes/medix/serve.sh judge|embedder MODEL [vLLM's options]"
shift 2
case $kind in
  # The folder's own sampling defaults (a temperature, a repetition penalty) must not reach a verdict.
  judge) options=(--max-model-len 8192 --max-num-seqs 256 --generation-config vllm) said="JUDGE_URL JUDGE_MODEL" ;;
  embedder) options=(--max-num-seqs 256 --runner pooling --convert embed) said="EMBEDDER_URL EMBEDDER" ;;
  *) fail "There is no kind $kind." "Say judge or embedder." ;;
esac
[[ $HOST == 127.* || $HOST == localhost || $HOST == ::1 || -n ${VLLM_API_KEY:-} ]] ||
  fail "Whoever reaches $HOST could use this server." "export VLLM_API_KEY=... for both sides, or leave HOST out."
python=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv/bin/python
[[ -x $python ]] || python=python3
name=$model
# A package may carry the model.
model=$("$python" -P -c 'import sys; from reward_fns.scorers.embedder import packaged_model as p; print(p(sys.argv[1]))' "$model")
for ((i = 1; i < $#; i++)); do
  if [[ ${!i} == --served-model-name ]]; then next=$((i + 1)) name=${!next}; fi
done
export VLLM_NO_USAGE_STATS=1
if [[ ! -e /dev/nvidiactl ]]; then
  export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind
  export ONEDNN_MAX_CPU_ISA=${ONEDNN_MAX_CPU_ISA:-AVX512_CORE_BF16}  # some processors advertise AMX and refuse it
fi
mkdir -p "$(dirname "$LOG")"
# `vllm serve` asks for the version of a package called vllm, which the CPU build is not.
"$python" -P -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name "$name" --host "$HOST" \
  --port "$PORT" --disable-uvicorn-access-log "${options[@]}" "$@" >>"$LOG" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" || true' EXIT
trap 'exit 0' TERM INT
until "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' "http://$HOST:$PORT/health" 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || fail "vLLM ended before it was healthy." "See $LOG."
  ((SECONDS < START_LIMIT_S)) || fail "vLLM was not healthy within $START_LIMIT_S s." "See $LOG; raise START_LIMIT_S."
  sleep 1
done
printf 'export %s=http://%s:%s %s=%q\n' "${said% *}" "$HOST" "$PORT" "${said#* }" "$name"
if [[ -n ${VLLM_API_KEY:-} ]]; then
  printf '# add to the recipe: medix.scorer.%s.api_key_env=VLLM_API_KEY\n' "$kind"
fi
while kill -0 "$server" 2>/dev/null && { [[ -z $PARENT_PID ]] || kill -0 "$PARENT_PID" 2>/dev/null; }; do
  sleep 1 &
  wait $! || true
done
[[ -n $PARENT_PID ]] || fail "vLLM has ended." "See $LOG."
