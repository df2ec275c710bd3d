"""Pages of mapped weights: given back, and read again as they were; and memory that no file holds is left alone."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pytest

from medix_verl.export.pages import forget, forget_after_use, mapped_spans

pytestmark = pytest.mark.slow  # imports torch

SIDE = 2048
BYTES = SIDE * SIDE * 4


def resident(path: Path) -> int:
    """Bytes of a mapped file that count as this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    import torch

    path = tmp_path / "a folder" / "model.pt"  # a path with a space is one path
    path.parent.mkdir()
    torch.save({name: torch.randn(SIDE, SIDE) for name in ("0.weight", "1.weight")}, path)
    return path


def load(path: Path) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(path, mmap=True, weights_only=True)
    return state


def test_pages_go_and_come_back_as_they_were(weights: Path) -> None:
    tensor = load(weights)["0.weight"]
    before = tensor.sum().item()
    assert resident(weights) >= BYTES
    assert forget([tensor], mapped_spans()) == BYTES
    assert resident(weights) < BYTES / 10
    assert tensor.sum().item() == before


def test_memory_that_no_file_holds_is_left_alone(weights: Path) -> None:
    import torch

    kept = load(weights)  # mapped beside it
    memory = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    tensor = torch.frombuffer(memory, dtype=torch.float32).fill_(1.0)
    assert forget([tensor], mapped_spans()) == 0
    assert tensor.sum().item() == SIDE * SIDE
    first = tensor.data_ptr()
    # Half inside a span: not wholly a file's.
    assert forget([tensor], [(first, first + BYTES // 2), (first + BYTES // 2, first + BYTES)]) == 0
    assert tensor.sum().item() == SIDE * SIDE
    # What the check is there for: the system takes the weights, and gives zeros.
    assert forget([tensor], [(first, first + BYTES)]) == BYTES
    assert tensor.sum().item() == 0
    assert len(kept) == 2


def test_a_model_gives_its_pages_back_as_it_computes(weights: Path) -> None:
    import torch

    layers = [torch.nn.Linear(SIDE, SIDE, bias=False, device="meta") for _ in range(2)]
    model = torch.nn.Sequential(*layers, torch.nn.ReLU())
    model.load_state_dict(load(weights), assign=True)
    given = torch.randn(1, SIDE)
    with torch.no_grad():
        plain = model(given)
        assert resident(weights) >= 2 * BYTES
        forget_after_use(model)
        for _ in range(2):
            assert model(given).equal(plain)
            assert resident(weights) < BYTES / 10
