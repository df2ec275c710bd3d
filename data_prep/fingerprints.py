"""Fingerprints of texts and images, exact and near, and the search for near ones.

Near fingerprints survive rewording, resizing and recompression. A perceptual hash alone either misses or floods on
medical images: a brain is nearly symmetric, so half of its cosine terms are noise about zero (a 10 % resize flips up to
24 of 64 bits), and slices of one scan share the other half. The thumbnails decide: they correlate, and differ little in
grey levels. Questions are compared by MinHash.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

MIN_CORRELATION: Final = 0.985
MAX_GREY_DIFFERENCE: Final = 3.0
"""Mean absolute difference of the thumbnails, in levels of 255."""
MAX_HASH_BITS: Final = 26
"""Of 64; unrelated images differ in about 32."""
MIN_JACCARD: Final = 0.8
"""Share of common character 5-grams of two questions."""
_MINHASH: Final = {"num_perm": 64, "seed": 1, "scheme": "affine32"}
_SHINGLE_CHARS: Final = 5
_THUMB_SIDE: Final = 24
_BLOCK: Final = 512
_TRIES: Final = 8
"""Most alike images that are looked at for confirmation: a set of one scan has thousands that correlate."""
_DASHES: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_PUNCTUATION: Final = re.compile(
    r"(?<!\d)[.,:]|[.,:](?!\d)|(?<=[^\W\d])-(?=[^\W\d])|[;!?\"'()\[\]{}_\u2018-\u201f\u2026]"
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def unit_interval(*parts: str | int) -> float:
    """Return a number in [0, 1) that depends on nothing but `parts`."""
    return int(sha256("\x1f".join(map(str, parts)).encode())[:13], 16) / 16**13


def normalise(text: str) -> str:
    """Return the text without what changes no meaning: case, white space, and the punctuation of a sentence.

    Signs stay (`ER+` is not `ER-`, `< 7` not `> 7`, `-5` not `5`), as do marks of letters, and a point in a number.
    """
    folded = unicodedata.normalize("NFC", text).casefold().translate(_DASHES)
    return " ".join(_PUNCTUATION.sub(" ", folded).split())


def text_key(*texts: str) -> str:
    """Return a key that is equal for texts that are equal once normalised. A text of punctuation only keeps it."""
    return sha256("\x1f".join(normalise(text) or text.strip() for text in texts).encode())[:32]


def minhash(text: str) -> str:
    """Return a signature of the normalised text's character 5-grams, [64] uint32 in base64.

    The share of equal places estimates the Jaccard likeness of two texts.
    """
    from datasketch import MinHash

    plain = normalise(text)
    grams = {plain[i : i + _SHINGLE_CHARS].encode() for i in range(max(1, len(plain) - _SHINGLE_CHARS + 1))}
    signature = MinHash(**_MINHASH)
    signature.update_batch(sorted(grams))
    return base64.b64encode(signature.hashvalues.astype(np.uint32).tobytes()).decode()


def image_print(image: Image.Image) -> str:
    """Return a 64-bit perceptual hash, then a [24, 24] grey thumbnail, in base64."""
    import imagehash

    grey = image.convert("L")
    bits = np.packbits(imagehash.phash(grey).hash.reshape(-1)).tobytes()
    thumb = grey.resize((_THUMB_SIDE, _THUMB_SIDE), Image.Resampling.LANCZOS)
    return base64.b64encode(bits + thumb.tobytes()).decode()


class ImageIndex:
    """Fingerprints of N images, as `image_print` makes them."""

    def __init__(self, prints: Sequence[str]) -> None:
        raw = np.frombuffer(b"".join(base64.b64decode(p) for p in prints), np.uint8)
        raw = raw.reshape(len(prints), 8 + _THUMB_SIDE**2)
        self.bits = np.ascontiguousarray(raw[:, :8]).view(np.uint64).reshape(-1)
        self.grey = raw[:, 8:].astype(np.float32)
        centred = self.grey - self.grey.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        # A picture of one grey has no pattern to compare: its row is 0 and correlates with nothing.
        self.unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1.0)

    def nearest(self, index: ImageIndex, earlier_only: bool = False) -> list[tuple[int, int, float]]:
        """Return (i, j, correlation) for each image i here that has a near one in `index`, the most alike j.

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
                for j in candidates[np.argsort(-alike[candidates], kind="stable")][:_TRIES]:
                    differing = int(np.bitwise_count(self.bits[i] ^ index.bits[j]))
                    if (
                        differing <= MAX_HASH_BITS
                        and np.abs(self.grey[i] - index.grey[j]).mean() <= MAX_GREY_DIFFERENCE
                    ):
                        found.append((i, int(j), float(alike[j])))
                        break
        return found


class TextIndex:
    """Questions by their MinHash signature, and what each stands for."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        # A lower threshold than ours: the buckets only propose, and at their own threshold miss half.
        self._lsh = MinHashLSH(threshold=MIN_JACCARD - 0.25, num_perm=_MINHASH["num_perm"])
        self._signatures: dict[str, Any] = {}
        self.known: dict[str, Any] = {}

    def add(self, key: str, signature: str, meaning: Any) -> None:
        """Keep a question by its key; only the first of a key counts."""
        if key not in self.known:
            self.known[key] = meaning
            self._signatures[key] = _minhash(signature)
            self._lsh.insert(key, self._signatures[key], check_duplication=False)

    def nearest(self, key: str, signature: str) -> tuple[Any, float] | None:
        """Return what the most alike other question stands for and the estimated Jaccard, if that is high enough."""
        mine = _minhash(signature)
        near = [(float(mine.jaccard(self._signatures[one])), one) for one in self._lsh.query(mine) if one != key]
        # Ties by key, so that the report does not depend on the order of a set.
        jaccard, other = max(near, default=(0.0, ""))
        return (self.known[other], jaccard) if jaccard >= MIN_JACCARD else None


def _minhash(signature: str) -> Any:
    from datasketch import MinHash

    return MinHash(**_MINHASH, hashvalues=np.frombuffer(base64.b64decode(signature), np.uint32))
