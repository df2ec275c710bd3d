"""Components from the user's own file: `path: my_rewards.py:brevity`, a function or a class, nothing to register.

A function takes the ScoringInput (and the scorers, if it has an argument of that name) and gives a number or a
ComponentScore, async or not. A class is made once, with the options as its arguments, and is then called like that.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from medix.errors import ConfigError, MedixError, ScorerError
from reward_fns.component import ComponentScore, ScoringInput
from reward_fns.scorers.types import Scorers

_ASKS = frozenset(("judge", "similarity"))


class CustomComponent:
    """A user's function or class in the shape of a `Component`.

    Raises:
        ConfigError: the path names no function or class, or the options do not fit its signature.
    """

    def __init__(self, name: str, path: str, options: Mapping[str, Any]) -> None:
        where = f"medix.reward.components.{name}"
        target = load_attribute(path, where)
        self.name = name
        self._call = _bind(target, options, path, where)
        self._wants_scorers = "scorers" in inspect.signature(self._call).parameters
        needs = getattr(target, "needs", ())
        self.needs: frozenset[str] = frozenset((needs,) if isinstance(needs, str) else needs)
        if self.needs - _ASKS:
            raise ConfigError(f"{path}.needs is {needs!r}.", "Name judge, similarity, or both: needs = ('judge',)")

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        try:
            found = self._call(item, scorers=scorers) if self._wants_scorers else self._call(item)
            found = await found if inspect.isawaitable(found) else found
            found = found if isinstance(found, ComponentScore) else ComponentScore(found)
            return replace(found, value=float(found.value))
        except MedixError:  # a scorer's fault, or a scorer that is missing: both say what to do
            raise
        except Exception as error:
            # A bug in a component is not the policy's fault, so it must not become a score.
            fault = f"{type(error).__name__}: {error}"
            raise ScorerError(
                f"The component {self.name!r} failed on {item.sample_id!r}: {fault}", "Correct the component."
            ) from error


def load_attribute(path: str, where: str) -> Any:
    """Return what `path` names: `file.py:name` (relative to the working directory) or `package.module:name`.

    Raises:
        ConfigError: no such file, module or name, or the file fails to import.
    """
    source, _, name = path.rpartition(":")
    if not source or not name:
        raise ConfigError(
            f"{where}.path is {path!r}, not FILE.py:NAME.", f"Write, e.g., {where}.path=my_rewards.py:brevity"
        )
    try:
        module = _load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        return getattr(module, name)
    except (Exception, SystemExit) as error:  # the user's file may raise anything at import
        raise ConfigError(
            f"{name!r} of {where} can not be loaded from {source}: {type(error).__name__}: {error}",
            "Correct the path or the file.",
        ) from error


def _load_file(path: Path) -> Any:
    name = f"medix_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)  # which names a file that is missing
    return module


def _bind(target: Any, options: Mapping[str, Any], path: str, where: str) -> Callable[..., Any]:
    """Return the function with its options, or the class made with them, after the call has been tried on paper."""
    try:
        if not callable(target):
            raise TypeError(f"{type(target).__name__} is no function and no class")
        call: Any = target(**options) if inspect.isclass(target) else partial(target, **options)
        signature = inspect.signature(call)  # a TypeError for what can not be called
        signature.bind(None, **({"scorers": None} if "scorers" in signature.parameters else {}))
    except Exception as error:  # the user's class may raise anything when it is made
        raise ConfigError(
            f"{path} does not fit {where}: {error}",
            "It takes (item) or (item, scorers) and every option; an option without a default has to be set.",
        ) from error
    bound: Callable[..., Any] = call
    return bound
