"""A component that sees the sample's images and the row's further columns: is the finding named on the right side?

    '+medix.reward.components.side={path: examples/rewards/sees_image.py:side_of_finding, weight: 0.1}'

`item.images` are read when first asked for. `item.extra` holds what the row has beside the fields of `ScoringInput`;
here `box`, the finding's left and right edge in pixels. A radiograph shows the patient's right on the image's left.
"""

from __future__ import annotations

import io

from PIL import Image

from medix.response import parse_response
from reward_fns import ComponentScore, ScoringInput


def side_of_finding(item: ScoringInput) -> ComponentScore:
    """Return 1 if the answer names the side that the box lies on. Does not apply without an image and a box."""
    if not item.images or "box" not in item.extra:
        return ComponentScore(0.0, applicable=False)
    width = Image.open(io.BytesIO(item.images[0])).width
    left, right = item.extra["box"]
    side = "right" if left + right < width else "left"
    words = (parse_response(item.response).scorable_answer or "").lower().split()
    return ComponentScore(float(side in words), details={"side": side})
