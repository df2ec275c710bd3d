"""Reward components, one file each, the composite and its presets: the files to edit for an ablation.

Example:
    >>> import asyncio
    >>> composite = build_composite({"preset": "strict"}, AssumedScorers(judge_says=True, cosine=0.9))
    >>> response = "<X_RAY><thinking>Air space.</thinking><answer>lung infection</answer>"
    >>> asyncio.run(composite.score(ScoringInput(response, reference="pneumonia", modality="X_RAY"))).total
    1.0
"""

from reward_fns.component import Component, ComponentScore, ScoringInput
from reward_fns.composite import Composite, CompositeScore
from reward_fns.presets import COMPONENTS, build_composite
from reward_fns.rows import AssumedScorers
from reward_fns.scorers.types import Scorers

__all__ = [
    "COMPONENTS",
    "AssumedScorers",
    "Component",
    "ComponentScore",
    "Composite",
    "CompositeScore",
    "Scorers",
    "ScoringInput",
    "build_composite",
]
