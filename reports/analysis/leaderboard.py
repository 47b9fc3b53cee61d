"""Which rows of many bundles may be ranked together, and in which order.

A board has the methods of all runs of one experiment: the same model, file by file, the same prompts, N, steps, solver,
guidance and precision, on one kind of machine. On a board each metric has a ranking for every fingerprint and N, because only
such scores may be subtracted (:func:`reports.analysis.evidence.comparability`). What a run does not record agrees with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.results import A_A, BASELINE, MethodRecord, Score
from harness.statistics import Interval, mean_interval
from harness.storage.records import Run
from reports.analysis.answers import answers, default_unit
from reports.analysis.changes import DEFAULTS, SAME_EXPERIMENT
from reports.analysis.compare import Difference, compare_within
from reports.analysis.evidence import SECONDS, comparability, evidence_of
from reports.analysis.overview import speed_up
from reports.analysis.select import method_order, metric_order, score_of

SPEED = "speed_up"
NAMED, SHORT = 2, 40  # facts, and characters of one, that distinguish boards of the same title
Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Source:
    """A bundle that agrees with itself: its digest, its file, and what its run says of itself."""

    digest: str
    file: str
    run_id: str
    preset: str
    machine: str
    created: str
    code: str
    complete: bool


@dataclass(frozen=True)
class Measure:
    """What a ranking ranks. ``identity``: all that two scores of it share, the fingerprint among it."""

    name: str
    title: str
    unit: str
    direction: str
    n: int
    tiny: bool
    identity: str


@dataclass(frozen=True)
class Standing:
    """One method of one bundle by one measure. ``to_full``: paired, None for the full run itself and for the speed-up."""

    method: str
    family: str
    source: Source
    value: Interval
    speed: Interval | None
    to_full: Difference | None
    answer: str


@dataclass(frozen=True)
class Ranking:
    """The best first. Each rank is one more than the number of rows whose 95% intervals lie wholly on the better side."""

    measure: Measure
    rows: tuple[tuple[int, Standing], ...]


@dataclass(frozen=True)
class Board:
    """The rankings of one experiment on one kind of machine."""

    title: str
    device: str
    facts: Facts
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True)
class Entry:
    """A standing with the board and the ranking that it belongs to."""

    facts: Facts
    title: str
    device: str
    measure: Measure
    standing: Standing


def source_of(run: Run, digest: str, file: str, run_id: str) -> Source:
    """A verified bundle's own words."""
    env = run.environment
    code = str(env.get("commit") or "no commit")[:12] + ("+" if env.get("dirty") else "")
    return Source(
        digest,
        file,
        run_id,
        str(run.spec["name"]),
        _device(run),
        str(env.get("created") or "not recorded")[:10],
        f"ilf-bench {env.get('ilf-bench') or 'of unknown version'}, {code}",
        run.complete,
    )


def entries(run: Run, source: Source) -> list[Entry]:
    """Every method of a run by every measure that it has."""
    facts, title, device = facts_of(run, source.digest), f"{run.spec['name']} on {_device(run)}", _device(run)
    said = {answer.label: answer.text for answer in answers(run)}
    found = []
    for label in (label for label in method_order(run) if label != A_A and label in run.records):
        speed, record = speed_up(run, label), run.records[label]
        for measure, value, to_full in _measured(run, label, speed):
            standing = Standing(label, family_of(record), source, value, speed, to_full, said.get(label, ""))
            found.append(Entry(facts, title, device, measure, standing))
    return found


def family_of(record: MethodRecord) -> str:
    """The full run's own, else that of the method."""
    return BASELINE if record.kind == "full" else record.family


def _measured(run: Run, label: str, speed: Interval | None) -> Iterable[tuple[Measure, Interval, Difference | None]]:
    if speed is not None:
        timed = default_unit(run) == SECONDS
        title, identity = ("Speed-up", "seconds") if timed else ("Speed-up in block evaluations", "blocks")
        yield Measure(SPEED, title, "×", "higher", 0, False, identity), speed, None
    for metric in metric_order(run):
        score = score_of(run, label, metric)
        if isinstance(score, Score):
            measure = Measure(metric, score.title, score.unit, score.direction, score.n, score.tiny, comparability(score)[0])
            to_full = compare_within(evidence_of(run), label, BASELINE, metric) if label != BASELINE else None
            yield measure, mean_interval(score.influence), to_full


def facts_of(run: Run, digest: str) -> Facts:
    """All that two runs must agree in before their rows stand on one board, by name. ``digest``: the bundle's."""
    env, spec = run.environment, run.spec
    alone = f"not recorded (bundle {digest})"
    full = run.described.get(BASELINE)
    model = full.identity.get("model") if full else None
    prompts = env["prompts"].get("digest") if isinstance(env.get("prompts"), Mapping) else None
    found: dict[str, Any] = {
        "model": model or alone,
        "prompts": prompts or alone,
        "images per method": spec["samples"],
        **{key: spec.get(key, DEFAULTS.get(key)) for key in SAME_EXPERIMENT if key != "pipeline"},
        "compiled": bool(spec.get("compile", False)),
        "timing batch": spec["timing"]["batch"],
        "device": _device(run),
        "machine": env.get("machine_key") or alone,
    }
    return tuple((name, str(value)) for name, value in found.items())


def _device(run: Run) -> str:
    return str(run.environment.get("device_name") or run.environment.get("device") or "a device that was not recorded")


def boards(found: Iterable[Entry]) -> tuple[Board, ...]:
    """All entries in boards, by their titles; of each board the speed-up first, then the metrics in the order of the runs."""
    grouped: dict[Facts, list[Entry]] = {}
    for entry in found:
        grouped.setdefault(entry.facts, []).append(entry)
    made = [Board(group[0].title, group[0].device, facts, _rankings(group)) for facts, group in grouped.items()]
    return tuple(sorted((_named_apart(board, made) for board in made), key=lambda board: (board.title, board.facts)))


def _named_apart(board: Board, all_boards: Sequence[Board]) -> Board:
    """A board whose title says what distinguishes it from others of the same title, as far as a few short facts can."""
    others = [dict(other.facts) for other in all_boards if other.title == board.title and other is not board]
    differing = [f"{name} {value}" for name, value in board.facts if any(other[name] != value for other in others)]
    short = [text for text in differing if len(text) <= SHORT][:NAMED]
    return replace(board, title=f"{board.title} ({', '.join(short)})") if short else board


def _rankings(found: Iterable[Entry]) -> tuple[Ranking, ...]:
    grouped: dict[Measure, list[Standing]] = {}
    for entry in found:
        grouped.setdefault(entry.measure, []).append(entry.standing)
    ordered = sorted(grouped.items(), key=lambda item: item[0].name != SPEED)
    return tuple(Ranking(measure, _ranked(measure, rows)) for measure, rows in ordered)


def _ranked(measure: Measure, rows: list[Standing]) -> tuple[tuple[int, Standing], ...]:
    sign = 1 if measure.direction == "higher" else -1
    worst = sorted(min(sign * row.value.low, sign * row.value.high) for row in rows)
    ordered = sorted(rows, key=lambda row: (-sign * row.value.value, row.method, row.source.digest))
    best = [max(sign * row.value.low, sign * row.value.high) for row in ordered]
    ranked = [(1 + sum(low > high for low in worst), row) for high, row in zip(best, ordered, strict=True)]
    return tuple(sorted(ranked, key=lambda pair: pair[0]))  # a wide interval may share a better rank than a larger value
