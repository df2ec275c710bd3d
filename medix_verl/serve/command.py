"""`medix serve judge`, `medix serve embedder`, `python -m examples.rule_judge`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

serve_app = typer.Typer(no_args_is_help=True, help="Serve a scorer over HTTP.")

Model = Annotated[str, typer.Argument(help="a Hugging Face folder, or a hub id in the local cache")]
VllmArguments = Annotated[Optional[list[str]], typer.Argument(help="further vLLM arguments, after --")]  # noqa: UP045
Host = Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for other machines, with --api-key-env")]
Port = Annotated[int, typer.Option(help="port of the first replica, counting up; 0 takes free ones")]
Name = Annotated[str, typer.Option(help="name in requests; the folder's own if empty")]
Replicas = Annotated[int, typer.Option(help="servers of the same model, each on its own GPUs and port")]
TensorParallel = Annotated[int, typer.Option("--tensor-parallel-size", help="GPUs of one replica")]
MaxNumSeqs = Annotated[int, typer.Option(help="requests that a replica works on at once")]
ApiKeyEnv = Annotated[str, typer.Option(help="environment variable that holds the key to ask of clients")]
LogDir = Annotated[Path, typer.Option(help="the servers' logs go there")]
StartLimit = Annotated[float, typer.Option(help="seconds a server may take to come up")]
ParentPid = Annotated[Optional[int], typer.Option(help="stop when this process is gone")]  # noqa: UP045


@serve_app.callback()
def _serve() -> None:
    """Serve a scorer over HTTP."""


@serve_app.command()
def judge(
    model: Model,
    vllm_arguments: VllmArguments = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: Name = "",
    max_model_len: Annotated[int, typer.Option(help="tokens of prompt and reply")] = 8192,
    max_num_seqs: MaxNumSeqs = 256,
    replicas: Replicas = 1,
    tensor_parallel_size: TensorParallel = 1,
    api_key_env: ApiKeyEnv = "",
    log_dir: LogDir = Path("outputs/serve"),
    start_limit_s: StartLimit = 1800.0,
    parent_pid: ParentPid = None,
) -> None:
    """Serve a language model as the judge, with vLLM. Once it has answered, stdout says JUDGE_URL and JUDGE_MODEL."""
    from medix_verl.serve.probe import probe_judge
    from medix_verl.serve.replicas import Serving
    from medix_verl.serve.vllm import judge_command, served_name

    shown_name = name or served_name(model)

    def announce(urls: list[str]) -> None:
        print(f"export JUDGE_URL={','.join(urls)} JUDGE_MODEL={shlex.quote(shown_name)}", flush=True)
        if api_key_env:
            print(f"# add to the recipe's command: medix.scorer.judge.api_key_env={api_key_env}", flush=True)

    extra = ["--tensor-parallel-size", str(tensor_parallel_size), *(vllm_arguments or [])]

    def command(at: int) -> list[str]:
        return [*judge_command(model, shown_name, host, at, max_model_len, max_num_seqs), *extra]

    probe = partial(probe_judge, model=shown_name, api_key_env=api_key_env)
    serving = Serving(
        host, port, replicas, tensor_parallel_size, api_key_env, log_dir, start_limit_s, parent_pid
    )  # fmt: skip
    serving.run("judge", command, probe, announce)


@serve_app.command()
def embedder(
    model: Model,
    vllm_arguments: VllmArguments = None,
    host: Host = "127.0.0.1",
    port: Port = 8100,
    name: Name = "",
    max_num_seqs: MaxNumSeqs = 256,
    replicas: Replicas = 1,
    tensor_parallel_size: TensorParallel = 1,
    api_key_env: ApiKeyEnv = "",
    log_dir: LogDir = Path("outputs/serve"),
    start_limit_s: StartLimit = 1800.0,
    parent_pid: ParentPid = None,
) -> None:
    """Serve an embedder with vLLM; MODEL may be a package that carries one. Stdout says the overrides to use it."""
    from medix_verl.serve.probe import EMBEDDER_EXTRA, probe_embedder
    from medix_verl.serve.replicas import Serving
    from medix_verl.serve.vllm import embedder_command, served_name
    from reward_fns.scorers.encoders import packaged_model

    folder = packaged_model(model)
    shown_name = name or (model if folder != model else served_name(model))
    extra = ["--tensor-parallel-size", str(tensor_parallel_size), *(vllm_arguments or [])]

    def announce(urls: list[str]) -> None:
        settings = {"kind": "endpoint", "urls": f"[{','.join(urls)}]", "model": shown_name}
        if api_key_env:
            settings["api_key_env"] = api_key_env
        settings |= {f"extra.{key}": str(value) for key, value in EMBEDDER_EXTRA.items()}
        overrides = [f"++medix.scorer.embedder.{key}={value}" for key, value in settings.items()]
        print(shlex.join(overrides), flush=True)

    def command(at: int) -> list[str]:
        return [*embedder_command(folder, shown_name, host, at, max_num_seqs), *extra]

    probe = partial(probe_embedder, model=shown_name, api_key_env=api_key_env)
    serving = Serving(
        host, port, replicas, tensor_parallel_size, api_key_env, log_dir, start_limit_s, parent_pid
    )  # fmt: skip
    serving.run("embedder", command, probe, announce)
