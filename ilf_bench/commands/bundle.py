"""``ilf-bench bundle`` and ``ilf-bench verify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import ArtifactError, UsageError
from harness.history.bundle import Verified, extract_bundle, verify_bundle, write_bundle
from harness.history.verify import verify_run
from ilf_bench.commands.lookup import open_history


def bundle_run(run: Path, target: Path | None, images: bool) -> Sequence[str]:
    """Lines to print: the archive and its digest."""
    path = target if target is not None else Path(f"{run.resolve().name}.zip")
    digest = write_bundle(run, path, images)
    return [f"bundle: {path} ({path.stat().st_size / 1e6:.1f} MB)", f"digest: {digest}"]


def verify(what: Path, out: Path, digest: str | None, extract: Path | None) -> tuple[Sequence[str], bool]:
    """Lines to print, and whether everything is as it was: a bundle by its digests, a run folder by its record in the history."""
    if what.is_dir():
        if digest is not None or extract is not None:
            raise UsageError(expected="a bundle for --digest and --extract", got=f"the folder {what}", remedy="name the .zip")
        entry = open_history(out).find(str(what))
        found = verify_run(what, open_history(out).load(entry.run_id))
        source = f"run {entry.run_id} of the history"
    else:
        found = verify_bundle(what)
        source = f"digest {found.digest}"
        if digest is not None and found.digest != digest.lower():
            raise ArtifactError(
                expected=f"the bundle with the digest {digest}", got=found.digest, remedy="get that bundle from its publisher"
            )
    lines = [f"{f.state}: {f.path}" + (f" ({f.detail})" if f.detail else "") for f in found.findings]
    if extract is not None and not found.findings:
        extract_bundle(what, extract)
        lines.append(f"extracted: {extract}; tables and plots: ilf-bench report {extract}")
    return [*lines, _summary(found, source)], not found.findings


def _summary(found: Verified, source: str) -> str:
    if not found.findings:
        return f"verified: {found.files} files, all as in {source}"
    counts = {state: sum(f.state == state for f in found.findings) for state in ("altered", "missing", "extra", "unsafe")}
    return "not verified: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
