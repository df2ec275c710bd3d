"""GRAPHICS: stretches of a recorded 12-lead ECG, drawn on squared paper. The signal is real, the drawing synthetic.

The first 6.5 s are trained on, the last 3 s are held out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from examples.sample_data.build.assets import read_dicom
from examples.sample_data.build.picture import SIDE, Cut, Fact, Picture

PACKAGE, FILE = "pydicom", "pydicom/data/test_files/waveform_ecg.dcm"
SPANS = {"train": (0, 6500), "test": (7000, 10000)}
"""Samples, 1,000 a second."""
COUNTS = {"train": 50, "test": 6}
LENGTH = 2400
LEADS = 3
FACTS = (Fact("modality", "electrocardiogram"), Fact("region", "heart"))


def pictures(rng: random.Random) -> Iterator[Picture]:
    """Three neighbouring leads under each other, 2.4 s long."""
    signal = read_dicom(PACKAGE, FILE).waveform_array(0)
    for split, (start, end) in SPANS.items():
        for _ in range(COUNTS[split]):
            first, lead = rng.randint(start, end - LENGTH), rng.randint(0, signal.shape[1] - LEADS)
            stretch = signal[first : first + LENGTH, lead : lead + LEADS]
            cut = Cut(PACKAGE, FILE, "tc", (first, lead), (first + LENGTH, lead + LEADS))
            provenance = "synthetic drawing of a real 12-lead ECG recording"
            yield Picture("ecg", split, "GRAPHICS", draw(stretch), cut, provenance, FACTS)


def draw(stretch: NDArray[Any]) -> NDArray[np.uint8]:
    """[samples, leads] in microvolts -> a [112, 112, 3] drawing."""
    scale = 4
    canvas = Image.new("RGB", (SIDE * scale, SIDE * scale), (255, 244, 240))
    pen = ImageDraw.Draw(canvas)
    for place in range(0, SIDE * scale, 32):
        pen.line([(place, 0), (place, SIDE * scale)], fill=(246, 200, 196), width=2)
        pen.line([(0, place), (SIDE * scale, place)], fill=(246, 200, 196), width=2)
    band = SIDE * scale / stretch.shape[1]
    columns = np.linspace(0, SIDE * scale, stretch.shape[0])
    for number in range(stretch.shape[1]):
        lead = stretch[:, number] - np.median(stretch[:, number])
        height = band * (number + 0.6) - lead / max(float(np.abs(lead).max()), 1.0) * band * 0.45
        pen.line(list(zip(columns.tolist(), height.tolist(), strict=True)), fill=(20, 20, 20), width=5)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
