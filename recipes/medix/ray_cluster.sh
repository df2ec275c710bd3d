#!/usr/bin/env bash
# A Ray cluster over several nodes, for any recipe with NNODES: docs/cluster.md. From the same checkout on every node:
#   NODE_IP=10.0.0.1 bash recipes/medix/ray_cluster.sh head                        # prints the exports to use
#   NODE_IP=10.0.0.2 HEAD=10.0.0.1:6379 bash recipes/medix/ray_cluster.sh worker
#   bash recipes/medix/ray_cluster.sh wait 2                                       # until two nodes have joined
#   bash recipes/medix/ray_cluster.sh status | stop | address                      # stop: what it started on this node
# Workers inherit the environment of this command: export keys (the judge's, W&B's) before it, on every node.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  echo "error: $*" >&2
  exit 2
}

NODE_IP=${NODE_IP:-auto}       # this node's address among the nodes; auto: the one it sends from
if [[ $NODE_IP == auto ]]; then
  # A host name often stands for 127.0.1.1. Nothing is sent: this only asks which way packets would go.
  NODE_IP=$(ip -4 route get 192.0.2.254 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p') || NODE_IP=
  [[ -n $NODE_IP || $# == 0 ]] || fail "expected the address that this node sends from; found none: no \`ip\` command," \
    "or no default route. Fix: set NODE_IP to this node's address among the nodes (127.0.0.1 if it is alone)"
fi
RAY_PORT=${RAY_PORT:-6379}     # of the head
HEAD=${HEAD:-$NODE_IP:$RAY_PORT}
NUM_GPUS=${NUM_GPUS:-}         # empty: as many as Ray finds; with HARDWARE=cpu: slots for workers, 1
NUM_CPUS=${NUM_CPUS:-}         # empty: as many as Ray finds; veRL needs at least 10 over all nodes
HARDWARE=${HARDWARE:-gpu}      # gpu | cpu
CLUSTER_DIR=${CLUSTER_DIR:-outputs/ray}  # on the shared file system: the cluster's token, and marks of its processes

if [[ $HARDWARE == cpu ]]; then
  source recipes/medix/lib/cpu_env.sh
  NUM_GPUS=${NUM_GPUS:-1} NUM_CPUS=${NUM_CPUS:-8}
elif [[ -x .venv/bin/python ]]; then
  export PATH="$PWD/.venv/bin:$PATH"
fi
TEMP_DIR=${TEMP_DIR:-/tmp/medix-ray-$UID-$RAY_PORT}  # of the head, on its own disk
mkdir -p "$CLUSTER_DIR"
CLUSTER_DIR=$(cd "$CLUSTER_DIR" && pwd)
mark_file=$CLUSTER_DIR/node-$NODE_IP-$RAY_PORT.mark
export RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
# Ray runs whatever a client sends it. Only who can read this file is a client.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$CLUSTER_DIR/token}

start() {
  if [[ -f $mark_file ]]; then
    fail "expected no Ray of this cluster on $NODE_IP; found $mark_file. Fix: bash recipes/medix/ray_cluster.sh stop"
  fi
  local options=(--node-ip-address "$NODE_IP" --disable-usage-stats "$@")
  if [[ -n $NUM_GPUS ]]; then options+=(--num-gpus "$NUM_GPUS"); fi
  if [[ -n $NUM_CPUS ]]; then options+=(--num-cpus "$NUM_CPUS"); fi
  # Else gloo, NCCL and vLLM may take the interface of another network. awk reads to the end, or `ip` dies of its pipe.
  local interface
  interface=$(ip -o addr show 2>/dev/null | awk -v ip="$NODE_IP" '{split($4, a, "/")} a[1] == ip && !n++ {print $2}') ||
    interface=
  [[ -n ${GLOO_SOCKET_IFNAME:-$interface} && -n ${NCCL_SOCKET_IFNAME:-$interface} ]] ||
    fail "expected NODE_IP to be an address of this node; found $NODE_IP, which \`ip -o addr show\` does not list, or no" \
      "\`ip\` command. Fix: set NODE_IP, or GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the interface's name"
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
  export VLLM_HOST_IP=$NODE_IP
  echo "Ray listens on every interface of this node, with NODE_IP=127.0.0.1 too, and answers who has the token in" \
    "$RAY_AUTH_TOKEN_PATH; vLLM and TransferQueue listen on $NODE_IP and ask for none: keep the network private." >&2
  MEDIX_RUN_MARK=$(python -c 'import uuid; print(uuid.uuid4().hex)')
  export MEDIX_RUN_MARK
  echo "$MEDIX_RUN_MARK" >"$mark_file"
  if ! ray start "${options[@]}" >"$CLUSTER_DIR/node-$NODE_IP-$RAY_PORT.log" 2>&1; then
    tail -n 15 "$CLUSTER_DIR/node-$NODE_IP-$RAY_PORT.log" >&2
    stop
    exit 1
  fi
}

stop() {
  # `ray stop` would end every Ray of this user on this node, another run's too.
  [[ -f $mark_file ]] || { echo "nothing of this cluster was started on $NODE_IP:$RAY_PORT"; return; }
  python -c 'import sys; from medix.processes import end_processes; print("ended", end_processes(sys.argv[1]))' \
    "$(cat "$mark_file")"
  rm -f "$mark_file" "$TEMP_DIR/ray_current_cluster"
}

alive() {
  python -c 'import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))' "$HEAD"
}

case ${1:-} in
  head)
    if [[ $RAY_AUTH_MODE == token && ! -f $RAY_AUTH_TOKEN_PATH ]]; then
      (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
    fi
    # A folder of its own: in Ray's default one it would leave word of itself, and any `ray.init()` on this node, another
    # user's too, would join this cluster in place of starting its own.
    start --head --port "$RAY_PORT" --include-dashboard=false --temp-dir "$TEMP_DIR"
    echo "export RAY_ADDRESS=$HEAD RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH"
    ;;
  worker) start --address "$HEAD" ;;
  wait)
    for _ in $(seq "${WAIT_S:-600}"); do
      if (($(alive 2>/dev/null || echo 0) >= ${2:-1})); then exit 0; fi
      sleep 1
    done
    echo "expected ${2:-1} nodes within ${WAIT_S:-600} s; found $(alive || echo none). Fix: see the logs in $CLUSTER_DIR" >&2
    exit 1
    ;;
  address) echo "$NODE_IP" ;;
  status) ray status --address "$HEAD" ;;
  stop) stop ;;
  *)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
