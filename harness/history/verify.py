"""A run folder against its record in the history, and its images against their manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError
from harness.history.bundle import IMAGES, Finding, Verified, record_files
from harness.history.packing import timing_content
from harness.results import Score
from harness.storage.layout import Layout
from harness.storage.records import Run, read_json, read_run


def verify_run(folder: Path, recorded: Run) -> Verified:
    """What the folder holds now against ``recorded``, piece by piece; a file that cannot be read counts as altered."""
    try:
        current = read_run(folder)
    except ArtifactError as error:
        return Verified("", 0, (Finding("altered", str(folder), str(error)),))
    pieces = list(_differences(_pieces(recorded), _pieces(current)))
    images = list(_images(folder))
    return Verified("", len(record_files(folder, images=True)), (*pieces, *images))


def _pieces(run: Run) -> dict[str, object]:
    """Everything in a run by the file that holds it."""
    layout = Layout(Path())
    found: dict[Path, object] = {layout.spec: dict(run.spec), layout.environment: dict(run.environment)}
    found[layout.complete] = run.complete
    reasons = {failure.method: failure.reason for failure in run.failed_methods}
    for method in run.described.values():
        found[layout.method(method.label)] = (asdict(method), reasons.get(method.label, ""))
    for (method_label, metric), score in run.scores.items():
        found[layout.score(method_label, metric).record] = _score(score)
    for number in sorted({t.round for t in run.timings}):
        found[layout.round(number)] = [timing_content(t) for t in run.timings if t.round == number]
    return {path.as_posix(): content for path, content in found.items()}


def _score(score: object) -> object:
    content: dict[str, Any] = asdict(score) if is_dataclass(score) and not isinstance(score, type) else {}
    if isinstance(score, Score):
        content |= {"fingerprint": dict(score.fingerprint), "per_image": (score.per_image.dtype.name, score.per_image.tobytes())}
    return content


def _differences(then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Finding]:
    for name, content in then.items():
        if name not in now:
            yield Finding("missing", name)
        elif now[name] != content:
            yield Finding("altered", name, "not what the history recorded")
    yield from (Finding("extra", name, "not in the history's record") for name in now if name not in then)


def _images(folder: Path) -> Iterator[Finding]:
    """Each image against the digest in its manifest; a folder whose images were all removed on purpose is not judged."""
    for samples in Layout(folder).sample_folders():
        listed = {str(s["file"]): str(s["sha256"]) for s in read_json(samples.manifest)["samples"]}
        present = {path.name for path in samples.path.iterdir() if path.suffix.lower() in IMAGES}
        where = samples.path.relative_to(folder).as_posix()
        if not present:
            continue
        for name, digest in listed.items():
            if name not in present:
                yield Finding("missing", f"{where}/{name}")
            elif hashlib.sha256((samples.path / name).read_bytes()).hexdigest() != digest:
                yield Finding("altered", f"{where}/{name}", "another digest than in its manifest")
        yield from (Finding("extra", f"{where}/{name}") for name in sorted(present - listed.keys()))
