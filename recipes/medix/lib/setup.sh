# shellcheck shell=bash
# Sourced by the set-up scripts: a virtual environment in .venv, and installations that show that they go on.
make_environment() {  # PYTHON
  "$1" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 12) else
f"error: Python {v[0]}.{v[1]} is not 3.11 or 3.12. Fix: name one, as in PYTHON=python3.12")' || exit 2
  [[ -x .venv/bin/python ]] || "$1" -m venv .venv
  # Older resolvers walk through hundreds of releases of veRL's dependencies before they settle.
  install "pip, the installer" --upgrade "pip>=25"
}

# What is installed, then pip's arguments. pip says nothing while it unpacks gigabytes: a line every 15 s says it lives.
install() {
  local what=$1 code=0 start=$SECONDS pid
  shift
  echo "installing $what"
  .venv/bin/python -m pip install "$@" &
  pid=$!
  while sleep 1 && kill -0 "$pid" 2>/dev/null; do
    if (((SECONDS - start) % ${TICK_S:-15} == 0)); then echo "  ... $what, $((SECONDS - start)) s"; fi
  done
  wait "$pid" || code=$?
  return "$code"
}
