"""Fingerprints of texts and images: exact ones, and near ones that survive rewording, resizing and recompression."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from typing import Final

import numpy as np
from PIL import Image

MINHASH_PERMUTATIONS: Final = 64
MINHASH_SCHEME: Final = "affine32"
SHINGLE_CHARS: Final = 5
THUMB_SIDE: Final = 24
_DASHES: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_PUNCTUATION: Final = re.compile(
    r"(?<!\d)[.,:]|[.,:](?!\d)|(?<=[^\W\d])-(?=[^\W\d])|[;!?\"'()\[\]{}_\u2018-\u201f\u2026]"
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
    grams = {plain[i : i + SHINGLE_CHARS].encode() for i in range(max(1, len(plain) - SHINGLE_CHARS + 1))}
    signature = MinHash(num_perm=MINHASH_PERMUTATIONS, seed=1, scheme=MINHASH_SCHEME)
    signature.update_batch(sorted(grams))
    return base64.b64encode(signature.hashvalues.astype(np.uint32).tobytes()).decode()


def image_print(image: Image.Image) -> str:
    """Return a 64-bit perceptual hash, then a [24, 24] grey thumbnail, in base64; see `data_prep.near`."""
    import imagehash

    grey = image.convert("L")
    bits = np.packbits(imagehash.phash(grey).hash.reshape(-1)).tobytes()
    thumb = grey.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS)
    return base64.b64encode(bits + thumb.tobytes()).decode()


def unit_interval(*parts: str | int) -> float:
    """Return a number in [0, 1) that depends on nothing but `parts`."""
    return int(sha256("\x1f".join(map(str, parts)).encode())[:13], 16) / 16**13
