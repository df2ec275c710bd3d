"""The patch embedding as a matrix product gives what the convolution gives, forward and backward."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from medix_verl.patch_embedding import embed_by_product
from medix_verl.plugins.patches import FAMILIES, PATCHES

pytestmark = pytest.mark.slow  # imports torch and transformers
PATCHES_IN = 6
PIXELS = 3 * 2 * 14 * 14  # of a patch


@pytest.fixture(params=FAMILIES)
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = importlib.import_module(f"transformers.models.{request.param}.modeling_{request.param}")
    kind = next(value for name, value in vars(found).items() if name.endswith("PatchEmbed"))
    monkeypatch.setattr(kind, "forward", kind.forward)  # what the test changes is undone
    return found


def embedding(module: ModuleType) -> Any:
    """An embedding of 8 features, of the family's own class."""
    import torch

    torch.manual_seed(0)
    kind = next(value for name, value in vars(module).items() if name.endswith("PatchEmbed"))
    if "qwen3" not in module.__name__:
        return kind(patch_size=14, temporal_patch_size=2, in_channels=3, embed_dim=8)
    config = importlib.import_module(module.__name__.replace("modeling", "configuration"))
    vision = next(value for name, value in vars(config).items() if name.endswith("VisionConfig"))
    return kind(vision(patch_size=14, temporal_patch_size=2, in_channels=3, hidden_size=8))


def results(model: Any, pixels: Any) -> list[Any]:
    model.zero_grad()
    found = model(pixels)
    (found * found).sum().backward()
    return [found, *(parameter.grad.clone() for parameter in model.parameters())]


def test_values_and_gradients_are_the_convolutions(module: ModuleType) -> None:
    import torch

    model, pixels = embedding(module), torch.randn(PATCHES_IN, PIXELS)
    keys, convolved = list(model.state_dict()), results(model, pixels)
    embed_by_product(module)
    changed = type(model).forward
    embed_by_product(module)
    assert type(model).forward is changed  # once is enough
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.Conv3d, "forward", lambda *_: pytest.fail("the convolution was called"))
        multiplied = results(model, pixels)
    assert list(model.state_dict()) == keys
    for one, other in zip(convolved, multiplied, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_whatever_stands_in_the_convolutions_place_is_called(module: ModuleType) -> None:
    """An adapter around it would be left out by a product with its weight."""
    import torch

    class Doubled(torch.nn.Conv3d):
        def forward(self, pixels: Any) -> Any:
            return 2 * super().forward(pixels)

    model, pixels = embedding(module), torch.randn(PATCHES_IN, PIXELS)
    plain = model(pixels)
    model.proj.__class__ = Doubled
    embed_by_product(module)
    torch.testing.assert_close(model(pixels), 2 * plain)


def test_it_is_among_the_patches_of_every_process() -> None:
    assert all(PATCHES[f"transformers.models.{name}.modeling_{name}"] is embed_by_product for name in FAMILIES)
