#!/usr/bin/env bash
# Makes .venv and installs the GPU profile from setup.py: CUDA's PyTorch, vLLM, flash-attn. Safe to run again.
# Not run by us (there was no GPU); the list of versions resolves.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}

"$PYTHON" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else
f"expected Python 3.10 to 3.12; found {v[0]}.{v[1]}. Fix: PYTHON=python3.11 bash recipes/medix/setup_gpu.sh")'
[[ -x .venv/bin/python ]] || "$PYTHON" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet)
"${pip[@]}" --upgrade "pip>=25" "setuptools>=70" wheel ninja packaging psutil

# flash-attn is compiled, or its ready-made file chosen, by the PyTorch that is there already.
pin() { sed -n "/^GPU = /,/^]/s/^ *\"\($1==[0-9.]*\)\".*/\1/p" setup.py; }
"${pip[@]}" "$(pin torch)"
"${pip[@]}" --no-build-isolation "$(pin flash-attn)"
"${pip[@]}" --editable ".[gpu,eval,dicom,dev]"
echo "ready: bash recipes/medix/run_7b.sh"
