# shellcheck shell=bash
# Sourced by the GPU recipes: the environment of veRL 0.9.1 and vLLM 0.24, each line with its reason. Ray passes it on to
# the processes of this node; `medix train` hands it to those of other nodes (medix_verl/training/cluster.py).
export RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=${VLLM_NO_USAGE_STATS:-1}  # nothing is reported from a hospital
export HYDRA_FULL_ERROR=1
# As in the released runs: symmetric-memory all-reduce keeps buffers that a sleeping rollout engine does not give back.
export VLLM_ALLREDUCE_USE_SYMM_MEM=${VLLM_ALLREDUCE_USE_SYMM_MEM:-0}
# The released runs set 1, for Megatron's sake; veRL's own notes want it unset with FSDP2, whose gathers it would queue.
unset CUDA_DEVICE_MAX_CONNECTIONS
# vLLM's sleep mode refuses expandable segments at start. veRL turns them on and off itself, around the weight sync.
if [[ ${PYTORCH_CUDA_ALLOC_CONF:-}${PYTORCH_ALLOC_CONF:-} == *expandable_segments:True* ]]; then
  echo "note: expandable_segments:True is taken out of PyTorch's allocator settings: vLLM's sleep mode refuses it" >&2
  unset PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF
fi
# Of the released list, left to veRL, which sets them itself: TOKENIZERS_PARALLELISM=true, NCCL_DEBUG=WARN,
# VLLM_LOGGING_LEVEL=WARN. Left out: TORCH_NCCL_AVOID_RECORD_STREAMS, the default of current PyTorch.
