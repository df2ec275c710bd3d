"""The few lines of a run's log that say why it ended, out of thousands that Ray, vLLM and veRL write around them."""

from __future__ import annotations

import re
from collections.abc import Iterable

SHOWN_LINES, SHOWN_CHARS, LAST_LINES = 15, 300, 400
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SPEAKER = re.compile(r"^\(.*?pid=\d+.*?\) ?")
"""Ray's name of the process that a line came from."""
_OF_THE_DEAD = re.compile(r"^\s*class_name: (\S+)")
# veRL warns of each engine that is not installed, Hydra repeats the command line, veRL names the prompts it lost.
_SAYS_NOTHING = (
    "Warning",
    "Traceback",
    "WARNING",
    "Error executing job with overrides",
    "Error in _run_prompt",
    "    raise ",
)


def telling_lines(lines: Iterable[str]) -> list[str]:
    """The lines that name an error, each once and without colours; the last lines as they are where none does."""
    plain = [_SPEAKER.sub("", _COLOUR.sub("", line)).rstrip() for line in lines]
    errors: list[str] = []
    for line in plain:
        dead = _OF_THE_DEAD.match(line)
        if dead and errors and "ActorDiedError" in errors[-1]:
            errors[-1] += f" It was {dead[1]}"
        elif "Error" in line and not any(words in line for words in _SAYS_NOTHING):
            errors.append(line)
    # Of what was said often, the last place counts: that is where the run ended.
    once = list(dict.fromkeys(reversed(errors)))[::-1]
    return [
        line if len(line) <= SHOWN_CHARS else line[:SHOWN_CHARS] + " ..." for line in (once or plain)[-SHOWN_LINES:]
    ]
