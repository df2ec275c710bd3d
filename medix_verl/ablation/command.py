"""The command `medix ablate`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medix.errors import ConfigError

if TYPE_CHECKING:
    from medix_verl.ablation.study import Study
    from medix_verl.ablation.truth import Finding, Known
    from medix_verl.report.run_folder import RunFolder


def ablate(
    study: Annotated[Path, typer.Argument(help="YAML of the study, e.g. examples/studies/reward_design.yaml")],
    out: Annotated[Path | None, typer.Option(help="Folder of the study; outputs/studies/NAME by default")] = None,
    dry_run: Annotated[bool, typer.Option(envvar="DRY_RUN", help="Print every command and start nothing")] = False,
    report_only: Annotated[bool, typer.Option(help="Write table and page of the runs that are done")] = False,
) -> None:
    """Train every variant of a study with every seed, then compare what each reward paid with what was true."""
    from medix.files import hold_folder, write_atomically
    from medix_verl.ablation.study import check_variants, execute, load_study, runs_of, setup_steps
    from medix_verl.ablation.truth import read_truth

    plan = load_study(study)
    folder = (out or Path("outputs/studies") / plan.name).resolve()
    if dry_run:
        for _, command in setup_steps(plan, folder):
            typer.echo(shlex.join(command))
        for run in runs_of(plan, folder):
            typer.echo(run.shown())
        return
    truth = read_truth(Path(plan.truth))  # before a run costs hours
    with hold_folder(folder, "study"):
        failed: dict[str, str] = {}
        if not report_only:
            check_variants(plan, folder)
            write_atomically(folder / "study.yaml", study.read_bytes())
            failed = execute(plan, folder, typer.echo)
        missing = _write(plan, folder, truth, failed)
    if missing:
        raise ConfigError(
            f"{len(missing)} runs are not done: {', '.join(missing)}.",
            f"Read the logs in {folder / 'logs'}, then run the same command; it goes on with these.",
        )


def _write(plan: Study, folder: Path, truth: Mapping[str, Known], failed: Mapping[str, str]) -> list[str]:
    """Write table, curves and page of the runs that are done; return the names of the others."""
    from medix.files import write_atomically
    from medix_verl.ablation import page, table, watched
    from medix_verl.ablation.study import runs_of
    from medix_verl.ablation.truth import read_findings
    from medix_verl.report.run_folder import load_run
    from medix_verl.report.thumbnails import thumbnails

    runs = runs_of(plan, folder)
    done = [run for run in runs if run.is_done(plan.steps)]
    if not done:
        raise ConfigError(f"No run of {plan.name} is done.", f"Read the logs in {folder / 'logs'}.")
    results: dict[str, dict[int, list[Finding]]] = {}
    folders: dict[str, dict[int, RunFolder]] = {}
    notes: list[str] = []
    for run in done:
        unread: list[str] = []
        results.setdefault(run.variant, {})[run.seed] = read_findings(run.folder, truth, unread)
        notes += [f"{run.variant}, seed {run.seed}: {note}" for note in unread]
        folders.setdefault(run.variant, {})[run.seed] = load_run(run.folder)
    table.check_whole(results, plan.steps)
    baseline = plan.baseline or next(iter(plan.variants))
    rows = table.rows(results)
    compared = table.against(results, baseline) if baseline in results else {}
    watch = watched.watch(folders, truth)
    page.draw_curves(results, folder / "curves.png")
    shared = done[0].environment.get("DATA")
    pictures = thumbnails(folders[done[0].variant][done[0].seed], Path(shared) if shared else None)
    html = page.render_page(plan, results, rows, compared, watch, failed, notes, pictures, folder / "curves.png")
    write_atomically(folder / "study.html", html)
    write_atomically(folder / "table.csv", table.as_csv(rows))
    markdown = f"{table.as_markdown(rows, compared, baseline)}\n\n{watched.as_markdown(watch)}"
    write_atomically(folder / "table.md", markdown + "\n")
    typer.echo(f"{markdown}\n\npage:   {folder / 'study.html'}\ntable:  {folder / 'table.csv'}, table.md")
    typer.echo(f"figures: of the validation at step {table.last_step(results)}")
    typer.echo("\n".join([f"curves: {folder / 'curves.png'}", *(f"note:   {note}" for note in notes)]))
    return [f"{run.variant}, seed {run.seed}" for run in runs if run not in done]
