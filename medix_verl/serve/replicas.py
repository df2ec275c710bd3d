"""How a model is served: how many servers, where they listen, on which GPUs, and who may ask them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.backends.server_process import ServerProcess, claim_port
from medix.errors import ConfigError
from medix_verl.serve.vllm import server_environment, share_gpus, visible_gpus
from medix_verl.serve.watch import serve_until_stopped

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serving:
    """One model, one or more servers.

    Attributes:
        port: of the first replica, counting up; 0 takes free ones.
        api_key_env: name of the environment variable that holds the key; empty for none.
        start_limit_s: seconds a server may take to come up.
        parent_pid: the servers end when this process is gone.
    """

    host: str
    port: int
    replicas: int
    gpus_per_replica: int
    api_key_env: str
    log_dir: Path
    start_limit_s: float
    parent_pid: int | None

    def run(
        self,
        kind: str,
        command: Callable[[int], Sequence[str]],
        probe: Callable[[str], str],
        announce: Callable[[list[str]], None],
    ) -> None:
        """Serve until asked to stop; see `serve_until_stopped`.

        Args:
            kind: names the logs, e.g. `judge`.
            command: the server's command line for a port.

        Raises:
            ConfigError: a port is taken, or GPUs or the key are missing. Nothing has been started then.
            ScorerError: a server failed.
        """
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        shares = share_gpus(visible_gpus(), self.replicas, self.gpus_per_replica)
        environments = [server_environment(self.api_key_env, gpus) for gpus in shares]
        commands = {port: command(port) for port in self._ports()}
        if self.host not in LOOPBACK and not self.api_key_env:
            console.print(
                f"warning: {self.host} is open to other machines and asks for no key (--api-key-env)", style="yellow"
            )
        servers: list[ServerProcess] = []
        for (port, line), environment in zip(commands.items(), environments, strict=True):
            log = self.log_dir / f"{kind}-{port}.log"
            console.print(f"starting {kind} on port {port}, log in {log}", markup=False)
            servers.append(ServerProcess(line, port, log, self.start_limit_s, host=self.host, environment=environment))
        serve_until_stopped(servers, probe, announce, self.parent_pid, console)

    def _ports(self) -> list[int]:
        wanted = [self.port + number if self.port else 0 for number in range(self.replicas)]
        ports = [claim_port(self.host, port) for port in wanted]
        if len(set(ports)) != len(ports):
            raise ConfigError("a free port for each replica", f"{ports}", "choose a --port")
        return ports
