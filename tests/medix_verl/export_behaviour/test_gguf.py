"""What llama.cpp's converter reads: there, or refused by name. Nothing is converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medix.errors import ExportError
from medix_verl.export.gguf import check_gguf_ready
from tests.medix_verl.export_behaviour.conftest import change_json, write_side_files


@pytest.fixture
def ready(folder: Path) -> Path:
    write_side_files(folder)
    return folder


def test_a_ready_folder_gets_its_two_commands(ready: Path) -> None:
    record = check_gguf_ready(ready)
    assert record["commands"] == [
        "python convert_hf_to_gguf.py MODEL --outtype f32 --outfile model-f32.gguf",
        "python convert_hf_to_gguf.py MODEL --mmproj --outtype f32 --outfile mmproj-f32.gguf",
    ]
    assert "no conversion was run" in record["not_done"]
    assert record["rope_key"] == "rope_parameters"


MISSING: dict[str, tuple[str, Callable[[dict[str, dict[str, object]]], object], str]] = {
    "another architecture": ("config.json", lambda c: c.update(architectures=["LlavaModel"]), "for --gguf-ready"),  # type: ignore[arg-type]
    "no vision depth": ("config.json", lambda c: c["vision_config"].pop("depth"), "depth in vision_config"),
    "no text layers": ("config.json", lambda c: c["text_config"].pop("num_hidden_layers"), "num_hidden_layers in text"),
    "no rope sections": ("config.json", lambda c: c["text_config"].pop("rope_parameters"), "mrope_section in the rope"),
    "no normalisation": (
        "processor_config.json",
        lambda c: c["image_processor"].pop("image_mean"),  # type: ignore[attr-defined]
        "image_mean in the image processor's settings",
    ),
    "no merges": ("tokenizer.json", lambda c: c["model"].update(merges=[]), "merges in tokenizer.json"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_the_converter_would_miss_is_refused(ready: Path, case: str) -> None:
    name, change, message = MISSING[case]
    change_json(ready / name, change)
    with pytest.raises(ExportError, match=message):
        check_gguf_ready(ready)


def test_an_adapter_is_refused(ready: Path) -> None:
    (ready / "adapter_config.json").write_text("{}")
    with pytest.raises(ExportError, match="a whole model for --gguf-ready; found an adapter"):
        check_gguf_ready(ready)
