"""The first screen of a report: title, chips, one sentence, one plot, a strip of images, and a row for each method."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.results import BASELINE, WATERMARK
from harness.storage.records import Run
from reports.analysis.answers import Answer, Outcome
from reports.analysis.compare import Difference
from reports.analysis.evidence import SECONDS
from reports.analysis.overview import Line, Lossless, Overview, images_needed, lossless, to_rival
from reports.analysis.select import accelerators, has_tiny_scorers, noise_spread, throttled_calls
from reports.analysis.verdicts import ANCHOR_STEPS, SHARE
from reports.format import duration, interval_text, megabytes, number
from reports.render.grid import Sheet, Thumbnail
from reports.render.style import families
from reports.render.words import against_what, beyond_the_curve, rival_text, title_of

ACRONYMS = {"ilf", "fora", "pab", "ecad", "lcm", "tgate", "deis", "ddim", "bdia", "ghvb"}
NAMED = 3  # methods named in the title, and in each part of the sentence
STRIP_PROMPTS, STRIP_METHODS = 3, 6
WIDE_STRIP = 4  # methods at most whose images are so wide that one prompt fewer is as high
LOSSES = (
    (Outcome.WORSE, "is worse than fewer steps", "are worse than fewer steps"),
    (Outcome.NO_GAIN, "costs more than fewer steps without being better", "cost more than fewer steps without being better"),
)
ORDER = (Outcome.CANNOT_TELL, Outcome.NO_GAIN, Outcome.WORSE, Outcome.NOT_MEASURED)
UNDECIDED = "undecided"
COUNTED = {Outcome.YES: "better", Outcome.WORSE: "worse", Outcome.NO_GAIN: "not better", Outcome.CANNOT_TELL: UNDECIDED}
SHOWN_FIRST = (Outcome.YES.value, "mixed", *(outcome.value for outcome in ORDER))  # of the accelerators beside the plot
QUIET = 0.05  # timing noise above this share of the time is a warning


@dataclass(frozen=True)
class Chip:
    """A short mark below the title and what it means; ``warn`` where it limits what the page may claim."""

    text: str
    why: str
    warn: bool = True


@dataclass(frozen=True)
class Shown:
    """A number with its interval below it; ``bounds`` and ``tone`` are empty where it has none."""

    value: str
    bounds: str = ""
    tone: str = ""

    @property
    def text(self) -> str:
        """Both on one line."""
        return f"{self.value} {self.bounds}".rstrip()


@dataclass(frozen=True)
class Reasons:
    """What a verdict rests on: cost and rivals, every score with its outcome and the difference to its rival, and exceptions."""

    against: str
    scores: tuple[tuple[str, str, Shown], ...]  # title, outcome, difference
    notes: str


@dataclass(frozen=True)
class OverviewRow:
    """One method, ready to print. ``verdict``, ``tally``, ``text`` and ``reasons`` are empty where the question is not asked."""

    label: str
    is_plain: bool
    speed_up: Shown
    verdict: str
    tally: str
    text: str
    reasons: Reasons | None
    contrasts: tuple[tuple[Shown, Shown, str], ...]  # for each main score, the difference to full, to the rival, and the rival
    memory: str
    training: str


@dataclass(frozen=True)
class Strip:
    """A few prompts, each with the images of the full run, of fewer steps at equal cost and of the accelerators."""

    heads: tuple[tuple[str, str], ...]  # label, speed-up
    rows: tuple[tuple[str, int, tuple[Thumbnail, ...]], ...]  # prompt, sample index, a thumbnail for each method
    small: bool
    notes: tuple[str, ...]  # why rows of fewer steps are among them


def title(run: Run) -> str:
    """What was run, for example ``DeepCache and ILF against fewer steps: tiny-text``."""
    asked = set(accelerators(run))
    names = [_name(family) for family, labels in families(run).items() if set(labels) & asked]
    if not names:
        return f"Fewer steps and other solvers against the full run: {run.spec['name']}"
    more = len(names) - NAMED
    listed = names if more <= 0 else [*names[:NAMED], f"{more} more"]
    return f"{_listed(listed)} against fewer steps: {run.spec['name']}"


def _name(family: str) -> str:
    return family.upper() if family in ACRONYMS else family


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def subtitle(run: Run) -> list[str]:
    """Model, steps, N, machine, threads and date, each one a few words."""
    spec, env = run.spec, run.environment
    threads = env.get("threads")
    device = re.sub(
        r"\((R|TM)\)| (Processor|CPU)\b", "", str(env.get("device_name") or env.get("device") or "device not recorded")
    )
    return [
        str(spec.get("title") or spec.get("pipeline", "model not recorded")),
        f"{spec['steps']} steps of {spec['solver']}, guidance {spec['guidance']:g}",
        f"{spec['samples']} images each",
        device + (f", {threads} thread{'s' * (threads != 1)}" if threads else ""),
        str(env.get("created") or "date not recorded")[:10],
    ]


def chips(run: Run, found: Overview) -> list[Chip]:
    """What a reader must know before any number."""
    marks = []
    if has_tiny_scorers(run):
        marks.append(Chip("tiny scorers", "small networks: compare within this report only"))
    spread = noise_spread(run)
    if spread is not None:
        marks.append(Chip(f"timing noise {spread:.1%}", "of the full run timed twice", spread > QUIET))
    if found.provisional:
        marks.append(Chip(f"provisional: {found.provisional}", "too little for a firm answer"))
    for metric in found.shown:
        name, watermark, images = title_of(run, metric).partition(WATERMARK)
        if watermark:
            why = "with fewer images than it wants it is too high: compare it at equal N only"
            marks.append(Chip(f"{name}: N = {images}", why))
    if throttled_calls((*run.timings, *run.other_batches)):
        marks.append(Chip("throttled", "the device held its clock down during timed calls, counted in the cost table"))
    if busy := run.environment.get("busy"):
        marks.append(Chip("busy machine", f"times disturbed: {'; '.join(map(str, busy))}"))
    if not run.complete:
        marks.append(Chip("partial run", "what is missing is listed under failures"))
    return marks


def sentence(run: Run, found: Overview) -> str:
    """The answer in plain words: who beats fewer steps and by how much, who does not, and what it would take to tell."""
    lines = found.accelerators
    if not lines:
        nothing = (
            "This run has no accelerator in it, only step counts and solvers, so there is nothing to compare with fewer steps."
        )
        return " ".join(filter(None, [nothing, _fastest(run, found)]))
    by = {line.label: line.answer.headline for line in lines if line.answer}
    best = [line for line in lines if by[line.label] == Outcome.YES.value]
    parts = [_winner(run, found, best[0])] if best else [_none_better(found)]
    if len(best) > 1:
        parts.append(f"{_some(best[1:])} {'beats' if len(best) == 2 else 'beat'} them too.")
    parts += [_mixed(line) for line in lines if by[line.label] == "mixed"][:NAMED]
    for outcome, singular, plural in LOSSES:
        losing = [line for line in lines if by[line.label] == outcome.value]
        if losing:
            parts.append(f"{_some(losing)} {singular if len(losing) == 1 else plural}.")
    open_ = [line for line in lines if by[line.label] == Outcome.CANNOT_TELL.value]
    if open_:
        tests, verb = len(lines) * _metrics(open_[0]), "is" if len(open_) == 1 else "are"
        parts.append(f"{_some(open_)} {verb} not distinguishable from fewer steps{_would_take(run, open_, tests)}.")
    missing = [line for line in lines if by[line.label] == Outcome.NOT_MEASURED.value]
    if missing:
        parts.append(f"{_some(missing)} {'was' if len(missing) == 1 else 'were'} not measured.")
    return " ".join(filter(None, [*parts, _fastest(run, found)]))


def _winner(run: Run, found: Overview, line: Line) -> str:
    assert line.answer is not None
    better = _counts(line)[COUNTED[Outcome.YES]]  # and nothing worse, else it would be mixed
    speed = f"is {_times(line)} as fast as the full run" if line.speed_up else "has no speed"
    unit = "time" if line.answer.unit == SECONDS else "block evaluations"
    return f"{line.label} {speed}, beats fewer steps at equal {unit} on {better} of {_metrics(line)} metrics and loses on none."


def _fastest(run: Run, found: Overview) -> str:
    """Who is fastest without a measurable loss, accelerator or not, and whether that it loses nothing is shown; or why nobody."""
    best = lossless(run, found)
    if best is None:
        untold = "No score here can say whether a faster method loses quality."
        return untold if found.faster else "No method is faster than the full run."
    name = f"{best.line.label} ({_times(best.line)})"
    margin = f"{SHARE:.0%} of what {ANCHOR_STEPS} steps lose"
    if best.shown:
        return f"Fastest with a loss of at most {margin} in every score, against the full run: {name}."
    if not best.lost:
        itself = ", itself fewer steps" if best.line.is_plain else ""
        told = f"Fastest without a measurable loss against the full run (not proof of none): {name}{itself}"
        return f"{told}{_but(run, best.faster)}."
    scores = _titles(run, best.lost)
    if best.small:
        told = f"the fastest whose losses are shown to be small (at most {margin}) is {name}, which loses in {scores}"
    else:
        told = f"{name} loses in the fewest, {len(best.lost)} of {best.asked}: {scores}"
    return f"Against the full run every faster method has a measurable loss in some score; {told}."


def _but(run: Run, faster: Sequence[Lossless]) -> str:
    """Why the fastest accelerator is not the one, which two columns of scores may not show."""
    first = next((one for one in faster if one.line.answer), None)
    return f"; {first.line.label} is faster, with such a loss in {_titles(run, first.lost)}" if first else ""


def _titles(run: Run, metrics: Sequence[str]) -> str:
    titles = [title_of(run, metric) for metric in metrics]
    return _listed(titles if len(titles) <= NAMED else [*titles[:NAMED], f"{len(titles) - NAMED} more"])


def _tally(line: Line) -> str:
    """On how many metrics it is better, worse, not better or undecided, as far as there are any."""
    if line.answer is None or not _metrics(line):
        return ""
    return ", ".join(f"{word} on {count}" for word, count in _counts(line).items()) + f" of {_metrics(line)}"


def _none_better(found: Overview) -> str:
    unit = "time" if found.timed else "block evaluations"
    return f"No accelerator is shown to beat fewer steps at equal {unit}."


def _mixed(line: Line) -> str:
    told = [f"{word} on {count}" for word, count in _counts(line).items() if word != UNDECIDED]
    return f"{line.label} is {_listed(told)} of {_metrics(line)} metrics."


def _counts(line: Line) -> dict[str, int]:
    """On how many metrics it is what, without those that it is on none."""
    outcomes = [ruling.outcome for ruling in line.answer.rulings.values()] if line.answer else []
    return {word: outcomes.count(outcome) for outcome, word in COUNTED.items() if outcome in outcomes}


def _metrics(line: Line) -> int:
    return sum(r.outcome is not Outcome.NOT_MEASURED for r in line.answer.rulings.values()) if line.answer else 0


def _some(lines: Sequence[Line]) -> str:
    names = [f"{line.label} ({_times(line)})" if line.speed_up else line.label for line in lines[:NAMED]]
    more = len(lines) - NAMED
    return _listed([*names, f"{more} more"] if more > 0 else names)


def _times(line: Line) -> str:
    """The speed-up as precise as its interval allows, the same in the sentence, below the images and in the table."""
    return _speed(line).value


def _would_take(run: Run, lines: Sequence[Line], tests: int) -> str:
    answer = lines[0].answer
    needed = images_needed(run, answer, tests) if answer else None
    if needed is None:
        return ""
    metric, images = needed
    which = "it" if len(lines) == 1 else lines[0].label
    return f"; some {_rounded(images):,} images in all would decide {which} in {title_of(run, metric)}"


def _rounded(images: int) -> int:
    """Two significant digits, upwards: an estimate of a size is no count."""
    unit: int = 10 ** max(0, len(str(images)) - 2)
    return -(-images // unit) * unit


def rows(run: Run, found: Overview) -> list[OverviewRow]:
    """A row for each method, the fastest first."""
    return [_row(run, line) for line in found.lines]


def _row(run: Run, line: Line) -> OverviewRow:
    answer = line.answer
    spent = (line.training_s or 0.0) + (line.calibration_s or 0.0)
    training = duration(spent) if spent else "none"
    return OverviewRow(
        line.label,
        line.is_plain,
        _speed(line),
        answer.headline if answer else "",
        _tally(line),
        answer.text if answer else "",
        _reasons(run, answer) if answer else None,
        tuple((_difference(one.to_full), _difference(one.to_rival), rival_text(one.rival)) for one in line.contrasts),
        megabytes(line.memory_bytes) if line.memory_bytes is not None else "–",
        training,
    )


def _reasons(run: Run, answer: Answer) -> Reasons:
    scores = []
    for metric, ruling in answer.rulings.items():
        outcome = "better" if ruling.outcome is Outcome.YES else ruling.outcome.value
        scores.append((title_of(run, metric), outcome, _difference(to_rival(run, answer.label, metric, ruling))))
    marked = [f"Marked {answer.text}."] if answer.text != answer.headline else []
    return Reasons(against_what(answer), tuple(scores), " ".join([*beyond_the_curve(run, answer), *marked]))


def table_note(shown: int, scored: int) -> str:
    """Above the table: how many of the scores it shows, what fewer steps are, and how its verdicts differ from its intervals."""
    told = f"{shown} of {scored} scores, single paired 95% intervals; ▲ better, ▼ worse, ≈ not distinguishable"
    return f"{told}. Fewer steps: step counts mixed to equal cost; verdict corrected for all tests"


def _speed(line: Line) -> Shown:
    if line.label == BASELINE:
        return Shown("1×", "reference")
    if line.speed_up is None:
        return Shown("not timed")
    if line.speed_up.low == line.speed_up.high:
        return Shown(f"{number(line.speed_up.value)}×")
    value, bounds = interval_text(line.speed_up).split(" ", 1)
    return Shown(f"{value}×", bounds)


def _difference(difference: Difference | None) -> Shown:
    if difference is None or difference.interval is None:
        return Shown("–", tone=difference.verdict.name.lower() if difference else "")
    value, bounds = interval_text(difference.interval, signed=True).split(" ", 1)
    return Shown(value, bounds, difference.verdict.name.lower())


def strip(run: Run, found: Overview, sheet: Sheet | None) -> Strip | None:
    """The first prompts of the sheet for the full run, fewer steps of equal cost and the accelerators; None without images."""
    if sheet is None:
        return None
    columns = _columns(run, found, sheet.rows)
    shown = list(columns)[:STRIP_METHODS]
    speeds = {line.label: _times(line) for line in found.lines}
    prompts = enumerate(sheet.columns[: STRIP_PROMPTS if len(shown) > WIDE_STRIP else STRIP_PROMPTS - 1])
    body = tuple((s.prompt, s.index, tuple(sheet.rows[label][i] for label in shown)) for i, s in prompts)
    notes = tuple(f"{label}: {columns[label]}" for label in shown if columns[label])
    return Strip(tuple((label, speeds[label]) for label in shown), body, sheet.small, notes)


def _columns(run: Run, found: Overview, stored: Mapping[str, object]) -> dict[str, str]:
    """The methods of the strip, and why rows of fewer steps are among them.

    The full run; the row of fewer steps nearest in cost to the first accelerator; the method that the sentence names as losing
    nothing or least; and the accelerators in the order of what the page says of them.
    """
    lines = [line for line in found.accelerators if line.label in stored]
    lines.sort(key=lambda line: SHOWN_FIRST.index(line.answer.headline) if line.answer else 0)  # then by speed
    columns, best = {BASELINE: ""}, lossless(run, found)
    for line in lines:
        nearest = max(line.rival, key=lambda rung: rung.share, default=None)
        if nearest is not None and nearest.label in stored and nearest.label != BASELINE:
            columns[nearest.label] = f"nearest in cost to {line.label}"
            break
    if best is not None and best.line.is_plain:
        least = "the least loss of all faster methods" if best.lost else "the fastest without a measurable loss"
        columns[best.line.label] = f"{columns[best.line.label]}; {least}" if best.line.label in columns else least
    rest = [best.line] if best is not None else []
    rest += lines or [line for line in found.lines if line.label != BASELINE]
    columns |= {line.label: "" for line in rest if line.label not in columns}
    return {label: why for label, why in columns.items() if label in stored}
