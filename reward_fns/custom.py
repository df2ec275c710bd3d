"""Components from the user's own file: `path: my_rewards.py:brevity`, a function or a class, nothing to register.

A function takes the ScoringInput (and the scorers, if it has an argument of that name) and gives a number or a
ComponentScore, async or not. A class is made once, with the options as its arguments, and is then called like that.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from medix.errors import ConfigError, MedixError, ScorerError
from reward_fns.contracts import ComponentScore, Scorers, ScoringInput


def load_attribute(path: str, where: str) -> Any:
    """What `path` names: `file.py:name` (relative to the working directory) or `package.module:name`.

    Raises:
        ConfigError: no such file, module or name, or the file fails to import.
    """
    source, colon, name = path.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(f"{where}.path as FILE.py:NAME", repr(path), f"e.g. {where}.path=my_rewards.py:brevity")
    try:
        module = _load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        return getattr(module, name)
    except (Exception, SystemExit) as error:  # the user's file may raise anything at import
        found = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{name!r} in {source} for {where}", found, "correct the path or the file") from error


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path.resolve()}")
    name = f"medix_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


class CustomComponent:
    """A user's function or class in the shape of a `Component`."""

    def __init__(self, name: str, path: str, options: Mapping[str, Any]) -> None:
        where = f"medix.reward.components.{name}"
        target = load_attribute(path, where)
        if not callable(target):
            raise ConfigError(f"a function or a class at {path}", type(target).__name__, "name one of them")
        self.name = name
        self._call = _bind(target, options, where)
        self._wants_scorers = _check_call(self._call, path, where)
        needs = getattr(target, "needs", ())
        self.needs: frozenset[str] = frozenset((needs,) if isinstance(needs, str) else needs)
        unknown = self.needs - {"judge", "similarity"}
        if unknown:
            raise ConfigError(f"{path}.needs out of judge, similarity", repr(sorted(unknown)), "correct it")

    async def __call__(self, item: ScoringInput, scorers: Scorers) -> ComponentScore:
        try:
            found = self._call(item, scorers=scorers) if self._wants_scorers else self._call(item)
            found = await found if inspect.isawaitable(found) else found
            found = found if isinstance(found, ComponentScore) else ComponentScore(found)
            return replace(found, value=float(found.value))
        except MedixError:  # a scorer's fault, or a scorer that is not there: both say what to do
            raise
        except Exception as error:
            # A bug in a component is not the policy's fault, so it must not become a score.
            fault = f"{type(error).__name__}: {error}"
            raise ScorerError(f"component {self.name!r} to score {item.sample_id!r}", fault, "correct it") from error


def _bind(target: Any, options: Mapping[str, Any], where: str) -> Callable[..., Any]:
    fix = "give it the options that its signature names"
    if not inspect.isclass(target):
        return functools.partial(target, **options)
    try:
        return cast("Callable[..., Any]", target(**options))
    except Exception as error:
        raise ConfigError(f"options that fit {where}", f"{type(error).__name__}: {error}", fix) from error


def _check_call(call: Callable[..., Any], path: str, where: str) -> bool:
    """Whether the scorers are wanted; the call as it will be made has to fit the signature.

    Raises:
        ConfigError: an option is missing or unknown, or there is no place for the ScoringInput.
    """
    shape = f"{path} to take (item) or (item, scorers), and every option of {where}"
    fix = "correct the signature, or the options; an option without a default has to be set"
    if not callable(call):
        raise ConfigError(shape, f"{type(call).__name__} without __call__", "give the class a __call__(self, item)")
    try:
        signature = inspect.signature(call)
        wants_scorers = "scorers" in signature.parameters
        signature.bind(None, **({"scorers": None} if wants_scorers else {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(shape, str(error), fix) from error
    return wants_scorers
