# shellcheck shell=bash
# Sourced by every recipe: what a knob may hold, and how it reaches Hydra.

fail() {
  echo "error: $*" >&2
  exit 2
}

# A text as Hydra reads it: in quotes, so that none of `=,()[] ` in it is grammar and 14 stays a text.
quoted() {
  printf "'%s'" "${1//\'/\\\'}"
}

# `a,b` as a list of texts.
quoted_list() {
  local text=$1 item shown=
  while [[ -n $text ]]; do
    item=${text%%,*}
    text=${text#"$item"}
    text=${text#,}
    shown+=${shown:+,}$(quoted "$item")
  done
  printf '[%s]' "$shown"
}

# `expect PATTERN WHAT KNOB...`: each knob is empty or fits the whole pattern.
expect() {
  local pattern=$1 what=$2 knob
  shift 2
  for knob; do
    [[ -z ${!knob} || ${!knob} =~ ^($pattern)$ ]] || fail "expected $knob to be $what; found ${!knob}. Fix: correct it, or leave it out"
  done
}

# What the GPU recipes and the CPU one have in common.
expect_common_knobs() {
  expect '0|1' '0 or 1' EXPORT EVAL DRY_RUN
  expect '0|[1-9][0-9]*' 'a whole number' SEED LORA_RANK
  expect '[1-9][0-9]*' 'a whole number above 0' STEPS
  if [[ -n $JUDGE_URL && $JUDGE =~ ^(colocated|local)$ ]]; then
    fail "expected JUDGE=external, or no JUDGE, with a JUDGE_URL; found JUDGE=$JUDGE JUDGE_URL=$JUDGE_URL." \
      "Fix: leave one of the two out"
  fi
}
