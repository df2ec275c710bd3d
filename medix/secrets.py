"""Hide secrets before a text leaves the process: in errors, logs, run folders and pages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "***"
_SECRET_NAME = (
    r"(?:[\w.-]*[_.-])?(?:api[_-]?key|apikey|keys?|token|secret|password|passwd|pwd|credentials?|"
    r"authorization|cookie)"
)
_IS_SECRET_NAME = re.compile(_SECRET_NAME + r"\Z", re.IGNORECASE)
# Settings whose name ends in `key` or `token` and whose value is no secret.
_HARMLESS_NAME = re.compile(
    r"(image|sort|primary|foreign|public|cache|eos|bos|pad|prompt|reward_fn)[_-](key|token)s?\Z", re.I
)
_IN_URL = re.compile(r"(?<=://)[^\s/?#'\"<>]+@")
_SCHEME = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=%-]{4,}", re.IGNORECASE)
# NAME=value, "NAME": "value", NAME: value; the value ends where a text, a query string or a JSON object would end it.
_ASSIGNED = re.compile(rf"(?<![\w.-])({_SECRET_NAME})([\"']?\s*[=:]\s*[\"']?)([^\s\"',;&}}\])]+)", re.IGNORECASE)
_WELL_KNOWN = re.compile(
    r"\b(?:sk-[\w-]{12,}|hf_\w{12,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|AIza[\w-]{20,}|AKIA[A-Z0-9]{12,}|xox[abprs]-[\w-]{10,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_SHORTEST_SECRET = 6
"""Characters of the shortest value that is looked for by itself: a key `test` would blank ordinary words."""


def is_secret_name(name: str) -> bool:
    """Tell whether a setting, a header or a variable of this name holds a secret.

    >>> [is_secret_name(name) for name in ("X-Api-Key", "OPENAI_API_KEY", "hf_token", "max_tokens", "api_key_env")]
    [True, True, True, False, False]
    """
    return bool(_IS_SECRET_NAME.match(name)) and not _HARMLESS_NAME.search(name)


def mask_secrets(text: str) -> str:
    """Return `text` with credentials in URLs, bearer tokens, named keys and the values of key variables as `***`.

    >>> mask_secrets("no reply from http://me:pw@host/v1?api-key=123456 (X-Api-Key: abcdef)")
    'no reply from http://***@host/v1?api-key=*** (X-Api-Key: ***)'
    """
    for value in _values_of_the_environment():
        text = text.replace(value, MASK)
    text = _SCHEME.sub(rf"\1\2{MASK}", _IN_URL.sub(f"{MASK}@", text))
    return _WELL_KNOWN.sub(MASK, _ASSIGNED.sub(_mask_assigned, text))


def mask_settings(value: Any, name: str = "") -> Any:
    """Return a copy of nested mappings and lists in which secrets, told by name or by look, are `***`."""
    if isinstance(value, Mapping):
        return {key: mask_settings(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_settings(inner, name) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    return MASK if is_secret_name(name) else mask_secrets(value)


def _mask_assigned(match: re.Match[str]) -> str:
    name, between, value = match.groups()
    is_harmless = not is_secret_name(name) or value.lower() in ("bearer", "basic", "none", "null", "true", "false")
    # "key: ..." with a blank is how prose, tracebacks and tables write; a bare `key` counts as a name with = or quotes.
    is_prose = name.lower() in ("key", "keys", "token") and "=" not in between and between[0] not in "\"'"
    return match[0] if is_harmless or is_prose else f"{name}{between}{MASK}"


def _values_of_the_environment() -> list[str]:
    """Return the values of the variables that hold secrets, the longest first.

    `PWD` and `OLDPWD` name folders, and a path such as that of GOOGLE_APPLICATION_CREDENTIALS is no secret itself.
    """
    named = {name: value.strip() for name, value in os.environ.items() if is_secret_name(name)}
    is_path = {value for value in named.values() if os.path.isabs(value) and os.path.exists(value)}
    values = {value for name, value in named.items() if name not in ("PWD", "OLDPWD")} - is_path
    return sorted((value for value in values if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
