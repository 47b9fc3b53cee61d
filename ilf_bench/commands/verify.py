"""``ilf-bench verify``: what of a bundle or of a run folder is no longer as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import ArtifactError, UsageError
from ilf_bench.console import print_line
from ilf_bench.options import DEFAULT_OUT, WRITTEN, Out

if TYPE_CHECKING:
    from harness.history.bundle import Verified


def verify(
    what: Annotated[Path, typer.Argument(help="A bundle, or the folder of a run in the history.")],
    digest: Annotated[str | None, typer.Option(help="The digest that the bundle's publisher stated.")] = None,
    extract: Annotated[Path | None, typer.Option(**WRITTEN, help="Unpack an intact bundle into this new folder.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Report what was altered, is missing or was added: exit 0 if everything is unchanged, else 1."""
    if what.is_dir():
        if digest is not None or extract is not None:
            raise UsageError(expected="a bundle for --digest and --extract", got=f"the folder {what}", remedy="name the .zip")
        found, source = _folder(what, out)
    else:
        found, source = _bundle(what, digest)
    for one in found.findings:
        print_line(f"{one.state}: {one.path}" + (f" ({one.detail})" if one.detail else ""))
    if extract is not None and not found.findings:
        from harness.history.bundle import extract_bundle

        extract_bundle(what, extract, found.digest)  # the very one that was verified
        print_line(f"extracted: {extract}; tables and plots: ilf-bench report {extract}")
    print_line(_summary(found, source))
    raise typer.Exit(1 if found.findings else 0)


def _folder(folder: Path, out: Path) -> tuple[Verified, str]:
    """A run folder is held against its record in the history."""
    from harness.history.verify import verify_run
    from ilf_bench.lookup import open_history

    history = open_history(out)
    entry = history.find(str(folder))
    return verify_run(folder, history.load(entry.run_id)), f"run {entry.run_id} of the history"


def _bundle(file: Path, digest: str | None) -> tuple[Verified, str]:
    """A bundle is held against its own digests, and these against the one that its publisher named."""
    from harness.history.bundle import verify_bundle

    found = verify_bundle(file)
    if digest is not None and found.digest != digest.lower():
        raise ArtifactError(
            expected=f"the bundle with the digest {digest}", got=found.digest, remedy="get that bundle from its publisher"
        )
    return found, f"digest {found.digest}"


def _summary(found: Verified, source: str) -> str:
    if not found.findings:
        return f"verified: {found.files} files, all as in {source}"
    counts = {state: sum(f.state == state for f in found.findings) for state in ("altered", "missing", "extra", "unsafe")}
    return "not verified: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
