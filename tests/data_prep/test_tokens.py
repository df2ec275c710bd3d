"""Token counts by arithmetic, against hand-worked sizes and, with the engine, against the real processors."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tokens import TokenCounter, VisionGeometry, read_geometry
from medix.errors import ConfigError

QWEN2_5 = VisionGeometry(14, 2, 56 * 56, 12845056)
QWEN3 = VisionGeometry(16, 2, 65536, 16777216)

SIZES = [
    ("exact multiples: 336/28 = 12, 12 x 12", QWEN2_5, (336, 336), 144),
    ("512/28 = 18.29 rounds to 18, 18 x 18", QWEN2_5, (512, 512), 324),
    ("512/32 = 16, 16 x 16", QWEN3, (512, 512), 256),
    ("wide: 640/28 = 22.9 to 23, 480/28 = 17.1 to 17", QWEN2_5, (640, 480), 391),
    ("tiny: fetch makes 2 x 2 tokens of it, which is the least", QWEN2_5, (20, 20), 4),
    ("half to even: 42/28 = 1.5 rounds to 2, 70/28 = 2.5 to 2", QWEN2_5, (42, 70), 4),
    ("below Qwen3's least area of 65536: 100 x 100 grows to 96, then to 256 x 256", QWEN3, (100, 100), 64),
    ("over the most area: 4000 x 4000 shrinks to 3584 x 3584 = 128 x 128", QWEN2_5, (4000, 4000), 16384),
]


@pytest.mark.parametrize(("case", "geometry", "size", "tokens"), SIZES, ids=[case for case, *_ in SIZES])
def test_image_tokens(case: str, geometry: VisionGeometry, size: tuple[int, int], tokens: int) -> None:
    assert geometry.tokens(size) == tokens


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_a_turned_image_has_as_many_tokens(width: int, height: int) -> None:
    assert QWEN2_5.tokens((width, height)) == QWEN2_5.tokens((height, width))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_geometry_is_read_from_the_model_folder(family: str, model_folder: Callable[[str], Path]) -> None:
    assert read_geometry(model_folder(family)) == {"qwen2_5_vl": QWEN2_5, "qwen3_vl": QWEN3}[family]


def test_a_prompt_counts_its_text_and_its_images(model_folder: Callable[[str], Path]) -> None:
    counter = TokenCounter(model_folder("qwen2_5_vl"))
    text, one, two = (
        [{"role": "user", "content": content}] for content in ("Why?", "<image>\nWhy?", "<image><image>\nWhy?")
    )
    plain, single, double = counter.count([text, one, two], [[], [(336, 336)], [(336, 336), (512, 512)]])
    # A line end, and per image start + end + its tokens: 144 for 336 x 336, 324 for 512 x 512.
    assert single - plain == 1 + 2 + 144
    assert double - single == 2 + 324


def test_a_text_model_is_refused(tmp_path: Path, model_folder: Callable[[str], Path]) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((model_folder("qwen2_5_vl") / name).read_bytes())
    (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }}")
    with pytest.raises(ConfigError, match="image_pad"):
        TokenCounter(folder).count([[{"role": "user", "content": "<image>?"}]], [[(56, 56)]])
    with pytest.raises(ConfigError, match="patch_size"):
        read_geometry(tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_equal_to_the_real_resizes_on_20000_sizes(family: str, model_folder: Callable[[str], Path]) -> None:
    from qwen_vl_utils.vision_process import smart_resize as fetch
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    geometry, rng = read_geometry(model_folder(family)), random.Random(0)
    for _ in range(20000):
        width, height = (int(2 ** rng.uniform(0, 13)) for _ in range(2))
        if max(width, height) > 100 * min(width, height):
            continue
        first = fetch(height, width, geometry.patch_size * 2)
        real = smart_resize(*first, geometry.factor, geometry.min_pixels, geometry.max_pixels)
        assert geometry.tokens((width, height)) == real[0] * real[1] // geometry.factor**2, (width, height)
