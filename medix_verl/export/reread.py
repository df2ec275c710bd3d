"""An exported folder's weights against the digest in its export.json: hours may lie between the proof and a push."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from medix.errors import ExportError
from medix_verl.export.contract import RECORD, Progress
from medix_verl.export.json_files import read_json
from medix_verl.export.safetensors_file import NAMES

_CHUNK_BYTES = 8 << 20
_DTYPES = {name: dtype for dtype, name in NAMES.items()}


def refuse_changed_weights(folder: Path, progress: Progress) -> None:
    """Read every weight again.

    Raises:
        ExportError: the folder's weights are not those that were proved.
    """
    proof = read_json(folder / RECORD).get("weights")
    wanted = proof.get("digest") if isinstance(proof, dict) else None
    found = _digest(sorted(folder.glob("*.safetensors")), progress)
    if found != wanted:
        expected = f"the weights that {RECORD} proves (sha256 {wanted})"
        raise ExportError(expected, f"others (sha256 {found}) in {folder}", "export again")


def _digest(files: list[Path], progress: Progress) -> str:
    """As `medix_verl.export.safetensors_file` takes it: over each tensor's [name, dtype, shape] and bytes, by name."""
    tensors = sorted(tensor for path in files for tensor in _tensors(path))
    total, done = sum(path.stat().st_size for path in files), 0
    digest = hashlib.sha256()
    for name, path, dtype, shape, begin, end in tensors:
        digest.update(json.dumps([name, dtype, shape]).encode())
        with path.open("rb") as file:
            file.seek(begin)
            for start in range(begin, end, _CHUNK_BYTES):
                digest.update(file.read(min(_CHUNK_BYTES, end - start)))
                done += min(_CHUNK_BYTES, end - start)
                progress(f"reading {path.name}", done, total)
    return digest.hexdigest()


def _tensors(path: Path) -> list[tuple[str, Path, str, list[int], int, int]]:
    """(name, file, dtype, shape, first byte, byte after the last) of every tensor of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            entries = [(name, entry, entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"]
            data = 8 + length
            return [
                (name, path, _DTYPES[entry["dtype"]], entry["shape"], data + begin, data + end)
                for name, entry, (begin, end) in entries
            ]
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ExportError("safetensors files as an export writes them", f"{path}", "export again") from None
