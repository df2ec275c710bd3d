"""Shards read without torch: several torch releases' pickles, names that must not be run, pieces that must fit."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix.errors import ExportError
from medix_verl.export.archive import Archive
from medix_verl.export.contract import Checkpoint
from medix_verl.export.shards import ShardSet, chunk_shape, open_shards
from medix_verl.export.unpickle import KNOWN, read_facts, read_tensors

from .fake_shards import Build, Call, FakeShard, Made, Named, Stored, cut

WRITERS = {
    # name -> (shard, mesh shape, ranks, this rank, its coordinate) -> mesh
    "torch 2.8": lambda shard, shape, ranks, rank, place: shard.mesh_2_8(shape, ranks, place),
    "torch 2.9": lambda shard, shape, ranks, rank, place: shard.mesh_2_9(shape, ranks, rank),
}


def opened(actor: Path, world: int) -> ShardSet:
    return open_shards(Checkpoint(actor, None, None, world, actor / "huggingface"))


def values(shards: ShardSet, key: str) -> list[float]:
    """The tensor's numbers, its pieces one after the other."""
    raw = b"".join(bytes(chunk) for piece in shards.tensors[key].pieces for chunk in piece.stream())
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def write(actor: Path, world: int, build: Callable[[FakeShard, int], dict[str, Any]], **how: Any) -> Path:
    for rank in range(world):
        shard = FakeShard()
        shard.save(actor / f"model_world_size_{world}_rank_{rank}.pt", build(shard, rank), **how)
    return actor


@pytest.mark.parametrize("writer", WRITERS)
def test_rows_are_joined_in_order_and_the_last_rank_has_less(writer: str, tmp_path: Path) -> None:
    # Five rows over three ranks: torch.chunk gives 2, 2 and 1.
    rows = {0: [0.0, 1.0, 2.0, 3.0], 1: [4.0, 5.0, 6.0, 7.0], 2: [8.0, 9.0]}

    def build(shard: FakeShard, rank: int) -> dict[str, Any]:
        mesh = WRITERS[writer](shard, (3,), (0, 1, 2), rank, (rank,))
        local = shard.tensor(rows[rank], (len(rows[rank]) // 2, 2))
        return {"w": shard.dtensor(local, (5, 2), mesh, [cut(0)]), "scale": shard.tensor([7.0], ())}

    shards = opened(write(tmp_path, 3, build), 3)
    assert values(shards, "w") == [float(number) for number in range(10)]
    assert values(shards, "scale") == [7.0]
    assert shards.tensors["w"].shape == (5, 2)
    assert shards.rank_witnesses == ["the name inside the archive", "the rank in the device mesh"]


@pytest.mark.parametrize("writer", WRITERS)
def test_replicas_are_read_once_and_compared(writer: str, tmp_path: Path) -> None:
    # ddp=2 x fsdp=2: ranks 0 and 2 hold the first row, ranks 1 and 3 the second.
    def build(shard: FakeShard, rank: int, wrong: float = 0.0) -> dict[str, Any]:
        mesh = WRITERS[writer](shard, (2, 2), (0, 1, 2, 3), rank, divmod(rank, 2))
        local = shard.tensor([rank % 2 + (wrong if rank == 3 else 0.0)], (1, 1))
        return {"w": shard.dtensor(local, (2, 1), mesh, [cut(None), cut(0)])}

    shards = opened(write(tmp_path, 4, build), 4)
    assert values(shards, "w") == [0.0, 1.0]
    assert shards.replicas == 2
    with pytest.raises(ExportError, match="equal replicas of w; found different values"):
        opened(write(tmp_path, 4, lambda shard, rank: build(shard, rank, wrong=0.5)), 4)


def test_padding_in_a_storage_is_left_out_and_empty_parts_are_fine(tmp_path: Path) -> None:
    # One row over two ranks: rank 1 has none, but FSDP2 gave it a padded storage all the same.
    def build(shard: FakeShard, rank: int) -> dict[str, Any]:
        mesh = shard.mesh_2_9((2,), (0, 1), rank)
        local = shard.tensor([1.0, 2.0, -9.0, -9.0], (1 - rank, 2))
        return {"w": shard.dtensor(local, (1, 2), mesh, [cut(0)])}

    assert values(opened(write(tmp_path, 2, build), 2), "w") == [1.0, 2.0]


def one(shard: FakeShard, rank: int, **change: Any) -> dict[str, Any]:
    """Two ranks, two rows of two; `change` spoils the shard of rank 1."""
    spoil = change if rank == 1 else {}
    mesh = shard.mesh_2_8((2,), spoil.get("ranks", (0, 1)), spoil.get("coordinate", (rank,)))
    change_mesh = spoil.get("mesh", lambda state: None)
    change_mesh(mesh.state)
    local = shard.tensor([1.0, 2.0, 3.0], spoil.get("local", (1, 2)), spoil.get("stride", ()), spoil.get("offset", 0))
    placements = spoil.get("placements", [cut(0)])
    return {"w": shard.dtensor(local, spoil.get("shape", (2, 2)), mesh, placements), **spoil.get("more", {})}


LAYOUT = Named("torch.distributed._mesh_layout", "_MeshLayout")


def ranks(shape: tuple[int, ...], key: str = "0", offset: int = 0) -> Call:
    """A table of ranks as a pickle may claim it: the first storage is the mesh's own, of two int32."""
    storage = Stored(("storage", Named("torch", "IntStorage"), key, "cpu", 2))
    strides = (0,) * len(shape)
    arguments = (storage, offset, shape, strides, False, Call(Named("collections", "OrderedDict"), ()))
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), arguments)


SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "another rank's place": ({"coordinate": (0,)}, "the one from place (0,) of the device mesh fsdp=2"),
    "a mesh of other ranks": ({"ranks": (7, 1)}, "fsdp=2 over ranks (7, 1)"),
    "other global shape": ({"shape": (3, 2)}, "w with shapes"),
    "other local shape": ({"local": (1, 3)}, "(1, 3) in model_world_size_2_rank_1.pt"),
    "a view past its storage": ({"offset": 2}, "fewer than w needs"),
    "not row by row": ({"stride": (1, 2)}, "strides (1, 2) of w"),
    "other placement": ({"placements": [cut(None)]}, "w with shapes"),
    "another key": ({"more": {"v": Call(Named("collections", "OrderedDict"), ())}}, "OrderedDict under 'v'"),
    "a mesh in a record that is not there": (
        {"mesh": lambda state: state.update(mesh=ranks(shape=(2,), key="99"))},
        "none in",
    ),
    # 30 million ranks took 5.8 s and 483 MB before they were refused.
    "a mesh of more ranks than shards": (
        {"mesh": lambda state: state.update(mesh=ranks(shape=(30_000_000,)))},
        "a device mesh of (30000000,) ranks for 2 shards",
    ),
    "a mesh of no ranks times many": (
        {"mesh": lambda state: state.update(mesh=ranks(shape=(30_000_000, 0)))},
        "a device mesh of (30000000, 0) ranks for 2 shards",
    ),
    "a mesh past the end of its record": (
        {"mesh": lambda state: state.update(mesh=ranks(shape=(2,), offset=7))},
        "a damaged device mesh (IndexError",
    ),
    "a mesh without a layout": (
        {"mesh": lambda state: state.update(mesh=None, _rank_map=ranks(shape=(2,)), _layout=Made(LAYOUT, {}))},
        "a damaged device mesh (KeyError",
    ),
    "cut along a dimension it lacks": ({"placements": [cut(5)]}, "cut along 5"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_shards_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    change, message = SPOILT[case]
    with pytest.raises(ExportError) as refused:
        opened(write(tmp_path, 2, lambda shard, rank: one(shard, rank, **change)), 2)
    assert message in refused.value.found


def test_a_shard_saved_through_a_stream_does_not_name_its_rank(tmp_path: Path) -> None:
    shards = opened(write(tmp_path, 2, lambda shard, rank: one(shard, rank), stem="archive"), 2)
    assert shards.rank_witnesses == ["the rank in the device mesh"]


FOREIGN = {
    "a function": Call(Named("os", "system"), ("touch pickle_was_run",)),
    "a builtin": Call(Named("builtins", "eval"), ("open('pickle_was_run', 'w')",)),
    "a class of torch that is no tensor": Made(Named("torch.nn", "Linear"), {}),
    "a name that looks like a known one": Call(Named("torch._utils", "_rebuild_tensor"), ()),
    "an attribute of a known one": Call(Named("collections", "OrderedDict.fromkeys"), ((),)),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_name_is_refused_before_it_is_run(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    archive = Archive(FakeShard().save(tmp_path / "a.pt", {"w": FOREIGN[case]}))
    with pytest.raises(ExportError, match="a foreign pickle that asks for"):
        read_tensors(archive)
    # Side files are not part of the export: their unknown names become objects that do nothing.
    assert list(read_facts(archive)) == ["w"]
    assert not (tmp_path / "pickle_was_run").exists()


STATES = {
    "an attribute": {"evil": 1},
    "a slot": (None, {"_call": Named("collections", "OrderedDict")}),
    "a default": (None, {"__defaults__": (1,)}),
    "a dtype": {"dtype": "int64"},
}
STAND_INS = [name for name, value in KNOWN.items() if not isinstance(value, str)]


@pytest.mark.parametrize("case", STATES)
def test_a_pickle_cannot_change_a_stand_in(case: str, tmp_path: Path) -> None:
    """They are shared by every file that this process reads later."""
    for name in STAND_INS:
        before = repr(KNOWN[name]), dict(getattr(KNOWN[name], "__dict__", {}))
        archive = Archive(FakeShard().save(tmp_path / "a.pt", {"w": Build(Named(*name), STATES[case])}))
        for read in (read_tensors, read_facts):
            with pytest.raises(ExportError, match="a state dictionary of tensors"):
                read(archive)
        assert (repr(KNOWN[name]), dict(getattr(KNOWN[name], "__dict__", {}))) == before


@given(data=st.binary(max_size=60))
def test_any_bytes_in_place_of_the_pickle_are_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    import zipfile

    path = tmp_path_factory.mktemp("noise") / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
    with pytest.raises(ExportError):
        read_tensors(Archive(path))


@given(size=st.integers(0, 40), parts=st.integers(1, 9))
def test_parts_are_cut_as_torch_chunk_does(size: int, parts: int) -> None:
    cuts = [chunk_shape((size, 3), 0, parts, index)[0] for index in range(parts)]
    assert sum(cuts) == size
    assert sorted(cuts, reverse=True) == cuts
    # Every part but the last one that is not empty is full.
    full = max(cuts)
    assert sum(0 < cut < full for cut in cuts) <= 1


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    shard = FakeShard()
    path = shard.save(tmp_path / "a.pt", {"w": shard.tensor([1.0, 2.0], (2,))})
    archive = Archive(path)
    read: list[int] = []
    archive.check(read.append)
    assert sum(read) == sum(record.size for record in archive.records.values())
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<2f", 1.0, 2.0)) + 5] ^= 1
    path.write_bytes(data)
    assert Archive(path).digest == archive.digest  # The table of contents is as it was; the bytes are not.
    with pytest.raises(ExportError, match="damaged bytes \\(CRC of data/0\\)"):
        Archive(path).check(read.append)


@pytest.mark.parametrize(("keep", "message"), [(0.5, "a truncated file of"), (0.0, "a file of 0 bytes that is no zip")])
def test_a_cut_off_file_is_named(keep: float, message: str, tmp_path: Path) -> None:
    shard = FakeShard()
    path = shard.save(tmp_path / "a.pt", {"w": shard.tensor([1.0, 2.0], (2,))})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ExportError, match=message):
        Archive(path)


def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of the two is read differs from reader to reader: ours took the last, torch took another."""
    import warnings
    import zipfile

    shard = FakeShard()
    path = shard.save(tmp_path / "a.pt", {"w": shard.tensor([1.0], (1,))})
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a/data/0", struct.pack("<f", 9.0))
    with pytest.raises(ExportError, match="two records of one name"):
        Archive(path)
