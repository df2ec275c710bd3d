#!/usr/bin/env bash
# Makes .venv and installs the GPU profile from setup.py: CUDA 13's PyTorch, vLLM, flash-attn; about 25 GB. Safe to run
# again. LOCKED=1 installs exactly the releases of gpu.lock (Python 3.12). Not run by us: there was no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source recipes/medix/lib/setup.sh
PYTHON=${PYTHON:-$(command -v python3.12 || command -v python3.11 || echo python3)}  # 3.12 has ready wheels
FLASH_ATTN=${FLASH_ATTN:-1}              # 0: leave it out; README.md says which recipes do without
FLASH_ATTN_WHEEL=${FLASH_ATTN_WHEEL:-}   # file or address of a ready wheel; empty: it is compiled

pin() { sed -n "/^GPU = /,/^]/s/^ *\"\($1==[0-9.]*\)\".*/\1/p" setup.py; }

# Before anything is installed: can flash-attn be had at all?
nvcc=$({ "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" --version || nvcc --version; } 2>/dev/null |
  sed -n 's/.*release \([0-9]*\)\..*/\1/p') || nvcc=
if [[ $FLASH_ATTN == 1 && -z $FLASH_ATTN_WHEEL && $nvcc != 13 ]]; then
  tag=$("$PYTHON" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
  # The wheel on GitHub is a community's build, which we could not try: it is named, not taken.
  echo "error: flash-attn has to be compiled by the nvcc of CUDA 13, and there is ${nvcc:+that of CUDA }${nvcc:-none}." \
    "Fix: install the CUDA 13.0 toolkit and set CUDA_HOME; or name a ready wheel for torch 2.11 and CUDA 13, such as" \
    "FLASH_ATTN_WHEEL=https://github.com/mjun0812/flash-attention-prebuild-wheels/releases/download/v0.9.4/flash_attn-2.8.3+cu130torch2.11-$tag-$tag-linux_x86_64.whl;" \
    "or FLASH_ATTN=0 (README.md says which recipes do without)" >&2
  exit 2
fi
make_environment "$PYTHON"
install "what builds need" --upgrade "setuptools>=70" wheel ninja packaging psutil
install "PyTorch for CUDA 13" "$(pin torch)"
if [[ $FLASH_ATTN == 1 && -n $FLASH_ATTN_WHEEL ]]; then
  install "flash-attn, a ready wheel" --no-deps "$FLASH_ATTN_WHEEL"
elif [[ $FLASH_ATTN == 1 ]] && ! .venv/bin/python -c 'import flash_attn_2_cuda' 2>/dev/null; then
  # For this machine's cards only: 90 for an H100, 80 for an A100. All of them would take four times as long.
  cards=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u | paste -sd';') || cards=
  export FLASH_ATTN_CUDA_ARCHS=${FLASH_ATTN_CUDA_ARCHS:-${cards:-90}} FLASH_ATTENTION_FORCE_BUILD=TRUE
  export MAX_JOBS=${MAX_JOBS:-$(($(nproc) / 2 > 32 ? 32 : ($(nproc) + 1) / 2))}
  echo "compiling flash-attn for $FLASH_ATTN_CUDA_ARCHS with $MAX_JOBS jobs: 15 to 60 minutes, 9 GB of memory a job"
  install "flash-attn" --verbose --no-build-isolation "$(pin flash-attn)"
fi
extras=".[gpu,eval,dicom,loggers,dev]"
constraints=()
if [[ ${LOCKED:-0} == 1 ]]; then constraints=(--constraint recipes/medix/gpu.lock) extras=".[gpu,eval,dicom,loggers]"; fi
if [[ $FLASH_ATTN == 1 ]]; then
  install "veRL, vLLM and this project" "${constraints[@]}" --editable "$extras"
else
  # Everything that the extra names, but this.
  mapfile -t rest < <(sed -n '/^GPU = /,/^]/s/^ *"\([^"]*\)".*/\1/p; /^TRAINING = /,/^]/s/^ *"\([^"]*\)".*/\1/p' setup.py |
    grep -v '^flash-attn')
  install "veRL, vLLM and this project" "${constraints[@]}" "${rest[@]}" --editable ".[eval,dicom,loggers]"
fi
echo "importing what a run imports"
.venv/bin/python - "$FLASH_ATTN" <<'PYTHON'
import importlib, sys
for name in ["torch", "transfer_queue", "verl.trainer.main_ppo", "vllm"] + ["flash_attn_2_cuda"] * int(sys.argv[1]):
    importlib.import_module(name)
    print("  imported", name, flush=True)
PYTHON
echo "ready after $SECONDS s: DRY_RUN=1 bash recipes/medix/run_7b.sh, then without DRY_RUN"
