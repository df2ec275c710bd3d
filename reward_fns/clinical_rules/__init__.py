"""`rule-judge`: a small judge made of rules, for demos, tests and drills. Not a substitute for a language model."""

from typing import Final

MODEL: Final = "rule-judge"
"""Its model name at the endpoint."""
