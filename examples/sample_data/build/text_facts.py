"""Text-only rows: general facts, each in several wordings, one of which is held out.

The held-out wording shares the telling words with those trained on, so it can be answered from them.
"""

from __future__ import annotations

FACTS: dict[str, tuple[str, ...]] = {
    "ultrasound": (
        "Which method makes pictures with sound waves?",
        "Name the imaging technique that uses sound waves.",
        "Sound waves are used by which imaging method?",
        "Which technique sends sound waves into the body?",
        "Echoes of sound waves make the pictures of which method?",
        "What imaging method works with sound waves?",
    ),
    "magnetic resonance imaging": (
        "Which method makes pictures with a strong magnet?",
        "Name the imaging technique that uses a strong magnet.",
        "A strong magnet is used by which imaging method?",
        "Which technique puts the body in a strong magnet?",
        "With a strong magnet and radio waves, which method makes pictures?",
        "What imaging method works with a strong magnet?",
    ),
    "computed tomography": (
        "Which method makes slices with a rotating X-ray tube?",
        "Name the imaging technique that uses a rotating X-ray tube.",
        "A rotating X-ray tube is used by which imaging method?",
        "Which technique turns a rotating X-ray tube around the body?",
        "Slices from a rotating X-ray tube belong to which method?",
        "What imaging method works with a rotating X-ray tube?",
    ),
    "mammography": (
        "Which method screens for breast cancer?",
        "Name the imaging technique used to screen for breast cancer.",
        "Breast cancer is screened for by which imaging method?",
        "Which technique looks for early breast cancer?",
        "To look for breast cancer, which imaging method is used?",
        "What imaging method finds early breast cancer?",
    ),
    "electrocardiogram": (
        "Which recording shows the heart's electrical activity?",
        "Name the recording of electrical activity of the heart.",
        "Electrical activity of the heart is drawn by which recording?",
        "Which test records electrical activity of the heart?",
        "A trace of the heart's electrical activity is called what?",
        "What recording draws the electrical activity of the heart?",
    ),
    "angiography": (
        "Which method shows the blood vessels?",
        "Name the imaging technique for blood vessels.",
        "Blood vessels are shown by which imaging method?",
        "Which technique makes pictures of blood vessels?",
        "To see narrowed blood vessels, which imaging method is used?",
        "What imaging method pictures the blood vessels?",
    ),
    "liver": (
        "Which organ makes bile?",
        "Name the organ that makes bile.",
        "Bile is made by which organ?",
        "Which organ produces bile for digestion?",
        "Bile comes from which organ?",
        "What organ is the source of bile?",
    ),
    "kidney": (
        "Which organ makes urine?",
        "Name the organ that makes urine.",
        "Urine is made by which organ?",
        "Which organ filters blood into urine?",
        "Urine comes from which organ?",
        "What organ is the source of urine?",
    ),
    "heart": (
        "Which organ pumps blood?",
        "Name the organ that pumps blood.",
        "Blood is pumped by which organ?",
        "Which organ pumps blood through the body?",
        "The pump of the blood is which organ?",
        "What organ pumps blood around?",
    ),
    "lung": (
        "Which organ takes up oxygen from air?",
        "Name the organ that takes up oxygen.",
        "Oxygen from air is taken up by which organ?",
        "Which organ exchanges oxygen and carbon dioxide?",
        "Oxygen enters the blood in which organ?",
        "What organ takes up oxygen?",
    ),
    "eye": (
        "Which organ contains the retina?",
        "Name the organ that contains the retina.",
        "The retina is part of which organ?",
        "Which organ has a retina?",
        "The retina lines which organ?",
        "What organ holds the retina?",
    ),
    "brain": (
        "Which organ lies inside the skull?",
        "Name the organ inside the skull.",
        "The skull protects which organ?",
        "Which organ is protected by the skull?",
        "Inside the skull lies which organ?",
        "What organ fills the skull?",
    ),
}
"""Answer -> wordings; the last one is held out."""
