"""Read the files that `medix prepare` writes as veRL's dataset (`data.custom_cls`).

Images stay encoded until a rollout asks for their pixels. Order and epoch resume as veRL's own do: the sampler keeps
them, and a resumed run reads the same files again.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
from verl.utils.dataset.rl_dataset import RLHFDataset

from data_prep import manifest
from data_prep.row_schema import open_prepared
from medix.errors import DataError


class MedixDataset(RLHFDataset):  # type: ignore[misc]  # veRL carries no types
    """Give prepared rows, text-only and with images in any mixture.

    Raises:
        DataError: a file lacks columns, was counted for another image processor, or holds too long prompts.
    """

    def _read_files_and_tokenize(self) -> None:
        counted = [_check_file(Path(name), self.max_prompt_length) for name in self.data_files]
        # veRL's own filter would decode every image to count again what the files state.
        if all(counted):
            self.filter_overlong_prompts = False
        for name in self.data_files:
            _check_geometry(Path(name), self.processor)
        super()._read_files_and_tokenize()


def _check_file(path: Path, max_prompt_length: int) -> bool:
    """Check one prepared file, and return whether its prompts were counted."""
    with open_prepared(path) as file:
        info = file.read(columns=["extra_info.n_tokens", "extra_info.sample_id"]).column("extra_info").combine_chunks()
    tokens = pc.struct_field(info, "n_tokens")
    longest = int(pc.max(tokens).as_py())
    if longest > max_prompt_length:
        name = pc.struct_field(info, "sample_id")[pc.index(tokens, longest).as_py()].as_py()
        raise DataError(
            f"The prompt of row {name!r} of {path} has {longest} tokens, above "
            f"data.max_prompt_length={max_prompt_length}.",
            f"Raise it, or prepare again with --max-prompt-tokens {max_prompt_length} or a smaller --max-pixels.",
        )
    return int(pc.min(tokens).as_py()) > 0


def _check_geometry(path: Path, processor: object) -> None:
    """Refuse an image processor that cuts images in another way than the counts of tokens were made for."""
    image_processor, folder = getattr(processor, "image_processor", None), path.parent
    if image_processor is None or not (folder / manifest.NAME).is_file():
        return
    mine = {name: getattr(image_processor, name) for name in ("patch_size", "merge_size")}
    mine |= {"min_pixels": image_processor.size["shortest_edge"], "max_pixels": image_processor.size["longest_edge"]}
    counted = manifest.read(folder)["model"].get("geometry")
    if counted is not None and counted != mine:
        raise DataError(
            f"The tokens of {path} were counted for an image processor with {counted}; the model's has {mine}.",
            "Prepare again with --model set to the model that is trained.",
        )
