"""Sends an exported folder to a hub: private unless asked otherwise, whole or not at all, continued by a second run."""

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
from medix_verl.export.contract import RECORD
from medix_verl.export.side_files import COPIED

REPO_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
HIDDEN: Final = "(hidden)"
BESIDE: Final = frozenset({*COPIED, "config.json", "adapter_config.json", "README.md", RECORD})
WEIGHTS: Final = re.compile(r"(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?").fullmatch
"""With these, all that an export writes: nothing else is ever sent, so no `.git/config` with a token in it."""
STALE: Final = re.compile(r"[^/]+(\.safetensors|\.index\.json)").fullmatch
Sent = Callable[[str, bool], None]
"""`sent(file, already_there)` after each file."""


@dataclass(frozen=True)
class Pushed:
    """`private`: as the hub says. `kept`: files that were there already. `removed`: an older model's, now gone."""

    url: str
    private: bool
    sent: list[str]
    kept: list[str]
    removed: list[str]


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
    """(name, bytes) of every file that an export writes, weights first. Whatever else lies there is not sent.

    Raises:
        ExportError: one of them is a link.
    """
    files = [path for path in folder.iterdir() if path.is_file() and (path.name in BESIDE or WEIGHTS(path.name))]
    for path in files:
        if path.is_symlink():
            found = f"{path.name}, a link to {path.resolve()}"
            raise ExportError(f"files in {folder} to push", found, "an export has no links: put the file itself there")
    named = [(path.name, path.stat().st_size) for path in files]
    return sorted(named, key=lambda item: (not item[0].endswith(".safetensors"), item[0]))


def push(folder: Path, repo: str, public: bool, sent: Sent = lambda name, kept: None) -> Pushed:
    """Upload the folder: large files one after the other, then one commit that adds all and removes an older model's.

    Until that commit the repository shows what it showed before. A second run sends no byte again that the hub has.
    The token comes from the environment or the hub's own login and is shown nowhere.

    Raises:
        ExportError: the repository is public and `public` was not asked for, or the hub failed.
    """
    refuse_what_cannot_be_pushed(repo)
    names = [name for name, _ in files_to_push(folder)]
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
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
        kept = [name for name in names if there.get(name) in _digests(folder / name, there.get(name))]
        for name in kept:
            sent(name, True)
        additions = [CommitOperationAdd(name, folder / name) for name in names if name not in kept]
        large, small = (
            [addition for addition in additions if addition.path_in_repo.endswith(".safetensors") is is_large]
            for is_large in (True, False)
        )
        for addition in large:
            api.preupload_lfs_files(repo, [addition])
            sent(addition.path_in_repo, False)
        # A stale shard, index or template beside the new files would be loaded with them.
        stale = sorted(name for name in there if name not in names and (name in BESIDE or STALE(name)))
        if additions or stale:
            operations: list[Any] = [*additions, *(CommitOperationDelete(name) for name in stale)]
            api.create_commit(repo, operations, commit_message="Upload an export of medix")
        for addition in small:
            sent(addition.path_in_repo, False)
    return Pushed(url, private, [addition.path_in_repo for addition in additions], kept, stale)


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
