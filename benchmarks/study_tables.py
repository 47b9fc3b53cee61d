"""The tables of docs/ilf-study.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.study import FULL20, SCORES, Study, adapters, caches, learned, ours, spaced, standard
from harness.contracts import BASELINE
from harness.statistics import Estimate, Interval
from reports.ledger import break_even
from reports.select import peak_memory, record_of, seconds_per_image


def overview(study: Study) -> list[str]:
    """Every method, cheapest first."""
    lines = [
        "| method | block evaluations | times faster than 20 steps | feature distance | pixel RMSE | " + " | ".join(SCORES) + " |"
    ]
    lines.append("|---" * (5 + len(SCORES)) + "|")
    for row in sorted((study.row(x) for x in study.labels), key=lambda r: (r.cost, r.label)):
        errors = f"{row.distance:.3f} | {row.rmse:.2f}"
        lines.append(f"| {row.label} | {row.cost:.0f} | {times(row.speed)} | {errors} | {scores(study, row.label)} |")
    lines.append(f"| the converged sample | {study.cost(BASELINE):.0f} | | 0 | 0 | {scores(study, BASELINE)} |")
    return lines


def scores(study: Study, label: str) -> str:
    """Their cells."""
    return " | ".join(f"{study.images(label, name).mean():.4g}" for name in SCORES)


def equal_cost(study: Study) -> list[str]:
    """Each trained module against the next dearer rival of each kind."""
    lines = duel_head("method (cost)", "rival (cost)")
    without = [x for x in study.labels if "feedback=none" in x]
    families = standard(study), spaced(study), learned(study), without
    for label in [x for x in study.trained() if x not in adapters(study)]:
        rivals = [study.next_rival(label, family) for family in families]
        lines += [duel(study, label, rival) for rival in rivals if rival is not None]
    return lines


def against_caches(study: Study) -> list[str]:
    """Each cache, and the dearest ILF that costs no more."""
    lines = duel_head("ilf (cost)", "cache (cost)")
    for cache in sorted(caches(study), key=study.cost):
        label = max((x for x in ours(study) if study.cost(x) <= study.cost(cache)), key=study.cost, default=None)
        if label is not None:
            lines.append(duel(study, label, cache))
    return lines


def second_pass(study: Study) -> list[str]:
    """ILF against the adapter, trained alike, of the same step count and of the next dearer one."""
    lines = duel_head("ilf (cost)", "adapter (cost)", "times faster")
    for label in ours(study):
        same = label.replace("ilf(", "ilf-adapter(")
        dearer = study.next_rival(label, adapters(study))
        for rival in dict.fromkeys(x for x in (same, dearer) if x in study.labels):
            lines.append(f"{duel(study, label, rival)} {times(study.against(label, rival))} |")
    return lines


def duel_head(*names: str) -> list[str]:
    """Of a table of :func:`duel`; a third name is that of a last column."""
    known = (
        "feature distance lower by", "pixel RMSE lower by", "scores that are worse",
        "of these, the converged sample's own is worse too", "not shown non-inferior",
    )  # fmt: skip
    columns = (*names[:2], *known, *names[2:])
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def duel(study: Study, label: str, rival: str) -> str:
    """One line: by how much of the rival's error the method's is lower, and which scores are worse than the rival's.

    The converged sample is what every method aims at. Where its own score is worse than the rival's, the rival has that score
    from its error. The last column holds the same differences against the margins of :func:`no_loss`.
    """
    errors = [percent(study.lower(label, rival, m)) for m in ("feature_distance", "rmse")]
    worse = study.worse_scores(label, rival)
    shared = [name for name in worse if name in study.worse_scores(BASELINE, rival)]
    cells = (
        f"{label} ({study.cost(label):.0f})", f"{rival} ({study.cost(rival):.0f})", *errors, ", ".join(worse) or "none",
        ", ".join(shared) or ("none" if worse else ""), ", ".join(study.beyond_margin(label, rival)) or "none",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def no_loss(study: Study) -> list[str]:
    """Which methods lose nothing measurable against 20 steps, and how much faster they are."""
    blind = [name for name in SCORES if name not in study.margins]
    lines = [f"Too blind to count (cannot tell 5 steps from 20): {', '.join(blind) or 'none'}.", ""]
    lines += [
        "| method | times faster | scores not shown non-inferior | error no larger than that of 20 steps | passes |",
        "|---|---|---|---|---|",
    ]
    for label in study.labels:
        if label == FULL20:
            continue
        failing, errors = study.loses_nothing(label)
        passes = errors and not failing
        cells = (label, times(study.speed(label)), ", ".join(failing) or "none", yes(errors), yes(passes))
        lines.append("| " + " | ".join(cells) + " |")
    untrained = [x for x in study.labels if x != FULL20 and not x.startswith(("ilf", "bespoke"))]
    kinds = {
        "ILF": ours(study), "untrained rival": untrained, "learned solver without a module": learned(study),
        "adapter without a second pass": adapters(study),
    }  # fmt: skip
    fastest = {kind: study.fastest(labels) for kind, labels in kinds.items()}
    lines += ["", *(f"- Fastest {kind} that passes: {label or 'none'}." for kind, label in fastest.items())]
    for kind in list(kinds)[1:]:
        best, rival = fastest["ILF"], fastest[kind]
        if best and rival:
            lines.append(f"- {best} against {rival}: {times(study.against(best, rival))} times as fast.")
    return lines


def ledger(study: Study) -> list[str]:
    """What training cost and when it has paid back, in images against 20 steps. Memory is the peak of the whole process."""
    lines = [
        "| method | training, device-seconds | extra parameters | peak memory over that of 20 steps, MiB | images after which "
        "it has paid back |",
        "|---|---|---|---|---|",
    ]
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
        lines.append(f"| {label} | {seconds:.0f} | {record.extra_parameters:,} | {memory:+.0f} | {pays} |")
    return lines


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
    parts = [
        f"## {title}",
        f"N = {spec['samples']} images, seed {spec['seed']}, guidance {spec['guidance']}; {machine.get('device', '')}.",
        f"![Error against cost](images/{spec['name']}.svg)",
        "### Every method", *overview(study),
        "### Equal cost: each module against the next dearer rival", *equal_cost(study),
        "### Each cache, and the dearest ILF that costs no more", *against_caches(study),
        "### Does the second pass earn its cost?", *second_pass(study),
        "### Speed at no measurable loss", *no_loss(study),
        "### What training cost", *ledger(study),
    ]  # fmt: skip
    text = ""
    for part in parts:
        text += part + ("\n" if part.startswith("|") else "\n\n")
        if part == parts[-1]:
            text += "\n"
    return text.replace("|\n###", "|\n\n###")


def put_tables(page: Path, tables: str) -> None:
    """Replace what stands behind the page's mark; the words before it stay."""
    head, mark, _ = page.read_text().partition("<!-- tables -->")
    page.write_text(f"{head}{mark}\n\n{tables}")
