"""``ilf-bench score``: a folder of images that another program made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilf_bench.console import console
from ilf_bench.options import EXIT_PARTIAL, WRITTEN, Plugins, Reference, Scorers, split

if TYPE_CHECKING:
    from ilf_bench.scoring import FolderScore, FolderScores


def score(
    folder: Annotated[Path, typer.Argument(help="Images that another program made, sub-folders included.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Their prompts, matched by id or file name where the list has them, else one per image in natural order."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Comma-separated; default: the usual ones that the images, prompts and --against allow.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="A folder with the same file names: paired differences to it.")] = None,
    task: Annotated[str, typer.Option(help="text or class: which reference and features.")] = "text",
    scorers: Scorers = None,
    reference: Reference = None,
    plugins: Plugins = None,
    json_: Annotated[
        Path | None, typer.Option("--json", **WRITTEN, help="Write the scores to this file, with every image's values.")
    ] = None,
    csv_: Annotated[
        Path | None,
        typer.Option("--csv", **WRITTEN, help="Write every image's values to this file, a row per image."),
    ] = None,
) -> None:
    """Score a folder of images, alone or against another folder."""
    from ilf_bench.scoring import ScoreRequest, score_folder

    asked, files = tuple(split(metrics) or ()), tuple(plugins or ())
    found = score_folder(ScoreRequest(folder, asked, prompts, against, task, scorers, reference, files))
    _print(found, against is not None)
    if json_ is not None:
        _write_json(json_, found)
    if csv_ is not None:
        _write_csv(csv_, found)
    raise typer.Exit(EXIT_PARTIAL if any(one.failure for one in found.scores) or not found.scores else 0)


def _print(found: FolderScores, compared: bool) -> None:
    from rich.table import Table

    from harness.terminal import terminal_text
    from reports.format import interval_text

    table = Table("metric", "value [95% interval]", *(["difference [95% interval]"] if compared else []), "N")
    for one in found.scores:
        value = one.failure or (interval_text(one.interval) if one.interval else "")
        difference = [interval_text(one.difference, signed=True) if one.difference else "–"] if compared else []
        table.add_row(*map(terminal_text, (one.title, value, *difference, str(one.n) if one.n else "")))
    console.print(table)
    for note in found.notes:
        console.print(terminal_text(note), soft_wrap=True)
    if not found.scores:
        console.print("no metric can be measured on this folder alone: add --prompts or --against, or name --metrics")


def _write_json(path: Path, found: FolderScores) -> None:
    import json

    from harness.storage.files import write_bytes

    content = {
        "files": found.files,
        "prompts": found.prompts,
        "notes": found.notes,
        "scores": [_plain(one) for one in found.scores],
    }
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _plain(one: FolderScore) -> dict[str, Any]:
    content: dict[str, Any] = {"metric": one.metric, "title": one.title}
    if one.failure:
        return content | {"failure": one.failure}
    content |= {"direction": one.direction, "value": one.value, "n": one.n, **({"note": one.note} if one.note else {})}
    if one.per_image is not None:
        content["per_image"] = [_finite(float(v)) for v in one.per_image]
    for name, found in (("interval", one.interval), ("difference", one.difference)):
        if found is not None:
            content[name] = {"value": found.value, "low": _finite(found.low), "high": _finite(found.high)}
    return content


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None


def _write_csv(path: Path, found: FolderScores) -> None:
    import csv
    import io

    from harness.storage.files import write_bytes
    from reports.render.escape import csv_text

    scored = [(one.metric, one.per_image) for one in found.scores if one.per_image is not None]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", *(["prompt"] if found.prompts else []), *(metric for metric, _ in scored)])
    for i, name in enumerate(found.files):
        prompt = [csv_text(found.prompts[i])] if found.prompts else []
        writer.writerow([csv_text(name), *prompt, *(repr(float(values[i])) for _, values in scored)])
    write_bytes(path, buffer.getvalue().encode())
