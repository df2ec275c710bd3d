"""A child of `medix export`: the checkpoint as the trainer would resume it, and its log-probabilities.

Independent of the export's own reading: the model is built from the config, sharded by FSDP2 over as many processes as
the checkpoint has shards (gloo, on this machine), each loads its own shard with torch's restricted unpickler, and
torch gathers the layers in the forward pass. Nothing is merged, and a LoRA adapter is not folded.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from medix_verl.export.loading import auto_class, load_processor, response_log_probs, sees_images
from medix_verl.export.probes import probes_for
from medix_verl.export.sharded_model import NotComparable, load_sharded


def probe_sharded(request: dict[str, Any], answer: Path) -> None:
    """Start the ranks; rank 0 writes `{"found": ...}` or `{"skipped": reason}` to `answer`."""
    # What takes seconds to import is imported here, once, before the processes part.
    import torch.multiprocessing as multiprocessing

    auto_class(Path(request["config"]))
    ranks = request["ranks"]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as rendezvous:
        multiprocessing.start_processes(
            _rank, (ranks, f"file://{rendezvous}/store", request, answer), nprocs=ranks, start_method="fork"
        )


def _rank(rank: int, ranks: int, store: str, request: dict[str, Any], answer: Path) -> None:
    import torch
    from torch.distributed import all_gather_object, destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    loaded, reasons = None, [""] * ranks
    try:
        loaded = load_sharded(Path(request["actor"]), request, rank, mesh)
    except NotComparable as reason:
        reasons[rank] = str(reason)
    # All stop where one must: the others would wait for it, and fail as if the export were wrong.
    all_gather_object(reasons, reasons[rank])
    if loaded is None or any(reasons):
        found: dict[str, Any] = {"skipped": next(filter(None, reasons))}
    else:
        found = {"found": _log_probs(*loaded, mesh.size(), request)}
    if rank == 0:
        answer.write_text(json.dumps(found))
    destroy_process_group()


def _log_probs(model: Any, alpha: float | None, ranks: int, request: dict[str, Any]) -> dict[str, Any]:
    folder = Path(request["config"])
    with_images = sees_images(folder)
    processor = load_processor(folder, with_images)
    probes = probes_for(with_images)
    found = {
        "ranks": ranks,
        "log_probs": {probe.name: response_log_probs(model, processor, probe, with_images) for probe in probes},
    }
    if alpha is not None:
        model.disable_adapter_layers()
        without = {probe.name: response_log_probs(model, processor, probe, with_images) for probe in probes}
        found |= {"lora_alpha": alpha, "log_probs_without_lora": without}
    return found


if __name__ == "__main__":
    probe_sharded(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
