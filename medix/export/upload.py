"""Sends an exported folder to a hub: private unless asked otherwise, in commits that a second run continues from."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError

REPO_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
HIDDEN: Final = "(hidden)"
Sent = Callable[[str, bool], None]
"""`sent(file, already_there)` after each file."""


@dataclass(frozen=True)
class Pushed:
    """`private`: as the hub says after the upload. `kept`: files that were there already, unchanged."""

    url: str
    private: bool
    sent: list[str]
    kept: list[str]


def refuse_what_cannot_be_pushed(repo: str) -> None:
    """What can be known before an export of an hour, without a network.

    Raises:
        ExportError: the name is none, the hub is switched off, or there is no token.
    """
    if not REPO_NAME.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ExportError("--push USER/REPO", repr(repo[:100]), "letters, digits, dot, dash and underscore, one slash")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ExportError("a hub that may be asked, for --push", "HF_HUB_OFFLINE=1", "unset HF_HUB_OFFLINE")
    if not get_token():
        raise ExportError("a token of the hub, for --push", "none", "run `hf auth login`, or set HF_TOKEN")


def files_to_push(folder: Path) -> list[tuple[str, int]]:
    """(name, bytes) of every file, in the order of sending: weights first, so that half an upload loads nowhere."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    named = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]
    return sorted(named, key=lambda item: (not item[0].endswith(".safetensors"), item[0]))


def push(folder: Path, repo: str, public: bool, sent: Sent = lambda name, kept: None) -> Pushed:
    """Upload the folder. Each weight file is one commit and all the rest is the last; a second run skips what is there.

    The token comes from the environment or the hub's own login and is shown nowhere.

    Raises:
        ExportError: the repository is public and `public` was not asked for, or the hub failed.
    """
    refuse_what_cannot_be_pushed(repo)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # HF_ENDPOINT is read when called, so that a hub of one's own can be named after the import.
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _failures_without(get_token(), folder, repo):
        url = str(api.create_repo(repo, private=not public, exist_ok=True, repo_type="model"))
        private = bool(api.model_info(repo).private)
        if not private and not public:
            raise ExportError(
                f"a private repository {repo}",
                "one that exists and is public",
                "give --public if the model may be seen by everybody, or another name",
            )
        there = _remote_files(api, repo)
        names = [name for name, _ in files_to_push(folder)]
        kept = [name for name in names if there.get(name) in _digests(folder / name, there.get(name))]
        for name in kept:
            sent(name, True)
        missing = [name for name in names if name not in kept]
        weights = [name for name in missing if name.endswith(".safetensors")]
        rest = [name for name in missing if name not in weights]
        for batch in [*([name] for name in weights), *([rest] if rest else [])]:
            operations = [CommitOperationAdd(name, folder / name) for name in batch]
            api.create_commit(repo, operations, commit_message=f"Upload {batch[0] if len(batch) == 1 else 'files'}")
            for name in batch:
                sent(name, False)
    return Pushed(url, private, missing, kept)


def _remote_files(api: Any, repo: str) -> dict[str, str]:
    """File -> sha256 of a large file, git's hash of a small one."""
    files = {}
    for entry in api.list_repo_tree(repo, recursive=True):
        if hasattr(entry, "blob_id"):
            files[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
    return files


def _digests(path: Path, wanted: str | None) -> set[str]:
    """The hash of a file in the form of the wanted one; nothing where none is wanted."""
    if wanted is None:
        return set()
    digest = hashlib.sha256()
    if len(wanted) == 40:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return {digest.hexdigest()}


@contextmanager
def _failures_without(token: str | None, folder: Path, repo: str) -> Iterator[None]:
    """The hub client's failures as one message. Not chained: the originals hold the request with its headers."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ExportError):
            raise
        cause = error.__cause__ or error
        found = " ".join(f"{type(cause).__name__}: {cause}".split())
        found = found.replace(token, HIDDEN) if token else found
    else:
        return
    raise ExportError(
        f"the hub to take {folder.name} as {repo}",
        re.sub(r"hf_\w{8,}", HIDDEN, found)[:600],
        f"run `medix export {folder} --push {repo}` again: it goes on where this ended",
    ) from None
