"""The tables of docs/results/ilf-study.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.results import BASELINE
from harness.statistics import Estimate, Interval
from harness.storage.files import write_bytes
from reports.analysis.select import peak_memory, record_of, seconds_per_image
from reports.analysis.upfront_cost import break_even
from reports.render.markdown import plain_table
from studies.study import FULL20, JUDGE, SCORES, Study, adapters, caches, feedback_of, learned, ours, reused, spaced, standard

Rows = list[list[str]]  # cells of text


def table(*head: str, rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return plain_table([head, ["---"] * len(head), *rows])


def overview(study: Study) -> str:
    """Every method, cheapest first."""
    rows: Rows = []
    for row in sorted((study.row(x) for x in study.labels), key=lambda r: (r.cost, r.label)):
        errors = f"{row.distance:.3f}", f"{row.rmse:.2f}", f"{study.images(row.label, JUDGE).mean():.2f}"
        rows.append([row.label, f"{row.cost:.0f}", times(row.speed), *errors, *scores(study, row.label)])
    rows.append(["the converged sample", f"{study.cost(BASELINE):.0f}", "", "0", "0", "0", *scores(study, BASELINE)])
    errors = "feature distance", "pixel RMSE", "EfficientNet distance"
    head = ("method", "block evaluations", "times faster than 20 steps", *errors, *SCORES, "KD-EfficientNet x 1000")
    return table(*head, rows=rows)


def scores(study: Study, label: str) -> list[str]:
    """Their cells."""
    judged = 1000 * study.images(label, "kd_efficientnet").mean()
    return [*(f"{study.images(label, name).mean():.4g}" for name in SCORES), f"{judged:.3g}"]


def equal_cost(study: Study) -> Rows:
    """Each trained module against the next more expensive rival of each kind."""
    rows: Rows = []
    without = [x for x in study.labels if feedback_of(study.record(x)) == "none"]
    families = standard(study), spaced(study), reused(study), learned(study), without
    for label in [x for x in study.trained() if x not in adapters(study)]:
        rivals = [study.next_rival(label, family) for family in families]
        rows += [duel(study, label, rival) for rival in rivals if rival is not None]
    return rows


def against_caches(study: Study) -> Rows:
    """Each cache, and the most expensive ILF row that costs no more."""
    rows: Rows = []
    for cache in sorted(caches(study), key=study.cost):
        label = max((x for x in ours(study) if study.cost(x) <= study.cost(cache)), key=study.cost, default=None)
        if label is not None:
            rows.append(duel(study, label, cache))
    return rows


def second_pass(study: Study) -> Rows:
    """ILF against the adapter, trained alike, of the same step count and of the next more expensive one."""
    rows: Rows = []
    for label in ours(study):
        same = next((x for x in adapters(study) if study.record(x).steps == study.record(label).steps), None)
        costlier = study.next_rival(label, adapters(study))
        for rival in dict.fromkeys(x for x in (same, costlier) if x is not None):
            rows.append([*duel(study, label, rival), times(study.against(label, rival))])
    return rows


DUEL = (
    "feature distance lower by",
    "pixel RMSE lower by",
    "EfficientNet distance lower by",
    "scores that are worse",
    "of these, the converged sample's own is worse too",
    "not shown non-inferior",
)


def duel(study: Study, label: str, rival: str) -> list[str]:
    """Both with their costs, and what :data:`DUEL` names; errors in percent of the rival's.

    The converged sample is what every method aims at. Where its own score is worse than the rival's, the rival has that score
    from its error. The last column holds the same differences against the margins of :func:`no_loss`.
    """
    errors = [percent(study.lower(label, rival, m)) for m in ("feature_distance", "rmse", JUDGE)]
    worse = study.worse_scores(label, rival)
    shared = [name for name in worse if name in study.worse_scores(BASELINE, rival)]
    return [
        f"{label} ({study.cost(label):.0f})",
        f"{rival} ({study.cost(rival):.0f})",
        *errors,
        ", ".join(worse) or "none",
        ", ".join(shared) or ("none" if worse else ""),
        ", ".join(study.beyond_margin(label, rival)) or "none",
    ]


def no_loss(study: Study) -> str:
    """Which methods lose nothing measurable against 20 steps, and how much faster they are."""
    insensitive = [name for name in SCORES if name not in study.margins]
    rows: Rows = []
    for label in study.labels:
        if label == FULL20:
            continue
        failing, errors = study.loses_nothing(label)
        passes = errors and not failing
        rows.append([label, times(study.speed(label)), ", ".join(failing) or "none", yes(errors), yes(passes)])
    untrained = [x for x in study.labels if x != FULL20 and "learned" not in study.record(x).kinds]
    kinds = {
        "ILF": ours(study),
        "untrained rival": untrained,
        "learned solver without a module": learned(study),
        "adapter without a second pass": adapters(study),
    }
    fastest = {kind: study.fastest(labels) for kind, labels in kinds.items()}
    found = [f"- Fastest {kind} that passes: {label or 'none'}." for kind, label in fastest.items()]
    for kind in list(kinds)[1:]:
        best, rival = fastest["ILF"], fastest[kind]
        if best and rival:
            found.append(f"- {best} against {rival}: {times(study.against(best, rival))} times as fast.")
    head = ("method", "times faster", "scores not shown non-inferior", "error no larger than that of 20 steps", "passes")
    first = f"Insensitive (they do not distinguish 5 steps from 20): {', '.join(insensitive) or 'none'}."
    return "\n\n".join([first, table(*head, rows=rows), "\n".join(found)])


def upfront_cost(study: Study) -> Rows:
    """What training cost and when it has paid back, in images against 20 steps. Memory is the peak of the whole process."""
    rows: Rows = []
    plain_s = float(np.median(seconds_per_image(study.run, FULL20)))
    for label in study.trained():
        record = record_of(study.run, label)
        assert record is not None
        seconds, faster = record.training_s or 0.0, study.speed(label)
        saving = Interval(*(plain_s * (1 - 1 / ratio) for ratio in (faster.value, faster.low, faster.high)))
        paid = break_even(seconds, saving)
        pays = f"{paid.value:,.0f} ({paid.low:,.0f}..{paid.high:,.0f})"
        mine, plain = (peak_memory(study.run, x) or 0 for x in (label, FULL20))
        memory = (mine - plain) / 2**20
        rows.append([label, f"{seconds:.0f}", f"{record.extra_parameters:,}", f"{memory:+.0f}", pays])
    return rows


def percent(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    return f"{100 * estimate.value:.0f}% ({100 * estimate.low:.0f}..{100 * estimate.high:.0f})"


def times(ratio: Interval) -> str:
    """A ratio of times with its interval."""
    return f"{ratio.value:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def yes(value: bool) -> str:
    """A word for a table."""
    return "yes" if value else "no"


def section(title: str, study: Study) -> str:
    """All tables of one model."""
    spec, machine = study.run.spec, study.run.environment
    costs = ("training, device-seconds", "extra parameters", "peak memory over that of 20 steps, MiB")
    parts = [
        f"## {title}",
        f"N = {spec['samples']} images, seed {spec['seed']}, guidance {spec['guidance']}; {machine.get('device', '')}.",
        f"![Error against cost](images/{spec['name']}.svg)",
        "### Every method",
        overview(study),
        "### Equal cost: each module against the next more expensive rival",
        table("method (cost)", "rival (cost)", *DUEL, rows=equal_cost(study)),
        "### Each cache, and the most expensive ILF row that costs no more",
        table("ilf (cost)", "cache (cost)", *DUEL, rows=against_caches(study)),
        "### Does the second pass earn its cost?",
        table("ilf (cost)", "adapter (cost)", *DUEL, "times faster", rows=second_pass(study)),
        "### Speed at no measurable loss",
        no_loss(study),
        "### What training cost",
        table("method", *costs, "images after which it has paid back", rows=upfront_cost(study)),
    ]
    return "\n\n".join(parts) + "\n"


def put_sections(page: Path, sections: Sequence[str]) -> None:
    """Replace the page's sections of the same titles (first lines, ``## ...``), or add these; the others stay."""
    _, _, tables = page.read_text(encoding="utf-8").partition("<!-- tables -->")
    there = re.split(r"^(?=## )", tables, flags=re.MULTILINE)
    parts = [part.strip() for part in (*there, *sections) if part.strip()]
    put_tables(page, "\n\n".join({part.partition("\n")[0]: part for part in parts}.values()) + "\n")


def put_tables(page: Path, tables: str) -> None:
    """Replace what stands behind the page's mark; the words before it stay."""
    head, mark, _ = page.read_text(encoding="utf-8").partition("<!-- tables -->")
    write_bytes(page, f"{head}{mark}\n\n{tables}".encode())
