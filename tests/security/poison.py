"""One run whose every text does something in some program that shows it; it passes the checks of records."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from harness.results import Failure
from harness.storage.layout import Layout, slug
from harness.storage.records import Run, read_json, read_run, write_json, write_score
from tests.reports.conftest import Fake, write_fake

MARK = "PWNED"
REASON = "out of\x1b[2J memory\r\ngate: PASS (exit code 0)\x9b31m \u202e\x1b]0;title\x07"


def texts(host: str) -> list[str]:
    """Labels and titles; ``host`` is what a picture, a link or a script of theirs would contact."""
    return [
        f"<script>{MARK}=1;fetch('{host}/a')</script>",
        f'"><img src={host}/b onerror="{MARK}=1">',
        f"![x]({host}/c.png) [x](javascript:{MARK}=1)",
        f'=HYPERLINK("{host}/d","x")',
        f"</title></script><svg onload={MARK}=1><image href={host}/e></svg>",
        "[/bold] [red]x[/red] {{ 7*7 }} {% for x in y %}",
        r"\input{/etc/passwd} \write18{id} $x$ %",
        f"]]><!ENTITY x SYSTEM '{host}/f'> <!-- x -->",
        f"'-{MARK}-' `x` @everyone {host}/g www.h.org",
    ]


def poisoned_run(path: Path, host: str) -> Run:
    """A run on disk. Methods, titles, units, reasons, prompts, the preset's and the machine's words are all poisonous."""
    labels = texts(host)
    methods = {"full": (20, 480.0, 1.0, 10.0)} | {label: (8, 192.0, 0.4 + 0.01 * i, 8.0) for i, label in enumerate(labels)}
    missing = ((labels[0], "good"),)
    write_fake(path, Fake(methods=methods, n=8, rounds=3, missing=missing, failed_methods=((f"{labels[1]} x", REASON),)))
    write_score(path, Failure(labels[0], "good", REASON))
    for record in Layout(path).scores():
        content = read_json(record)
        if "reason" not in content:
            write_json(record, content | {"title": labels[2], "unit": labels[1], "fingerprint": {labels[0]: labels[4]}})
    spec, environment = (read_json(file) for file in (Layout(path).spec, Layout(path).environment))
    words = {"title": labels[0], "pipeline": labels[1], "solver": labels[2], "prompts": labels[3], "precision": labels[4]}
    write_json(Layout(path).spec, spec | words)
    said = {"commit": labels[0], "device_name": labels[2], "command": f"ilf-bench run {labels[4]} s3://key:SECRETKEY@b"}
    write_json(Layout(path).environment, environment | said)
    for label in methods:
        manifest = Layout(path).samples(label).manifest
        content = read_json(manifest)
        for i, sample in enumerate(content["samples"]):
            sample["prompt"] = labels[i]
        write_json(manifest, content)
    return read_run(path)


def later_run(path: Path, run: Run) -> Run:
    """The same, a little slower, for comparisons."""
    shutil.copytree(run.path, path)
    for file in Layout(path).rounds():
        write_json(file, [call | {"latency_s": call["latency_s"] * 1.5} for call in read_json(file)])
    return replace(read_run(path), path=path)


def folder_name() -> str:
    """A name of a folder that a console took for markup."""
    return f"[bold]x[/nothing]-{slug('x')}"
