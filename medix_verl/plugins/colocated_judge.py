"""The colocated judge: whether it can judge, and a name that it needs and nothing calls.

With `reward.reward_model.enable`, veRL 0.9.1 asks the model for a discriminative score and leaves the reward manager
out, unless `reward.custom_reward_function.path` is set; then it calls the reward manager. `compute_score` stands there.
Our manager scores with its composite and reaches the model through veRL's router.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from medix.errors import ScorerError

if TYPE_CHECKING:
    from medix_verl.preflight.scorers import JudgeCheck
    from reward_fns.scorers.service import ScorerService

logger = logging.getLogger(__name__)
WRONG_AT_MOST = 1
"""Of the fixed verdicts. Before a run preflight forgives an external judge none; here a run would be lost."""


def compute_score(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Raises: a reward manager other than ours is in force, and would score with this."""
    raise RuntimeError(
        "expected reward.reward_manager to be MedixRewardManager; found another one, which asked for a score. "
        "Fix: do not override reward.reward_manager"
    )


async def ask_fixed_verdicts(scorers: ScorerService, judge_check: JudgeCheck) -> None:
    """What preflight asks of other judges: this one starts with the run, so it is asked before it pays a response.

    Past the cache, which knows a judge by its path: other weights may stand there now.

    Raises:
        ScorerError: it is not fit to judge, or did not answer.
    """
    from medix_verl.preflight.scorers import FIXED_VERDICTS, wrong_verdicts

    asked = scorers.uncached()
    try:
        wrong = await wrong_verdicts(asked)
    finally:
        await asked.aclose()
    found = f"wrong on {', '.join(wrong)}"
    if len(wrong) > WRONG_AT_MOST and judge_check == "stop":
        raise ScorerError(
            f"a colocated judge that gets {len(FIXED_VERDICTS) - WRONG_AT_MOST} of {len(FIXED_VERDICTS)} fixed "
            "verdicts right",
            found,
            "take a stronger one (JUDGE_MODEL=): its mistakes are the reward; medix.judge_check=warn trains with it",
        )
    if wrong:
        logger.warning("the colocated judge is %s; its mistakes are the reward", found)
