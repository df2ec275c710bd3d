"""The `prepare` sub-command of `medix`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medix.errors import ConfigError, DataError


def prepare_command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="NAME, NAME:PATH or NAME:PATH?option=value, e.g. sample, table:my/data, dicom:scans"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for train.parquet, val.parquet, manifest.json")] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder, for token counts")] = None,
    prompt: Annotated[Path | None, typer.Option(help="Prompt file, the training prompt by default")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Evaluation source to look for in the training rows")
    ] = None,
    drop_contaminated: Annotated[
        bool, typer.Option(help="Quarantine training rows found in an evaluation set")
    ] = False,
    fail_on_leak: Annotated[
        bool, typer.Option(help="Fail if a training row is kept that is also in an evaluation set")
    ] = False,
    keep_duplicates: Annotated[bool, typer.Option(help="Report exact duplicates, but keep them")] = False,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Longer prompts are set aside; needs --model")] = None,
    min_pixels: Annotated[int | None, typer.Option(help="Smaller images are enlarged to this area")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Larger images are reduced to this area")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows kept of each source and split")] = None,
    seed: Annotated[int, typer.Option(help="Of the validation split")] = 0,
    val_fraction: Annotated[
        float, typer.Option(help="Share of the training rows held out, whole patients or images together")
    ] = 0.0,
    max_quarantine: Annotated[float, typer.Option(help="Share of damaged rows at which the command fails")] = 0.05,
    workers: Annotated[int | None, typer.Option(help="Processes, one a processor by default; 0: none", min=0)] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace another set in --out")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only count rows; open no image, write nothing")] = False,
    verify: Annotated[Path | None, typer.Option(help="Check a prepared folder against its manifest")] = None,
) -> None:
    """Turn medical question sets into training-ready parquet, with a manifest, a quarantine and a report."""
    from data_prep import manifest
    from data_prep.prepare import count, prepare

    if verify is not None:
        _show(manifest.verify(verify), verify, "verified")
        return
    options: dict[str, Any] = {
        "limit": limit,
        "seed": seed,
        "val_fraction": val_fraction,
        "against": tuple(against or ()),
    }
    given = {"model": model, "prompt": prompt, "min_pixels": min_pixels, "max_pixels": max_pixels}
    options |= {k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v is not None}
    if dry_run:
        counts = count(sources or [], **options)
        for kind in ("rows", "refused"):
            for name, rows in counts[kind].items():
                typer.echo(f"{kind}\t{name}\t{rows}")
        typer.echo("\n".join(recognised_lines(counts["sources"])))
        return
    if out is None:
        raise ConfigError("There is no --out.", "Name the folder to write, e.g. --out data/medix.")
    options |= {"drop_contaminated": drop_contaminated, "keep_duplicates": keep_duplicates}
    options |= {"max_prompt_tokens": max_prompt_tokens}
    found = prepare(sources or [], out, workers=workers, max_quarantine=max_quarantine, overwrite=overwrite, **options)
    _show(found, out, "written")
    leaks = found["dedupe"]["against"]
    if fail_on_leak and leaks["contaminated_rows"] and not leaks["dropped"]:
        raise DataError(
            f"{leaks['contaminated_rows']} training rows are also in an evaluation set.", "Add --drop-contaminated."
        )


def recognised_lines(sources: list[dict[str, Any]]) -> list[str]:
    """Return what was taken for what in each source, and what was not read."""
    lines = []
    for source in sources:
        for tables in source["recognised"]:
            taken = ", ".join(f"{role} from {'+'.join(names)}" for role, names in tables["taken"].items())
            places = f"; images in {tables['images_in']}" if "images_in" in tables else ""
            names = tables["tables"]
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            lines.append(f"{source['name']}: {shown}: {taken}{places}")
            if tables["not_read"]:
                lines.append(f"{source['name']}: {shown}: columns not read: {', '.join(tables['not_read'])}")
        if passed := source["passed_over"]:
            lines.append(f"{source['name']}: no tables of questions: {len(passed)}, such as {', '.join(passed[:4])}")
    return lines


def _show(manifest: dict[str, Any], out: Path, verb: str) -> None:
    table = Table("split", "rows", "images", "tokens (min to max)")
    for split, facts in manifest["splits"].items():
        images = sum(int(n) * rows for n, rows in facts["images_per_row"].items())
        tokens = f"{facts['n_tokens']['min']} to {facts['n_tokens']['max']}" if manifest["model"] else "not counted"
        table.add_row(split, str(facts["rows"]), str(images), tokens)
    console = Console(soft_wrap=True)
    for line in recognised_lines(manifest["sources"]):
        console.print(line, markup=False, highlight=False)
    console.print(table)
    for name, rows in manifest["left_out"].items():
        console.print(f"left out: {rows} rows of {name}; ?splits= prepares them", markup=False, highlight=False)
    for reason, facts in manifest["quarantine"]["reasons"].items():
        console.print(f"quarantined: {facts['rows']} {reason} ({facts['meaning']})", markup=False, highlight=False)
    console.print(f"{verb}: {out}", markup=False, highlight=False)
    leaks = manifest["dedupe"]["against"]
    if leaks["evaluation_rows_refused"]:
        console.print(f"{leaks['evaluation_rows_refused']} evaluation rows could not be compared with.", style="yellow")
    if leaks["contaminated_rows"]:
        how = (
            "dropped" if leaks["dropped"] else "kept; --drop-contaminated --overwrite with the same command drops them"
        )
        by = ", ".join(f"{leaks[kind]['rows']} by {kind}" for kind in ("image", "question", "group"))
        console.print(
            f"LEAK: {leaks['contaminated_rows']} training rows are also among the {leaks['evaluation_rows']} rows of "
            f"validation and evaluation sets ({by}): {how}.",
            style="bold red",
            highlight=False,
        )
