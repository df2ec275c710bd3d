"""The process that imports torch: it builds the folder, loads it and asks it.

A child of `medix export`, so that a kernel that runs out of memory, a processor that refuses an instruction or a pickle
that crashes the interpreter ends this process and not the command, which then says so in one sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medix.errors import ExportError, MedixError
from medix.files import last_lines
from medix.processes import child_environment, die_with_parent, python_command, vllm_environment
from medix_verl.export.checkpoint import BaseModel, Checkpoint

Tell = Callable[..., None]


def run_child(job: Callable[..., None], *arguments: Any, gpus: bool = False) -> Iterator[dict[str, Any]]:
    """Run a function of this module in a child; yield what it tells, by name.

    Args:
        gpus: let it see the GPUs. They may be busy with training, so the export's own job sees none.
    """
    # A child loads local files only, so it gets no token of the hub.
    hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    tokens = dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = child_environment(**offline, **tokens, **hidden, **vllm_environment())
    command = python_command("medix_verl.export.child")
    with tempfile.NamedTemporaryFile() as log, tempfile.TemporaryFile() as request:
        pickle.dump((job.__name__, arguments), request)
        request.seek(0)
        pipes: dict[str, Any] = {"stdin": request, "stdout": subprocess.PIPE, "stderr": log}
        with subprocess.Popen(
            command, **pipes, env=environment, start_new_session=True, preexec_fn=die_with_parent
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    message = json.loads(line)
                    if "refused" in message:
                        raise ExportError(*message["refused"])
                    yield message
                code = process.wait()
            finally:
                # What it started, such as vLLM's workers, may outlive it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if code == -signal.SIGKILL:
            yield {"skipped": "the process was killed (-9), as the system does for want of memory"}
        elif code:
            fix = "Check the checkpoint, and this machine's memory; the text is the end of that process's output."
            raise ExportError(f"The process that loads the model died ({code}): {last_lines(Path(log.name), 3)}", fix)


def build(
    tell: Tell,
    checkpoint: Checkpoint,
    base: BaseModel,
    part: Path,
    dtype: str | None,
    adapter_only: bool,
    prompt: str,
    tokens: int,
) -> None:
    """Write side files and weights into the part folder; load it and ask it, if memory allows."""
    import psutil

    from medix_verl.export.generate import ask
    from medix_verl.export.side_files import complete_side_files
    from medix_verl.export.weights import export_weights

    def progress(stage: str, done: int, total: int) -> None:
        tell(stage=f"{stage}, {100 * done // total}%" if total else stage)

    progress("reading tokenizer and processor", 0, 0)
    tell(side_files=complete_side_files(part, checkpoint, base))
    weights = export_weights(checkpoint, part, dtype, adapter_only, base.shown, progress)
    tell(weights=weights)
    if adapter_only and base.folder is None:
        return tell(skipped="an adapter answers on its base model, which is not on this machine")
    under = base.folder if adapter_only else None
    needed = sum(path.stat().st_size for path in (under or part).glob("*.safetensors"))
    room = psutil.virtual_memory().available - (1 << 30)
    if needed > room:
        return tell(skipped=f"{needed / 1e9:.1f} GB of memory needed to load it, {room / 1e9:.1f} GB are free")
    progress("loading the folder and asking it", 0, 0)
    # Float32 is what every processor computes in; the folder's own dtype takes half of the memory.
    tell(generations=ask(part, under, "float32" if 2 * needed < room else weights["dtype"], prompt, tokens))


def vllm(tell: Tell, part: Path, prompt: str, tokens: int) -> None:
    """Ask the folder in vLLM."""
    from medix_verl.export.generate import ask_vllm

    tell(vllm=ask_vllm(part, prompt, tokens))


def main() -> None:
    """Do the job that stdin names; messages go to the real stdout, and what libraries print goes to stderr."""
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        messages.write(json.dumps(message) + "\n")

    job, arguments = pickle.load(sys.stdin.buffer)
    if job != "vllm":
        # transformers imports both, for losses and assisted generation, where they are installed: 150 MB and 5 s.
        sys.modules |= dict.fromkeys(("sklearn", "scipy"))  # type: ignore[arg-type]
    try:
        (vllm if job == "vllm" else build)(tell, *arguments)
    except MedixError as error:
        tell(refused=[error.problem, error.fix])
    except OSError as error:
        problem = f"{error.filename or 'A file'}: {error.strerror or error}."
        tell(refused=[problem, "Free some space, or mend the rights."])


if __name__ == "__main__":
    main()
