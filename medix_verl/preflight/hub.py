"""Are the models that a run downloads there for us? Asked before the first large download, which takes an hour."""

from __future__ import annotations

import os
from typing import Any

from medix.errors import ConfigError
from medix_verl.preflight.check import Check
from medix_verl.preflight.model import hub_name


def models_of(config: Any) -> dict[str, str]:
    """Return every hub name that a run needs -> the knob that names it."""
    embedder = config.medix.scorer.embedder
    named = {str(config.actor_rollout_ref.model.path): "MODEL"}
    if config.reward.reward_model.enable:
        named[str(config.reward.reward_model.model_path)] = "JUDGE_MODEL"
    if embedder.get("kind", "") == "sentence_transformers":
        named[str(embedder.model)] = "EMBEDDER"
    return {name: knob for name, knob in named.items() if hub_name(name)}


def check_hub_models(config: Any) -> str | Check:
    """Ask the hub for each model that is not in the local cache: it may be gated, misspelt, or out of reach.

    Raises:
        ConfigError: naming the knob.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    missing = {name: k for name, k in models_of(config).items() if not try_to_load_from_cache(name, "config.json")}
    if not missing:
        return "folders, or in the hub client's cache"
    for name, knob in missing.items():
        remedy = f"Correct {knob}, or download the model elsewhere and set {knob}=FOLDER."
        try:
            HfApi().auth_check(name)
        except GatedRepoError:
            raise ConfigError(
                f"{name} is gated, and this account has no access.",
                f"Accept its terms on its page, then `hf auth login`; or set {knob}=FOLDER.",
            ) from None
        except RepositoryNotFoundError:
            raise ConfigError(f"The hub has no model {name}, or none for this account.", remedy) from None
        except (OfflineModeIsEnabled, HTTPError, OSError) as error:
            reason = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else type(error).__name__
            return Check("warn", f"{name}: the hub can not be asked ({reason})", remedy)
    return f"to be downloaded: {', '.join(missing)}"
