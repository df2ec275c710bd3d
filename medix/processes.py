"""Processes: how a Python child is started, and how every process of a run is found and ended.

All processes of a run inherit one environment variable, wherever Ray or vLLM re-parented them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

import psutil

RUN_MARK = "MEDIX_RUN_MARK"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def python_command(module: str, *arguments: str | Path) -> list[str]:
    """Return the command that runs a module as a child, without the working directory on its import path.

    A run's folder may come from anyone: a `transformers.py` that lies in it must not be imported by a command that
    is typed there. Start the command with `child_environment()`.
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def child_environment(**changes: str | None) -> dict[str, str]:
    """Return this process's environment for a Python child, which passes its safe import path on to its own children.

    Args:
        changes: variables to set; None removes one.
    """
    environment: dict[str, str | None] = {**os.environ, "PYTHONSAFEPATH": "1", **changes}
    if path := environment.get("PYTHONPATH"):
        # Python reads an empty entry, as `PYTHONPATH=$PWD:$PYTHONPATH` often leaves one, as the working directory.
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in path.split(os.pathsep) if entry)
    return {name: value for name, value in environment.items() if value is not None}


def vllm_environment() -> dict[str, str]:
    """Return the variables that vLLM needs on a machine without an NVIDIA GPU; what is set already is kept."""
    if os.path.exists("/dev/nvidiactl"):
        return {}
    needed = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's own default is half of the memory
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",  # Some processors advertise AMX and refuse it.
    }
    return {name: os.environ.get(name, value) for name, value in needed.items()}


def die_with_parent() -> None:
    """Have the kernel end the child when the thread that started it is gone, by kill -9 too. For `preexec_fn`."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def is_alive(pid: int) -> bool:
    """Return whether a process runs. One that has ended counts as gone, though its parent has not waited for it yet."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def mark_of(run_dir: Path) -> str:
    """Return the mark of a run: its folder, so that the next attempt finds what an earlier one left."""
    return str(run_dir.resolve())


def processes_of(mark: str) -> list[psutil.Process]:
    """Return all live processes (but this one) whose environment carries the mark, and those in their sessions.

    Ray's workers and agents write their title over their environment, so theirs often cannot be read any more.
    """
    marked: list[psutil.Process] = []
    others: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and is_alive(process.pid):
                (marked if process.environ().get(RUN_MARK) == mark else others).append(process)
    sessions = {_session(process) for process in marked} - {os.getsid(0), None}
    return marked + [process for process in others if _session(process) in sessions]


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def end_processes(mark: str, grace_s: float = 5.0) -> int:
    """Terminate a run's processes, kill what is left after `grace_s` seconds, and return how many there were."""
    first = processes_of(mark)
    for process in first:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, remaining = psutil.wait_procs(first, timeout=grace_s)
    # Ray's raylet starts workers while it goes down: look again until none is left.
    for _ in range(5):
        remaining = list({*remaining, *processes_of(mark)})
        if not remaining:
            break
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.kill()
        _, remaining = psutil.wait_procs(remaining, timeout=2.0)
    return len(first)
