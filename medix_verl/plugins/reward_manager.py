"""The reward manager `medix`: veRL's reward loop calls it once a response, as soon as that response is rolled out.

The scorers (judge and embedder clients, cache) live in the one reward worker of the job, so that there is one
cache, one connection pool and one concurrency limit. Named in YAML as
`reward.reward_manager: {source: importlib, name: MedixRewardManager, module.path: pkg://medix_verl.plugins.reward_manager}`.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from medix.errors import ConfigError
from medix.jsonl import JsonlWriter
from medix_verl.plugins.colocated_judge import ask_fixed_verdicts
from medix_verl.preflight.scorers import read_judge_check
from reward_fns import ScoringInput, build_composite
from reward_fns.scorers.types import RefusedSample

REFUSED = "sample_refused"
"""Marks the record of a response that the judge refused for its content: `MedixReplayBuffer` drops its group."""


@register("medix")
class MedixRewardManager(RewardManagerBase):  # type: ignore[misc]
    """Score responses with the composite of `medix.reward`.

    Raises:
        ConfigError: at start, for anything wrong in `medix.reward` or `medix.scorer`.
        ScorerError: from `run_single`, when the scorers stayed out of order past their limit, or a colocated judge
            can not judge; veRL then has no response for that session, and `MedixReplayBuffer` stops the run.
    """

    def __init__(
        self,
        config: DictConfig,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        if config.reward.num_workers != 1:
            raise ConfigError(
                f"reward.num_workers is {config.reward.num_workers}; one worker holds the scorers of a job.",
                "Set reward.num_workers=1; raise medix.scorer.judge.max_in_flight for more concurrency.",
            )
        from reward_fns.scorers.service import ScorerService, relax_collector

        settings = OmegaConf.to_container(config.medix, resolve=True)
        scorer_settings = with_colocated_judge(settings["scorer"], config, reward_router_address)
        self.scorers = ScorerService(scorer_settings)
        self.composite = build_composite(settings["reward"], self.scorers, self.scorers.at_once)
        self.scorers.open(self.composite.needs)
        self._asks_judge = config.reward.reward_model.enable and "judge" in self.composite.needs
        self._judge_check = read_judge_check(config)
        self._judge_asked: asyncio.Future[None] | None = None
        relax_collector()  # veRL's reward worker does nothing but score
        rollouts = Path(settings["run_dir"]) / "rollouts"
        self._log, self._refused = JsonlWriter(rollouts / "scored.jsonl"), JsonlWriter(rollouts / "refused.jsonl")

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score the last trajectory of a session: `{"reward_score": float, "reward_extra_info": {str: float}}`."""
        await self._ask_judge_once()
        item = data[-1]
        scoring_input, row = scoring_input_of(item, self._decode(item)), item.non_tensor_batch
        record = {
            "time": round(time.time(), 3),
            "step": int(row.get("global_steps", -1)),
            "split": str(row["extra_info"].get("split", "")),
            "group": str(row.get("uid", "")),
            "session": int(row.get("session_id", -1)),
            **{name: getattr(scoring_input, name) for name in LOGGED},
        }
        try:
            score = await self.composite.score(scoring_input)
        except RefusedSample as error:
            self._refused.append({**record, "reason": str(error)})
            return {"reward_score": 0.0, "reward_extra_info": {"score": 0.0, "acc": 0.0, REFUSED: 1.0}}
        flat = score.flat()
        self._log.append({**record, "scores": flat, "detail": score.record()})
        return {"reward_score": flat["score"], "reward_extra_info": flat}

    async def _ask_judge_once(self) -> None:
        """Ask a judge that starts with the run the fixed verdicts; all responses wait for the outcome, and share it."""
        if not self._asks_judge:
            return
        if self._judge_asked is None:
            asked = ask_fixed_verdicts(self.scorers, self._judge_check, self.composite.verdicts)
            self._judge_asked = asyncio.ensure_future(asked)
        await asyncio.shield(self._judge_asked)

    def _decode(self, item: Any) -> str:
        response_ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-response_ids.shape[-1] :].sum())
        return str(self.tokenizer.decode(response_ids[:length], skip_special_tokens=True))


LOGGED = ("sample_id", "question", "reference", "modality", "response")
"""Fields of a scoring input that stand in `rollouts/scored.jsonl`."""


def scoring_input_of(item: Any, response: str) -> ScoringInput:
    """Return what the composite needs, from one item of veRL's batch and the decoded response."""
    info, messages = item.non_tensor_batch["extra_info"], item.non_tensor_batch.get("raw_prompt")
    return ScoringInput(
        response=response,
        reference=item.non_tensor_batch["reward_model"]["ground_truth"],
        question=info["question"],
        modality=info["modality"] or None,
        aliases=tuple(info["aliases"]),
        answer_kind=info["answer_kind"],
        sample_id=info["sample_id"],
        extra=json.loads(info.get("extra") or "{}"),
        load_images=lambda: images_of(messages),
    )


def images_of(messages: Any) -> list[bytes]:
    """Return the encoded images of a prompt's messages, in order, as the prepared file holds them."""
    contents = [message["content"] for message in ([] if messages is None else messages)]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    return [part["bytes"] for part in parts if part.get("type") == "image" and part.get("bytes")]


def with_colocated_judge(
    scorer: dict[str, Any], config: DictConfig, reward_router_address: str | None
) -> dict[str, Any]:
    """Return `medix.scorer` with the judge's address set to veRL's own reward model, where that is enabled."""
    model = config.reward.reward_model
    if not model.enable:
        return scorer
    if reward_router_address is None:
        raise ConfigError(
            "veRL gives no address of its reward model.",
            "Set reward.reward_model.enable_resource_pool=true, or reward.reward_model.enable=false and JUDGE_URL=.",
        )
    judge = {**scorer["judge"], "urls": [f"http://{reward_router_address}"], "model": model.model_path}
    return {**scorer, "judge": judge}
