"""One self-contained page: no network, no JavaScript, a Content-Security-Policy that forbids both."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.contracts import Score
from harness.records import Run
from reports.answers import Answer, answers
from reports.compare import Difference, Verdict
from reports.evidence import SECONDS
from reports.figures import Picture
from reports.format import count, interval_text, number
from reports.grid import Grid
from reports.markdown import heading
from reports.select import has_tiny_scorers, metric_order
from reports.tables import STAGE_COLUMNS, TRAINING_COLUMNS, Table
from reports.words import TINY_WARNING, explain, facts, failures, title_of

TEMPLATES = Path(__file__).resolve().parent / "templates"
MARKS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.INDISTINGUISHABLE: "≈", Verdict.NOT_COMPARABLE: "–"}
OPEN_UP_TO = 3  # with more accelerators than this, the per-metric tables of the answer start folded


@dataclass(frozen=True)
class Duel:
    """An accelerator's answer, ready to print: a table row is (metric, text against each opponent)."""

    label: str
    headline: str
    sentence: str
    opponents: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, Verdict], ...]], ...]


def html_report(run: Run, table: Table, pictures: list[Picture], grid: Grid | None) -> str:
    """The whole page as text. Everything that came from the run is escaped; a missing value raises instead of vanishing."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = data_uri
    found = answers(run)
    context: dict[str, Any] = {
        "csp": f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "style": Markup(style),  # our own file, not the run's
        "title": str(run.spec.get("title") or run.spec["name"]),
        "run": run,
        "duels": [_duel(run, answer) for answer in found],
        "unfolded": len(found) <= OPEN_UP_TO,
        "warning": TINY_WARNING if has_tiny_scorers(run) else "",
        "table": table,
        "stages": STAGE_COLUMNS,
        "training": TRAINING_COLUMNS,
        "heading": heading,
        "marks": MARKS,
        "Verdict": Verdict,
        "pictures": pictures,
        "grid": grid,
        "facts": facts(run),
        "failures": failures(run),
        "fingerprints": fingerprints(run),
    }
    return environment.get_template("report.html.jinja").render(context)


def data_uri(content: bytes, kind: str) -> str:
    """``content`` as a data URI of MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def fingerprints(run: Run) -> list[tuple[str, str]]:
    """(metric title, canonical JSON of its fingerprint), a row for each different one."""
    found: dict[tuple[str, str], None] = {}
    for metric in metric_order(run):
        for (_, name), score in run.scores.items():
            if name == metric and isinstance(score, Score):
                found[title_of(run, metric), json.dumps(dict(score.fingerprint), indent=1, sort_keys=True)] = None
    return list(found)


def _duel(run: Run, answer: Answer) -> Duel:
    opponents = [o for o in (answer.dearer, answer.cheaper) if o is not None]
    names = []
    for opponent in opponents:
        cost = f"{number(opponent.cost)} s" if answer.unit == SECONDS else f"{count(opponent.cost)} evaluations"
        names.append(f"{opponent.label} ({'dearer' if opponent is answer.dearer else 'cheaper'}: {cost})")
    metrics = metric_order(run) if opponents else []
    rows = tuple((title_of(run, m), tuple(_outcome(o.differences[m]) for o in opponents)) for m in metrics)
    return Duel(answer.label, answer.headline, explain(run, answer), tuple(names), rows)


def _outcome(difference: Difference) -> tuple[str, Verdict]:
    text = interval_text(difference.interval, signed=True) if difference.interval else difference.reason
    return text, difference.verdict
