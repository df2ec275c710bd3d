"""A judge that veRL serves can not be asked before the run; what it needs to start can be looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from medix.errors import ConfigError
from medix_verl.preflight.check import Check

JudgeCheck = Literal["stop", "warn"]


def check_colocated_judge(config: Any) -> Check:
    """Settings and model folder of `reward.reward_model`; at best a warning, as no verdict has been seen.

    Raises:
        ConfigError: it could not start, or would not be asked.
    """
    check_judge_settings(config)
    found = _check_folder(str(config.reward.reward_model.model_path or ""))
    asked = "it starts with the run, and is asked the fixed verdicts before it pays the first response"
    return Check("judge", "warn", f"{found}; {asked}", "watch the first step")


def check_judge_settings(config: Any) -> str:
    """What the configuration alone says of it.

    Raises:
        ConfigError: it would not be asked.
    """
    model = config.reward.reward_model
    if config.reward.custom_reward_function.path is None:
        raise ConfigError(
            "reward.custom_reward_function.path (without it veRL never calls the reward manager)",
            "none, with reward.reward_model.enable=true",
            "choose judge=colocated instead of setting the keys one by one",
        )
    if not model.enable_resource_pool:
        raise ConfigError("slots of its own for the judge", "none", "set reward.reward_model.enable_resource_pool=true")
    read_judge_check(config)
    return f"colocated, {model.model_path}, on {model.n_gpus_per_node} GPU slot(s) of its own"


def read_judge_check(config: Any) -> JudgeCheck:
    """What a judge that gets fixed verdicts wrong does to the run: `medix.judge_check` of the group `judge=colocated`.

    Raises:
        ConfigError: neither `stop` nor `warn`.
    """
    found = config.medix.get("judge_check", "stop")
    if found not in get_args(JudgeCheck):
        raise ConfigError("medix.judge_check to be stop or warn", repr(found), "set one of them")
    chosen: JudgeCheck = found
    return chosen


def _check_folder(path: str) -> str:
    folder = Path(path)
    if "/" in path and not folder.exists() and not path.startswith((".", "/", "outputs")):
        return f"colocated, {path} taken as a hub name"
    if not path or not folder.is_dir():
        fix = "set JUDGE_MODEL= (reward.reward_model.model_path); examples/colocated_judge makes a small one"
        raise ConfigError("a folder with the judge's language model", f"none at {path!r}", fix)
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    settings = {} if "tokenizer_config.json" in missing else _read_json(folder / "tokenizer_config.json")
    if not (folder / "chat_template.jinja").is_file() and not settings.get("chat_template"):
        missing.append("chat template")
    if missing:
        raise ConfigError(f"a whole chat model in {path}", f"no {', '.join(missing)}", "build or download it again")
    if "auto_map" in settings:
        # veRL 0.9.1 opens the judge's tokenizer with trust_remote_code=True, whatever is configured.
        raise ConfigError(
            "a judge whose tokenizer brings no code of its own",
            f"auto_map in {path}/tokenizer_config.json, which veRL would run",
            "use another model, or serve this one yourself and set JUDGE=external JUDGE_URL=",
        )
    return f"colocated, {path} holds weights, tokenizer and chat template"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError("readable JSON", f"{path}: {error}", "build or download the model again") from error
    return data if isinstance(data, dict) else {}
