"""The imaging modality tags of MediX-R1 (arXiv 2602.23363), sixteen as shipped, and their plain names.

A new tag is one line here, e.g. `"DERMOSCOPY": "dermoscopy",`: prompt, parser, reward, preparation and the tiny model
read this table. Prepare the data again afterwards, so that its prompts offer the tag; a model that was trained before
does not know it.
"""

from __future__ import annotations

from typing import Final

MODALITIES: Final[dict[str, str]] = {
    "X_RAY": "X-ray",
    "MICROSCOPY": "microscopy",
    "CLINICAL_PHOTOGRAPHY": "clinical photography",
    "CT_SCAN": "computed tomography",
    "GRAPHICS": "graphics",
    "ANGIOGRAPHY": "angiography",
    "PET_SCAN": "positron emission tomography",
    "ULTRASOUND": "ultrasound",
    "MRI_SCAN": "magnetic resonance imaging",
    "FUNDUS_PHOTOGRAPHY": "fundus photography",
    "OCT_SCAN": "optical coherence tomography",
    "ENDOSCOPY": "endoscopy",
    "MAMMOGRAPHY": "mammography",
    "FLUOROSCOPY": "fluoroscopy",
    "OTHER": "other",
    "SPECT": "single-photon emission computed tomography",
}
"""Tag without angle brackets -> plain English name."""


def is_modality(tag: str) -> bool:
    """Return whether `tag` (no angle brackets, exact case) is in the table."""
    return tag in MODALITIES
