"""Ask the colocated judge whether it can judge, and give veRL a name that it needs and nothing calls.

With `reward.reward_model.enable`, veRL 0.9.1 asks the model for a discriminative score and leaves the reward manager
out, unless `reward.custom_reward_function.path` is set; then it calls the reward manager. `compute_score` stands there.
Our manager scores with its composite and reaches the model through veRL's router.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from medix.errors import ScorerError

if TYPE_CHECKING:
    from medix_verl.preflight.scorers import JudgeCheck
    from reward_fns.scorers.service import ScorerService
    from reward_fns.scorers.types import VerdictParse

logger = logging.getLogger(__name__)
WRONG_AT_MOST = 1
"""Of the fixed verdicts. Before a run preflight lets an external judge get none wrong; here a run would be lost."""


def compute_score(*_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise: a reward manager other than ours is in force, and would score with this."""
    raise RuntimeError("Another reward manager than MedixRewardManager is in force. Fix: leave reward.reward_manager.")


async def ask_fixed_verdicts(scorers: ScorerService, judge_check: JudgeCheck, verdicts: Sequence[VerdictParse]) -> None:
    """Ask what preflight asks of other judges: this one starts with the run, so it is asked before it pays a response.

    The cache is passed by: it knows a judge by its path, where other weights may stand now.

    Args:
        verdicts: how the composite has replies read: `Composite.verdicts`.

    Raises:
        ScorerError: it is not fit to judge, or did not answer.
    """
    from medix_verl.preflight.scorers import FIXED_VERDICTS, wrong_verdicts

    asked = scorers.uncached()
    try:
        wrong = await wrong_verdicts(asked, verdicts)
    finally:
        await asked.aclose()
    problem = (
        f"The colocated judge is wrong on {len(wrong)} of {len(FIXED_VERDICTS)} fixed verdicts: {', '.join(wrong)}."
    )
    if len(wrong) > WRONG_AT_MOST and judge_check == "stop":
        fix = "Take a stronger one (JUDGE_MODEL=): its mistakes are the reward. medix.judge_check=warn trains with it."
        raise ScorerError(problem, fix)
    if wrong:
        logger.warning("%s Its mistakes are the reward.", problem)
