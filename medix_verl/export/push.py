"""Sends an exported folder to the hub: private unless asked otherwise, as one commit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from medix.errors import ExportError
from medix.files import lookup, mapping_inside
from medix.secrets import MASK, mask_secrets
from medix_verl.export.card import CARD, PROMPT_FILE
from medix_verl.export.checkpoint import HUB_NAME, RECORD
from medix_verl.export.side_files import COPIED

_BESIDE: Final = frozenset({"config.json", "adapter_config.json", CARD, PROMPT_FILE, RECORD})
_WEIGHTS: Final = re.compile(r"(adapter_)?model(-[0-9]{5}-of-[0-9]{5})?\.safetensors(\.index\.json)?")


def is_ours(name: str) -> bool:
    """Return whether an export writes files of this name: nothing else is sent, so no `.env` and no `.git/config`."""
    return name in _BESIDE or bool(COPIED.fullmatch(name) or _WEIGHTS.fullmatch(name))


def refuse_what_cannot_be_pushed(repo: str) -> None:
    """Raise ExportError for what is known before an export of an hour, without a network."""
    if not HUB_NAME.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ExportError(f"{repo[:100]!r} is no repository's name.", "Write --push USER/REPO.")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ExportError("HF_HUB_OFFLINE is set, so nothing can be pushed.", "Unset HF_HUB_OFFLINE.")
    if not get_token():
        raise ExportError("There is no token for the hub.", "Run `hf auth login`, or set HF_TOKEN.")


def files_to_push(folder: Path) -> dict[str, int]:
    """Return name -> bytes of every file that an export writes."""
    files = [p for p in sorted(folder.iterdir()) if is_ours(p.name)]
    if link := next((path for path in files if path.is_symlink() or not path.is_file()), None):
        raise ExportError(f"{link} is a link or no file, which an export never writes.", "Put the file itself there.")
    return {path.name: path.stat().st_size for path in files}


def refuse_changed_weights(folder: Path) -> None:
    """Read every weight again and hold it against the record: hours may lie between an export and a push."""
    from medix_verl.export.weights import file_digest

    noted = lookup(mapping_inside(folder, RECORD), "weights.files")
    found = {name: file_digest(folder / name) for name in files_to_push(folder) if name.endswith(".safetensors")}
    if not found or found != noted:
        raise ExportError(f"The weights in {folder} are not those that {RECORD} lists.", "Export again.")


def push(folder: Path, repo: str, public: bool) -> str:
    """Upload the folder as one commit, which also removes an older model's files; return a line on what happened.

    Until that commit the repository shows what it showed before, and a second run sends no large file again that the
    hub has. The token comes from the environment or the hub's own login, and is shown nowhere.
    """
    refuse_what_cannot_be_pushed(repo)
    names = files_to_push(folder)
    from httpx import HTTPError
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    # HF_ENDPOINT is read when called, so that a hub of one's own can be named after the import.
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        url = str(api.create_repo(repo, private=not public, exist_ok=True, repo_type="model"))
        if not public and not api.model_info(repo).private:
            raise ExportError(
                f"{repo} exists and is public.", "Add --public if everybody may see the model, or rename it."
            )
        # A stale shard, index or template beside the new files would be loaded with them.
        stale = sorted(name for name in set(api.list_repo_files(repo)) - names.keys() if is_ours(name))
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in names]
        operations += [CommitOperationDelete(name) for name in stale]
        api.create_commit(repo, operations, commit_message="Upload an export of medix")
    except ExportError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:  # They hold the request with its headers.
        cause = error.__cause__ or error
        text = " ".join(f"{type(cause).__name__}: {cause}".replace(str(get_token()), MASK).split())
        fix = f"Check the network and the token's rights, then run `medix export {folder} --push {repo}` again."
        raise ExportError(f"The hub did not take {folder.name}: {mask_secrets(text)[:600]}", fix) from None
    return f"{url} is {'public' if public else 'private'}: {len(names)} files there, {len(stale)} removed"
