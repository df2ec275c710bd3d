"""Fingerprints of texts and images: exact ones, and near ones that survive rewording, resizing and recompression."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from typing import Final

import numpy as np
from PIL import Image

MINHASH_PERMUTATIONS: Final = 64
MINHASH_SCHEME: Final = "affine32"
SHINGLE_CHARS: Final = 5
THUMB_SIDE: Final = 24


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def normalise(text: str) -> str:
    """Letters and digits in lower case, single spaces: case, punctuation and spacing do not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


def text_key(*texts: str) -> str:
    """Equal for texts that are equal once normalised. A text of signs only keeps its signs."""
    return sha256("\x1f".join(normalise(text) or text.strip() for text in texts).encode())[:32]


def minhash(text: str) -> str:
    """Signature of the normalised text's character 5-grams, [64] uint32 in base64.

    The share of equal places estimates the Jaccard likeness of two texts.
    """
    from datasketch import MinHash

    plain = normalise(text)
    grams = {plain[i : i + SHINGLE_CHARS].encode() for i in range(max(1, len(plain) - SHINGLE_CHARS + 1))}
    signature = MinHash(num_perm=MINHASH_PERMUTATIONS, seed=1, scheme=MINHASH_SCHEME)
    signature.update_batch(sorted(grams))
    return base64.b64encode(signature.hashvalues.astype(np.uint32).tobytes()).decode()


def image_print(image: Image.Image) -> str:
    """64-bit perceptual hash, then a [24, 24] grey thumbnail, in base64; see `data_prep.near`."""
    import imagehash

    grey = image.convert("L")
    bits = np.packbits(imagehash.phash(grey).hash.reshape(-1)).tobytes()
    thumb = grey.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    return base64.b64encode(bits + thumb.tobytes()).decode()


def unit_interval(*parts: str | int) -> float:
    """A number in [0, 1) that depends on nothing but `parts`."""
    return int(sha256("\x1f".join(map(str, parts)).encode())[:13], 16) / 16**13
