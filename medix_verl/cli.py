"""The `medix` command: every sub-command by name, loaded when it is called, and one place for expected errors."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from medix import __version__
from medix.errors import MedixError

COMMANDS: Final = {
    "Data and reward": {
        "prepare": ("data_prep.command:prepare_command", "Turn question sets into parquet for training."),
        "score": ("reward_fns.command:score", "Score responses with a reward, one by one or from a file."),
    },
    "Training": {
        "recipe": ("medix_verl.recipe.command:recipe", "Carry out a recipe; run_*.sh in recipes/medix call this."),
        "preflight": ("medix_verl.preflight.command:preflight", "Check everything that a run needs before it starts."),
        "train": ("medix_verl.training.command:train", "Train under watch: one step of a recipe."),
        "report": ("medix_verl.report.command:report", "Show a run on one page, or compare several."),
        "ablate": ("medix_verl.ablation.command:ablate", "Train the variants of a study; compare paid with true."),
    },
    "Models": {
        "export": ("medix_verl.export.command:export", "Turn a checkpoint into a proven Hugging Face folder."),
        "eval": ("evaluation.command:eval_app", "Evaluate models on medical benchmarks."),
    },
    "Used by the recipes": {
        "config": ("medix_verl.training.command:config", "Print the resolved configuration of a recipe."),
        "summary": ("medix_verl.report.command:summary", "Write and print the closing table of a run."),
    },
}
"""Panel of the help -> command -> where it is, and what it does in one sentence."""
TARGETS: Final = {name: target for panel in COMMANDS.values() for name, (target, _) in panel.items()}
REMEDIES: Final = {
    errno.ENOSPC: "Free some space, or name a folder on another disk.",
    errno.EDQUOT: "Free some of your quota, or name a folder on another disk.",
    errno.EROFS: "Name a folder that can be written.",
    errno.EACCES: "Name a folder or file that you may use, or change its permissions.",
    errno.EPERM: "Name a folder or file that you may use, or change its permissions.",
    errno.EADDRINUSE: "Name another port, or stop what uses it.",
    errno.ENOENT: "Correct the path.",
    errno.ENOTDIR: "Correct the path: a part of it is a file.",
    errno.EISDIR: "Name a file, not a folder.",
    errno.ELOOP: "Replace the link by a file or a folder of its own.",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 65536.",
}
LIBRARY_ERRORS: Final = {
    "OmegaConfBaseException": "Correct the override that changed this key; DRY_RUN=1 prints every key there is.",
    "GatedRepoError": "Ask for access on its page, then log in: hf auth login.",
    "RepositoryNotFoundError": "Correct the name; a private one needs hf auth login.",
    "DatasetNotFoundError": "Correct the name; a private one needs hf auth login.",
    "RevisionNotFoundError": "Correct the revision.",
    "EntryNotFoundError": "Correct the name of the file or of the configuration.",
    "OfflineModeIsEnabled": "Unset HF_HUB_OFFLINE, or name a folder with the files.",
    "LocalEntryNotFoundError": "Connect to the network once, or name a folder with the files.",
    "HFValidationError": "Correct the name: it is neither a folder nor USER/NAME.",
    "HfHubHTTPError": "Try again later, or name a folder with the files.",
    "ConnectError": "Check the network and its proxy (HTTPS_PROXY), or name a folder with the files.",
    "ConnectionError": "Check the network and its proxy (HTTPS_PROXY), or name a folder with the files.",
}
"""Name of an error of huggingface_hub, datasets, httpx or requests -> what to do. Names, as none of these is loaded."""


class LazyGroup(TyperGroup):
    """Loads the package of a command when the command is called, so that the help is there at once."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` begins with."""
        if args and args[0] in TARGETS:
            module, name = TARGETS[args[0]].split(":")
            target = getattr(importlib.import_module(module), name)
            if not isinstance(target, typer.Typer):
                target, function = typer.Typer(add_completion=False), target
                target.command(args[0])(function)
            self.commands[args[0]] = typer.main.get_command(target)
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _panel, _commands in COMMANDS.items():
    for _name, (_, _sentence) in _commands.items():
        app.command(_name, help=_sentence, rich_help_panel=_panel)(lambda: None)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medix {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Train, export and judge medical vision-language models. Start with `make demo`, go on with docs/tutorials.

    Each command explains itself: medix COMMAND --help.
    """


def explain(error: Exception) -> MedixError | None:
    """Return an error of the system, the hub or the settings as problem and remedy; None for a fault of our own."""
    if isinstance(error, MedixError):
        return error
    for kind in type(error).__mro__:
        if kind.__name__ in LIBRARY_ERRORS and kind.__module__ != "builtins":
            return MedixError(_first_line(error), LIBRARY_ERRORS[kind.__name__])
    if isinstance(error, OSError) and error.errno and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return MedixError(f"{where}{error.strerror}.", REMEDIES.get(error.errno, "Check the path and its disk."))
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."


def main() -> None:
    """Run a sub-command. An expected error is one message on stderr and exit code 2, never a traceback."""
    try:
        app()
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        from rich.console import Console

        from medix.secrets import mask_secrets

        text = mask_secrets(f"error: {known}")
        Console(stderr=True, soft_wrap=True).print(text, style="red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
