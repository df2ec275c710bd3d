# shellcheck shell=bash
# Sourced by the CPU recipe: what lets veRL, vLLM and torch run without an accelerator.
if [[ -x .venv/bin/python ]]; then PATH="$PWD/.venv/bin:$PATH"; fi
export PATH
export VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=medix_verl.plugins
export VERL_ENGINE_DEVICE=cuda  # selects veRL's FSDP engine, which is registered for cuda and npu only
export VLLM_ENABLE_V1_MULTIPROCESSING=0  # else vLLM's CPU build starts a worker beside its engine, which spins as it waits
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind
export HF_HUB_OFFLINE=1 HYDRA_FULL_ERROR=1 TOKENIZERS_PARALLELISM=false
export RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 RAY_DEDUP_LOGS=0
export ONEDNN_MAX_CPU_ISA=${ONEDNN_MAX_CPU_ISA:-AVX512_CORE_BF16}  # some processors advertise AMX and refuse it
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}  # spinning threads starve each other on a machine with other work
