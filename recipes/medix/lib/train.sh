# shellcheck shell=bash
# `train ARGUMENTS`: `medix train` in the background, as bash keeps a signal to itself while a child is in front. Slurm's
# warning before the end of a job has to reach `medix train`, which saves the step under way, within
# `medix.watchdog.term_minutes`, and ends every process of the run.
train() {
  local training code=0
  medix train "$@" &
  training=$!
  trap 'kill -TERM "$training" 2>/dev/null' TERM
  trap : INT  # a terminal's Ctrl-C reaches `medix train` by itself
  wait "$training" || code=$?
  while kill -0 "$training" 2>/dev/null; do  # a signal ends `wait` before the child has ended
    code=0
    wait "$training" || code=$?
  done
  trap - TERM INT
  return "$code"
}
