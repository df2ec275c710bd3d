"""Near-duplicate search: pictures by perceptual hash and thumbnail, questions by MinHash.

A perceptual hash alone either misses or floods on medical images: a brain is nearly symmetric, so half of its cosine
terms are noise about zero (a 10 % resize flips up to 24 of 64 bits), and slices of one scan share the other half.
The thumbnails decide: they correlate, and differ little in grey levels.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from data_prep.hashes import MINHASH_PERMUTATIONS, MINHASH_SCHEME, THUMB_SIDE

MIN_CORRELATION: Final = 0.985
MAX_GREY_DIFFERENCE: Final = 3.0
"""Mean absolute difference of the thumbnails, in levels of 255."""
MAX_HASH_BITS: Final = 26
"""Of 64; unrelated images differ in about 32."""
MIN_JACCARD: Final = 0.8
"""Share of common character 5-grams of two questions."""
_BLOCK: Final = 512
_TRIES: Final = 8
"""Most alike images that are looked at for confirmation: a set of one scan has thousands that correlate."""

Floats = np.ndarray[Any, np.dtype[np.float32]]


class ImageIndex:
    """Fingerprints of N images, as `hashes.image_print` makes them."""

    def __init__(self, prints: Sequence[str]) -> None:
        raw = np.frombuffer(b"".join(base64.b64decode(p) for p in prints), np.uint8)
        raw = raw.reshape(len(prints), 8 + THUMB_SIDE**2)
        self.bits = np.ascontiguousarray(raw[:, :8]).view(np.uint64).reshape(-1)
        self.grey = raw[:, 8:].astype(np.float32)
        centred = self.grey - self.grey.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        # A picture of one grey has no pattern to compare: its row is 0 and correlates with nothing.
        self.unit: Floats = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1.0)

    def nearest(self, index: ImageIndex, earlier_only: bool = False) -> list[tuple[int, int, float]]:
        """(i, j, correlation) for each image i here that has a near one in `index`, the most alike j.

        Args:
            earlier_only: both are the same index; look among images before i only.
        """
        found: list[tuple[int, int, float]] = []
        for start in range(0, len(self.unit), _BLOCK):
            likeness = self.unit[start : start + _BLOCK] @ index.unit.T
            for row in np.flatnonzero((likeness >= MIN_CORRELATION).any(axis=1)):
                i = start + int(row)
                alike = likeness[row, : i if earlier_only else None]
                candidates = np.flatnonzero(alike >= MIN_CORRELATION)
                best = candidates[np.argsort(-alike[candidates], kind="stable")][:_TRIES]
                j = next((int(j) for j in best if self._confirmed(i, index, int(j))), None)
                if j is not None:
                    found.append((i, j, float(alike[j])))
        return found

    def _confirmed(self, i: int, index: ImageIndex, j: int) -> bool:
        if int(np.bitwise_count(self.bits[i] ^ index.bits[j])) > MAX_HASH_BITS:
            return False
        return float(np.abs(self.grey[i] - index.grey[j]).mean()) <= MAX_GREY_DIFFERENCE


class TextIndex:
    """MinHash signatures of distinct questions, by their key."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        # A lower threshold than ours: the buckets only propose, and at their own threshold miss half.
        self._lsh = MinHashLSH(threshold=MIN_JACCARD - 0.25, num_perm=MINHASH_PERMUTATIONS)
        self._signatures: dict[str, Any] = {}

    def add(self, key: str, signature: str) -> None:
        if key not in self._signatures:
            self._signatures[key] = _minhash(signature)
            self._lsh.insert(key, self._signatures[key], check_duplication=False)

    def nearest(self, key: str, signature: str) -> tuple[str, float] | None:
        """The most alike other question in the index and the estimated Jaccard, if that is high enough."""
        mine = _minhash(signature)
        near = [
            (float(mine.jaccard(self._signatures[other])), other) for other in self._lsh.query(mine) if other != key
        ]
        # Ties by key, so that the report does not depend on the order of a set.
        jaccard, other = max(near, default=(0.0, ""))
        return (other, jaccard) if jaccard >= MIN_JACCARD else None


def _minhash(signature: str) -> Any:
    from datasketch import MinHash

    values = np.frombuffer(base64.b64decode(signature), np.uint32)
    return MinHash(num_perm=MINHASH_PERMUTATIONS, seed=1, hashvalues=values, scheme=MINHASH_SCHEME)
