# shellcheck shell=bash
# Sourced by the run_*.sh: starts `medix recipe` in the checkout's environment.
if [[ -x .venv/bin/medix ]]; then
  PATH="$PWD/.venv/bin:$PATH"
elif ! command -v medix >/dev/null; then
  echo "error: There is no environment yet. Fix: bash recipes/medix/setup_gpu.sh; without a GPU run \`make demo\`." >&2
  exit 2
fi
exec medix recipe -- "$@"
