"""Fingerprints of texts and images: exact ones, and near ones that survive rewording, resizing and recompression."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Final

from PIL import Image

MINHASH_PERMUTATIONS: Final = 64
SHINGLE_CHARS: Final = 5
PHASH_SIDE: Final = 16
"""Perceptual hashes have 16 x 16 = 256 bits: with 64, chest radiographs of different patients collide."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def normalise(text: str) -> str:
    """Letters and digits in lower case, single spaces: case, punctuation and spacing do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


def text_key(*texts: str) -> str:
    """Equal for texts that are equal once normalised. A text of signs only keeps its signs."""
    return sha256("\x1f".join(normalise(text) or text.strip() for text in texts).encode())[:32]


def minhash(text: str) -> list[int]:
    """[64] signature of the normalised text's character 5-grams; the share of equal places estimates Jaccard."""
    from datasketch import MinHash

    plain = normalise(text)
    grams = {plain[i : i + SHINGLE_CHARS].encode() for i in range(max(1, len(plain) - SHINGLE_CHARS + 1))}
    signature = MinHash(num_perm=MINHASH_PERMUTATIONS, seed=1)
    signature.update_batch(sorted(grams))
    return [int(value) for value in signature.hashvalues]


def perceptual_hash(image: Image.Image) -> str:
    """256-bit DCT hash in hexadecimal."""
    import imagehash

    return str(imagehash.phash(image, hash_size=PHASH_SIDE))


def unit_interval(*parts: str | int) -> float:
    """A number in [0, 1) that depends on nothing but `parts`."""
    return int(sha256("\x1f".join(map(str, parts)).encode())[:13], 16) / 16**13
