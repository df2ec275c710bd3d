"""Store a picture for the trainer as 8-bit levels: 3 bytes a pixel in place of 24, and the same numbers.

veRL puts the pixel values of every response into TransferQueue, in fp32 and twice, because the vision tower of the Qwen
families wants two frames. They are 8-bit levels, rescaled and normalised, so that a channel has 256 values at most: the
levels and a table of these values say the same. What does not fit (video, another image processor) stays as it is.
"""

from __future__ import annotations

from typing import Any

BYTES_A_PIXEL = 3
LEVELS, TABLE = "medix_pixel_levels", "medix_pixel_table"


def pack(inputs: dict[str, Any], image_processor: Any) -> dict[str, Any]:
    """Return a response's inputs of the vision tower with `pixel_values` as levels and table, if that loses nothing.

    Args:
        inputs: `pixel_values` [patches, channels x frames x patch x patch] in fp32, and whatever else there is.
        image_processor: of the model; its mean, deviation and number of frames.
    """
    import torch

    pixels, frames = inputs.get("pixel_values"), getattr(image_processor, "temporal_patch_size", None)
    if pixels is None or frames is None or pixels.dim() != 2:
        return inputs
    mean, deviation = (torch.tensor(getattr(image_processor, f"image_{name}")) for name in ("mean", "std"))
    channels = len(mean)
    values = pixels.view(len(pixels), channels, frames, -1)
    first = values[:, :, 0].transpose(0, 1).reshape(channels, -1)
    levels = (first * deviation[:, None] + mean[:, None]).mul_(255).round_().clamp_(0, 255).long()
    table = torch.zeros(channels, 256, dtype=pixels.dtype).scatter_(1, levels, first)
    same_frames = all(torch.equal(values[:, :, 0], values[:, :, frame]) for frame in range(1, frames))
    if not same_frames or not torch.equal(table.gather(1, levels), first):
        return inputs
    rest = {name: value for name, value in inputs.items() if name != "pixel_values"}
    shape = torch.tensor([len(pixels), frames])
    return {**rest, LEVELS: levels.to(torch.uint8), TABLE: table, f"{TABLE}_shape": shape}


def unpack(inputs: Any) -> Any:
    """Return the inputs with `pixel_values` again; what `pack` left alone, or None, as it is."""
    if not isinstance(inputs, dict) or LEVELS not in inputs:
        return inputs
    rest = dict(inputs)
    levels, table, shape = (rest.pop(name) for name in (LEVELS, TABLE, f"{TABLE}_shape"))
    patches, frames = shape.tolist()
    first = table.gather(1, levels.long()).view(len(table), patches, 1, -1).transpose(0, 1)
    return {"pixel_values": first.expand(-1, -1, frames, -1).reshape(patches, -1), **rest}
