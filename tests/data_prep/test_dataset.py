"""veRL reads what `medix prepare` writes: real dataset class, real processors, mixed rows, order that resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

WriteSet = Callable[..., Path]
Picture = Callable[..., bytes]


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl"])
def prepared(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    write_set: WriteSet,
    picture: Picture,
    model_folder: Callable[[str], Path],
) -> tuple[Path, Path]:
    """(folder of a mixed set, its model): none, one or two images a row, sizes and questions that differ."""
    from data_prep.prepare import prepare

    rows: list[dict[str, Any]] = []
    for i in range(24):
        row: dict[str, Any] = {"question": f"What of {'very ' * i}<image> <|im_end|> é {i}?"}
        rows.append(row | ({"picture": picture(i, (30 + 17 * i, 400 - 11 * i))} if i % 3 else {}))
    root = write_set(rows)
    (root / "images" / "second.png").write_bytes(picture(99, (333, 77)))
    table = (
        (root / "train.jsonl").read_text().replace('"images/train5.png"]', '"images/train5.png", "images/second.png"]')
    )
    (root / "train.jsonl").write_text(table)
    model = model_folder(request.param)
    prepare([f"jsonl:{root}"], tmp_path / "out", model=str(model), workers=0)
    return tmp_path / "out", model


def open_dataset(out: Path, model: Path, **config: Any) -> Any:
    from omegaconf import OmegaConf
    from transformers import AutoProcessor, AutoTokenizer

    from medix_verl.plugins.dataset import MedixDataset

    settings = {"max_prompt_length": 4096, "image_key": "images", "cache_dir": str(out / "cache")} | config
    tokenizer, processor = AutoTokenizer.from_pretrained(model), AutoProcessor.from_pretrained(model)
    return MedixDataset([str(out / "train.parquet")], tokenizer, OmegaConf.create(settings), processor)


def processor_count(dataset: Any, row: dict[str, Any]) -> int:
    """Prompt tokens as veRL's rollout builds them, images decoded."""
    from verl.utils.tokenizer import build_multimodal_processor_inputs

    messages, processor = row["raw_prompt"], dataset.processor
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images, videos, audios = dataset._process_multi_modal_info(messages, dataset.image_patch_size, dataset.config)
    if images is None:
        return len(processor.tokenizer(text=text, add_special_tokens=False)["input_ids"])
    inputs = build_multimodal_processor_inputs(
        processor, text=[text], images=images, videos=videos, audio=audios, mm_processor_kwargs={}
    )
    return len(inputs["input_ids"][0])


def test_counts_equal_the_real_processor_s(prepared: tuple[Path, Path]) -> None:
    dataset = open_dataset(*prepared)
    assert len(dataset) == 24
    assert dataset.filter_overlong_prompts is False
    counts = [(processor_count(dataset, row), row["extra_info"]["n_tokens"]) for row in (dataset[i] for i in range(24))]
    assert all(real == ours for real, ours in counts), counts


def test_images_stay_encoded_until_they_are_asked_for(prepared: tuple[Path, Path]) -> None:
    dataset = open_dataset(*prepared)
    image = next(part["image"] for part in dataset[1]["raw_prompt"][0]["content"] if part["type"] == "image")
    assert image._im is None  # Pillow has read the header only
    assert isinstance(dataset[0]["raw_prompt"][0]["content"], str)
    assert "images" not in dataset[0]


def test_too_long_missing_columns_and_another_processor_stop_at_start(
    prepared: tuple[Path, Path], model_folder: Callable[[str], Path]
) -> None:
    import pyarrow.parquet as pq

    from medix.errors import DataError

    out, model = prepared
    with pytest.raises(DataError, match="max_prompt_length=100"):
        open_dataset(out, model, max_prompt_length=100)
    other = "qwen3_vl" if model.name == "qwen2_5_vl" else "qwen2_5_vl"
    with pytest.raises(DataError, match="image processor"):
        open_dataset(out, model_folder(other))
    table = pq.read_table(out / "train.parquet")
    pq.write_table(table.drop_columns(["reward_model"]), out / "train.parquet")
    with pytest.raises(DataError, match="reward_model"):
        open_dataset(out, model)


def test_order_resumes_in_the_middle_of_an_epoch(prepared: tuple[Path, Path]) -> None:
    from omegaconf import OmegaConf
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.ppo.utils import create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn

    def loader() -> Any:
        dataset = open_dataset(*prepared)
        sampler = create_rl_sampler(OmegaConf.create({"shuffle": True, "seed": 3, "sampler": None}), dataset)
        return StatefulDataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=collate_fn, drop_last=True)

    def ids(batch: Any) -> list[str]:
        return [info["sample_id"] for info in batch["extra_info"]]

    first = loader()
    batches = iter(first)
    seen = [ids(next(batches)) for _ in range(2)]
    state = first.state_dict()
    rest = [ids(batch) for batch in batches]
    resumed = loader()
    resumed.load_state_dict(state)
    assert [ids(batch) for batch in resumed] == rest
    assert len({row for batch in seen + rest for row in batch}) == 24
