"""The command `medix ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medix.errors import ConfigError


def ablate(
    study: Annotated[Path, typer.Argument(help="YAML of the study, e.g. examples/studies/reward_design.yaml")],
    out: Annotated[Path | None, typer.Option(help="Folder of the study; outputs/studies/NAME by default")] = None,
    dry_run: Annotated[bool, typer.Option(envvar="DRY_RUN", help="Print every command and start nothing")] = False,
    report_only: Annotated[bool, typer.Option(help="Write table and page of the runs that are done")] = False,
) -> None:
    """Train every variant of a study with every seed, then compare what each reward paid with what was true."""
    from medix.files import hold_folder, write_atomically
    from medix_verl.ablation import page, table
    from medix_verl.ablation.study import check_variants, execute, load_study, runs_of, setup_steps
    from medix_verl.ablation.truth import read_findings, read_truth
    from medix_verl.report.monitors import spoken

    plan = load_study(study)
    folder = (out or Path("outputs/studies") / plan.name).resolve()
    if dry_run:
        for _, command in setup_steps(plan, folder):
            typer.echo(" ".join(command))
        for run in runs_of(plan, folder):
            typer.echo(run.shown())
        return
    truth = read_truth(Path(plan.truth))
    with hold_folder(folder, "study"):
        failed: dict[str, str] = {}
        if not report_only:
            check_variants(plan, folder)
            write_atomically(folder / "study.yaml", study.read_bytes())
            failed = execute(plan, folder, lambda line: typer.echo(line))
        done = [run for run in runs_of(plan, folder) if run.is_done(plan.steps)]
        if not done:
            raise ConfigError(f"No run of {plan.name} is done.", f"Read the logs in {folder / 'logs'}.")
        results: dict[str, dict[int, list[page.Finding]]] = {}
        for run in done:
            results.setdefault(run.variant, {})[run.seed] = read_findings(run.folder, truth)
        baseline = plan.baseline or next(iter(plan.variants))
        rows = table.rows(results)
        compared = table.against(results, baseline) if baseline in results else {}
        said = {run.variant: [f"seed {run.seed}: {text}" for text in spoken(run.folder)] for run in done}
        curve = folder / "curves.png"
        page.draw_curves(results, curve)
        images = page.read_images(done[0].folder, {f.sample_id for seeds in results.values() for found in seeds.values() for f in found})
        write_atomically(folder / "study.html", page.write_page(plan, results, rows, compared, said, failed, images, curve))
        write_atomically(folder / "table.csv", table.as_csv(rows))
        markdown = table.as_markdown(rows, compared, baseline)
        write_atomically(folder / "table.md", markdown + "\n")
        typer.echo(f"{markdown}\n\npage: {folder / 'study.html'}\ntable: {folder / 'table.csv'}\ncurves: {curve}")
        missing = len(runs_of(plan, folder)) - len(done)
        if missing:
            raise ConfigError(
                f"{missing} of {len(runs_of(plan, folder))} runs are not done: {', '.join(failed) or 'not started'}.",
                f"Read {folder / 'logs'}, then run the same command; it goes on with these.",
            )
