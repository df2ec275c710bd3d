"""A name for `reward.custom_reward_function.path`, which the colocated judge needs and nothing calls.

With `reward.reward_model.enable`, veRL 0.9.1 asks the model for a discriminative score and leaves the reward manager
out, unless a custom reward function is configured; then it calls the reward manager. Ours scores with its composite and
reaches the model through veRL's router.
"""

from __future__ import annotations

from typing import Any, NoReturn


def compute_score(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Raises: a reward manager other than ours is in force, and would score with this."""
    raise RuntimeError(
        "expected reward.reward_manager to be MedixRewardManager; found another one, which asked for a score. "
        "Fix: do not override reward.reward_manager"
    )
