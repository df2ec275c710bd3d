"""Every error a user can meet says what was expected, what was found, and the command or setting that fixes it."""

from __future__ import annotations


class MedixError(Exception):
    """Base of all errors of this project.

    Args:
        expected: what had to be true, in one clause.
        found: what was there instead.
        fix: the command to run or the setting to change.
    """

    def __init__(self, expected: str, found: str, fix: str) -> None:
        self.expected, self.found, self.fix = expected, found, fix
        super().__init__(f"expected {expected}; found {found}. Fix: {fix}")

    def __reduce__(self) -> tuple[type[MedixError], tuple[str, str, str]]:
        # Ray and process pools pickle exceptions by their args, which hold the joined message only.
        return type(self), (self.expected, self.found, self.fix)


class ConfigError(MedixError, ValueError):
    """A setting is wrong. Raised before anything starts."""


class DataError(MedixError, ValueError):
    """A row, an image or a file is wrong. Raised before training, or counted in a quarantine."""


class ScorerError(MedixError, RuntimeError):
    """A judge or an embedder failed. Never the policy's fault, so never turned into a score."""


class TrainingGuardError(MedixError, RuntimeError):
    """Training was stopped because a health figure left its bounds."""


class ExportError(MedixError, RuntimeError):
    """A checkpoint could not be converted, or the conversion could not be proven right."""


class EvaluationError(MedixError, RuntimeError):
    """An evaluation stage could not be finished honestly."""
