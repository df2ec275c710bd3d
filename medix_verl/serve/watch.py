"""Waits for servers, tries each with one real request, says where they are, and ends them with whoever asked."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from rich.console import Console

from evaluation.backends.server_process import POLL_S, ServerProcess
from medix.errors import ScorerError
from medix.processes import is_alive


class _Stopped(Exception):
    """Somebody asked for the end: a signal, or the parent is gone."""


def serve_until_stopped(
    servers: Sequence[ServerProcess],
    probe: Callable[[str], str],
    announce: Callable[[list[str]], None],
    parent_pid: int | None = None,
    console: Console | None = None,
) -> None:
    """Returns when it was asked to stop; no process of the servers is left then.

    Args:
        probe: asks the server at a URL one real question, and says in a few words what came back.
        announce: called once with every URL, when all servers have answered.
        parent_pid: stop when this process is gone.

    Raises:
        ScorerError: a server did not come up, did not answer sensibly, or all of them have died.
    """
    shown = console or Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        with _signals_raise():
            _wait_for_all(servers, parent_pid)
            for server in servers:
                shown.print(f"{server.url}: {_try_out(server, probe)}", markup=False)
            announce([server.url for server in servers])
            _watch(servers, parent_pid, shown)
    except _Stopped as reason:
        shown.print(f"stopping: {reason}", markup=False)
    finally:
        with _signals_ignored():
            for server in servers:
                server.ask_to_stop()
            for server in servers:
                server.stop()


def _wait_for_all(servers: Sequence[ServerProcess], parent_pid: int | None) -> None:
    while not all([server.is_up() for server in servers]):  # each is looked at, so that any death is noticed at once
        _sleep(parent_pid)


def _try_out(server: ServerProcess, probe: Callable[[str], str]) -> str:
    try:
        return probe(server.url)
    except ScorerError as error:
        raise server.failure(str(error)) from error


def _watch(servers: Sequence[ServerProcess], parent_pid: int | None, shown: Console) -> None:
    """The clients go on with the replicas that are left; the end of the last one is the end."""
    living = list(servers)
    while True:
        for server in [server for server in living if server.exit_code() is not None]:
            living.remove(server)
            lost = server.failure(f"{server.url} stopped serving with exit code {server.exit_code()}.")
            if not living:
                raise lost
            shown.print(f"{lost}\n{len(living)} of {len(servers)} replicas are left", style="yellow", markup=False)
        _sleep(parent_pid)


def _sleep(parent_pid: int | None) -> None:
    time.sleep(POLL_S)
    if parent_pid is not None and not is_alive(parent_pid):
        raise _Stopped(f"process {parent_pid} is gone")


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    raise _Stopped(signal.Signals(number).name)


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    previous = {number: signal.signal(number, _raise_stopped) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """A second Ctrl-C must not cut the clean-up short."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
