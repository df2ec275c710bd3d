"""The errors of this project: each says the problem in one sentence and the remedy in the next."""

from __future__ import annotations

from functools import partial


class MedixError(Exception):
    """Base of all errors of this project.

    Args:
        problem: a whole sentence, e.g. "There is no prompt file at prompts/x.txt."
        fix: the command to run or the setting to change, e.g. "Name an existing file with --prompt."
        expected: what had to be true, for programs that read errors as data.
        found: what was there instead.

    Example:
        >>> print(ConfigError("The learning rate is -1.", "Set it to a number above 0.", expected="> 0", found="-1"))
        The learning rate is -1. Fix: Set it to a number above 0.
    """

    def __init__(self, problem: str, fix: str, *, expected: str = "", found: str = "") -> None:
        self.problem, self.fix, self.expected, self.found = problem, fix, expected, found
        super().__init__(f"{problem} Fix: {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        # Ray and process pools pickle exceptions by their args, which hold the joined message only.
        return partial(type(self), expected=self.expected, found=self.found), (self.problem, self.fix)


class ConfigError(MedixError, ValueError):
    """A setting is wrong. Raised before anything starts."""


class DataError(MedixError, ValueError):
    """A row, an image or a file is wrong. Raised before training, or counted in a quarantine."""


class ScorerError(MedixError, RuntimeError):
    """A judge or an embedder failed. Never the policy's fault, so never turned into a score."""


class TrainingGuardError(MedixError, RuntimeError):
    """Training was stopped because a health metric left its bounds."""


class ExportError(MedixError, RuntimeError):
    """A checkpoint could not be converted, or the conversion could not be proven right."""


class EvaluationError(MedixError, RuntimeError):
    """An evaluation stage could not be finished honestly."""
