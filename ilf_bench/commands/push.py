"""``ilf-bench push``: a run, or a feedback module, into a repository of the Hugging Face hub."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UsageError
from harness.storage.layout import Layout
from ilf_bench.console import print_line

if TYPE_CHECKING:
    from ilf_bench.publishing import Upload


def push(
    what: Annotated[Path, typer.Argument(metavar="RUN|MODULE", help="A run folder, or the folder of a feedback module.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; it is made where it is missing.")],
    space: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Also a static Space of this name that shows the report of the run.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run that measured the module, for the quality and cost in its card.")
    ] = None,
    license_: Annotated[
        str, typer.Option("--license", help="Identifier of the licence in the card, for example apache-2.0 or cc-by-4.0.")
    ] = "unknown",
    public: Annotated[bool, typer.Option("--public", help="Make the repositories public; otherwise they are private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and their sizes; nothing is uploaded.")] = False,
) -> None:
    """Upload a run (bundle, images, report, card) or a feedback module to the Hugging Face hub; private unless --public."""
    from ilf_bench.hub_upload import check_names, check_ready
    from ilf_bench.publishing import module_upload, run_uploads

    is_run = Layout(what).spec.is_file()
    if not is_run and not (what / "config.json").is_file():
        raise UsageError(expected="a run folder or the folder of a feedback module", got=str(what), remedy="correct the path")
    if is_run and run is not None:
        raise UsageError(expected="--run beside a module", got="a run", remedy="leave --run out")
    if not is_run and space is not None:
        raise UsageError(expected="--space beside a run", got="a module", remedy="leave --space out")
    check_names([repository, *([space] if space else [])])
    if not dry_run:
        check_ready()
    with ExitStack() as stack:
        if is_run:
            uploads = stack.enter_context(run_uploads(what, repository, space, license_))
        else:
            uploads = [stack.enter_context(module_upload(what, repository, run, license_))]
        _list(uploads) if dry_run else _push(uploads, public)


def _list(uploads: list[Upload]) -> None:
    for upload in uploads:
        files = upload.files()
        for name, size in files.items():
            print_line(f"{size:>12,}  {name}")
        print_line(
            f"{upload.kind} {upload.repository}: {len(files)} files, {sum(files.values()) / 1e6:.1f} MB; nothing was uploaded"
        )


def _push(uploads: list[Upload], public: bool) -> None:
    from ilf_bench.hub_upload import push as upload_to_hub

    for upload in uploads:
        address = upload_to_hub(upload, public)
        print_line(f"{'public' if public else 'private'} {upload.kind}: {address}")
