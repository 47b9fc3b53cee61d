"""The contract that a method or a metric can be held to: ours in the tests, yours in your own tests or with ``ilf-bench check``.

>>> from dataclasses import dataclass
>>> from ilf_bench.testing import keeps_the_contract, tiny_pipeline
>>> from baselines.steps import Steps
>>> keeps_the_contract(tiny_pipeline("class", steps=3), Steps(2))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from harness.config.prompts import load_prompts
from harness.config.spec import load_spec
from harness.contracts import Batch, Method, Metric, Unmeasurable, range_of, takes_one_image
from harness.cost.plan import Plan
from harness.errors import UsageError
from harness.execution.controls import control_batch
from harness.execution.measuring import Pristine, measured_rows
from harness.models.loading import load_pipeline, quiet_libraries
from harness.paths import locate
from harness.results import FloatArray
from harness.sampling.pipeline import Pipeline
from harness.sampling.restoration import changed, state_of
from harness.statistics import mean_interval
from harness.statistics.controls import IDENTICAL, JPEG, NULLS, SHUFFLED
from metrics.context import MetricContext

EVERY = (0, 1, 2)  # sample indices
WORDS = ("red cat", "blue dog", "red dog")
Task = Literal["class", "text"]
TASKS: tuple[Task, ...] = ("class", "text")


@dataclass(frozen=True)
class Clause:
    """One promise of the contract; ``fault`` says how it was broken, and is empty where it was kept."""

    promise: str
    fault: str = ""


def tiny_pipeline(task: Task, steps: int = 4) -> Pipeline:
    """A bundled trained model in float32 on the CPU: tiny-class (DiT) or tiny-text (PixArt), with guidance."""
    quiet_libraries()
    return load_pipeline(load_spec(f"tiny-{task}", {"steps": steps, "precision": "fp32", "device": "cpu"}))


def tiny_prompts(task: Task) -> tuple[str, ...]:
    """Prompts that the bundled model of this task was trained to understand."""
    return load_prompts(load_spec(f"tiny-{task}").prompts).texts


def tiny_context(task: Task) -> MetricContext:
    """The bundled scorers and reference of a task, on the CPU."""
    spec = load_spec(f"tiny-{task}")
    return MetricContext(locate(spec.scorers), task, "cpu", None if spec.reference is None else locate(spec.reference))


def tiny_batch(task: Task, n: int) -> Batch:
    """Images that the bundled model makes in 4 steps, uint8 [n, 3, H, W], with their prompts, and those of 5 steps as the full
    run's.
    """
    prompts = tiny_prompts(task)
    chosen = [prompts[i % len(prompts)] for i in range(n)]
    made, full = (tiny_pipeline(task, steps).generate(chosen, 0, range(n)) for steps in (4, 5))
    return Batch(made, chosen, range(n), full)


def images(pipeline: Pipeline, indices: Sequence[int], prompts: Sequence[str] | None = None) -> torch.Tensor:
    """Images of seed 0 as signed integers [B, 3, H, W]."""
    given = prompts or (WORDS if not pipeline.is_class_conditional else [str(i) for i in EVERY])
    return pipeline.generate([given[i % len(given)] for i in indices], 0, list(indices)).int()


def keeps_the_contract(pipeline: Pipeline, method: Method, *, changes: bool = True) -> None:
    """Raise :class:`AssertionError` naming every promise that ``method`` breaks on ``pipeline``.

    ``changes``: whether its images must differ from the plain ones, else they must be equal to them.
    """
    plain = images(pipeline, together_of(method))
    clauses, seen = _method(pipeline, method)
    broken = [f"{clause.promise}: {clause.fault}" for clause in clauses if clause.fault]
    if seen is not None and changes == torch.equal(seen.together, plain):
        broken.append("the method changes nothing" if changes else "the method changes what it should not")
    assert not broken, "; ".join(broken)


def method_clauses(pipeline: Pipeline, method: Method, prompts: Sequence[str] | None = None) -> list[Clause]:
    """Every promise of a method: the pipeline restored bit for bit, also after an error; predicted cost equal to counted cost
    (or an upper bound of it); the same images twice; images that depend neither on their neighbours nor on their place. One that
    takes one image at a time is given one.

    Raises what the method raises where it cannot run on this model at all.
    """
    return _method(pipeline, method, prompts)[0]


@dataclass(frozen=True)
class Seen:
    """What a method did inside its context: images of three samples together, once more, alone and in another order.

    ``cost`` and ``alone`` are block evaluations of all three.
    """

    together: torch.Tensor
    again: torch.Tensor
    apart: torch.Tensor
    shuffled: torch.Tensor
    cost: float
    alone: float


ORDER = (2, 0, 1)


def together_of(method: Method) -> tuple[int, ...]:
    """The samples that a method is given at once."""
    return EVERY[-1:] if takes_one_image(method) else EVERY


def _order(count: int) -> list[int]:
    return [i for i in ORDER if i < count]


def _observe(pipeline: Pipeline, method: Method, prompts: Sequence[str] | None) -> Seen:
    every = together_of(method)
    with pipeline.counting() as counter, method.attach(pipeline):
        together, cost = images(pipeline, every, prompts), counter.rows
        counter.rows = 0.0
        apart = torch.cat([images(pipeline, [i], prompts) for i in every])
        alone, shuffled = counter.rows, images(pipeline, [every[i] for i in _order(len(every))], prompts)
        return Seen(together, images(pipeline, every, prompts), apart, shuffled, cost, alone)


def _method(pipeline: Pipeline, method: Method, prompts: Sequence[str] | None = None) -> tuple[list[Clause], Seen | None]:
    every = together_of(method)
    plain = images(pipeline, every, prompts)
    before = state_of(pipeline)
    weights = {name: value.clone() for name, value in _weights(pipeline).items()}
    plan = method.plan(pipeline.plan())
    seen = _observe(pipeline, method, prompts)
    with method.attach(pipeline):  # once more without the counter, whose own exit would put back what it had replaced
        images(pipeline, every[:1], prompts)
    left = changed(before, state_of(pipeline)) + [
        f"the values of {name} are others" for name, value in _weights(pipeline).items() if not _equal(value, weights.get(name))
    ]
    interrupted = _left_by_an_error(pipeline, method)
    after = images(pipeline, every, prompts)
    return [
        Clause("predicts the block evaluations that it runs", _miscount(plan, seen.cost / len(every))),
        Clause("gives the same images twice", "" if torch.equal(seen.together, seen.again) else "state leaks from call to call"),
        Clause("makes each image independent of its neighbours", _dependence(seen)),
        Clause("restores the pipeline bit for bit", _some(left) or _unequal(after, plain)),
        Clause("restores the pipeline after an error", _some(interrupted)),
    ], seen


def _weights(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, part in pipeline.pipe.components.items():
        if isinstance(part, torch.nn.Module):
            found |= {f"{name}.{key}": value for key, value in part.state_dict().items() if isinstance(value, torch.Tensor)}
    return found


def _equal(value: torch.Tensor, before: torch.Tensor | None) -> bool:
    return before is not None and value.dtype == before.dtype and torch.equal(value, before)


def _unequal(after: torch.Tensor, plain: torch.Tensor) -> str:
    return "" if torch.equal(after, plain) else "other images after it"


def _miscount(plan: Any, counted: float) -> str:
    if not isinstance(plan, Plan):
        return f"plan returned {plan!r}, no Plan"
    predicted = plan.block_evaluations
    if plan.exact:
        good = math.isclose(counted, predicted, rel_tol=1e-6)
        return "" if good else f"predicted {predicted:g} per image, counted {counted:g}"
    good = 0 < counted <= predicted * (1 + 1e-6)
    return "" if good else f"predicted at most {predicted:g} per image, counted {counted:g}"


def _dependence(seen: Seen) -> str:
    if int((seen.together - seen.apart).abs().max()) > 1:
        return "an image differs where it is sampled alone"
    if not math.isclose(seen.cost, seen.alone, rel_tol=1e-6):
        return f"three images together cost {seen.cost:g} block evaluations, and {seen.alone:g} one by one"
    return (
        "an image depends on its place"
        if int((seen.together[_order(len(seen.together))] - seen.shuffled).abs().max()) > 1
        else ""
    )


class _ForcedError(Exception):
    """Raised inside a method's context to see what it leaves."""


def _left_by_an_error(pipeline: Pipeline, method: Method) -> list[str]:
    before = state_of(pipeline)
    try:
        with method.attach(pipeline):
            raise _ForcedError
    except _ForcedError:
        return changed(before, state_of(pipeline))
    return [*changed(before, state_of(pipeline)), "the error was swallowed"]


def _some(left: Sequence[str], most: int = 3) -> str:
    more = f", and {len(left) - most} more" if len(left) > most else ""
    return ", ".join(left[:most]) + more


def metric_clauses(name: str, build: Callable[[MetricContext], Metric], batch: Batch, context: MetricContext) -> list[Clause]:
    """Every promise of a metric, on a batch of images with their prompts and the full run's images beside them.

    Raises what the metric raises where it cannot measure these images at all.
    """
    metric = build(context)
    pristine = Pristine().of(batch)
    whole = metric.measure(batch)
    pristine.restore()
    rows = Clause("measures float32 [B, d], one finite row per image", _rows(whole, len(batch.prompts)))
    if rows.fault:
        return [rows]
    promises: dict[str, Callable[[], str]] = {
        "describes itself": lambda: _description(name, metric),
        "leaves the images and the global random state as they are": lambda: _as_in_a_run(metric, batch),
        "measures the same images alike": lambda: _unlike(metric.measure(batch), whole, 0.0),
        "makes each row independent of its neighbours": lambda: _split_dependence(metric, batch, whole),
        "measures null controls": lambda: _controls(metric, batch),
        "summarises to one finite value per image": lambda: _summary(metric, whole),
        "says one finite thing of each image, or nothing": lambda: _per_image(metric.per_image(whole), len(batch.prompts)),
        "has values within its range": lambda: _beyond(metric, whole),
        "refuses fewer images than its floor": lambda: _refuses(metric, whole[: metric.floor - 1]),
        "refuses measurements that are not finite": lambda: _refuses(metric, _spoilt(whole)),
        "has a fingerprint that repeats": lambda: _fingerprint(metric, build(context)),
    }
    return [rows, *(Clause(promise, _fault(check)) for promise, check in promises.items())]


def _fault(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:  # the user's code
        return f"{type(error).__name__}: {error}"


def _description(name: str, metric: Metric) -> str:
    checks = {
        f"its name is {metric.name!r}, not {name!r}": metric.name == name,
        "its title is no text": isinstance(metric.title, str) and bool(metric.title),
        "its unit is no text": isinstance(metric.unit, str),
        f"its direction is {metric.direction!r}, neither higher nor lower": metric.direction in ("higher", "lower"),
        f"its floor is {metric.floor!r}": isinstance(metric.floor, int) and metric.floor >= 1,
        f"it advises {metric.advised!r} images, fewer than its floor": metric.advised >= metric.floor,
    }
    return "; ".join(text for text, good in checks.items() if not good)


def _rows(rows: Any, n: int) -> str:
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float32:
        return f"it is {getattr(rows, 'dtype', type(rows).__name__)}"
    if rows.ndim != 2 or len(rows) != n:
        return f"its shape is {list(rows.shape)} for {n} images"
    return "" if np.isfinite(rows).all() else f"{int((~np.isfinite(rows).all(axis=1)).sum())} of {n} rows are not finite"


def _unlike(rows: FloatArray, whole: FloatArray, tolerance: float) -> str:
    if rows.shape != whole.shape:
        return f"shape {list(rows.shape)} instead of {list(whole.shape)}"
    difference = float(np.abs(rows - whole).max(initial=0.0))
    return "" if difference <= tolerance * max(1.0, float(np.abs(whole).max(initial=0.0))) else f"they differ by {difference:.3g}"


def _as_in_a_run(metric: Metric, batch: Batch) -> str:
    try:
        measured_rows(metric, batch)
    except UsageError as error:
        return str(error)
    return ""


def _control_rows(metric: Metric, batch: Batch, control: str) -> FloatArray:
    """What a metric measures of a null control made from the full run's images of a batch."""
    full = batch if batch.full is None else replace(batch, images=batch.full)
    return metric.measure(control_batch(control, full))


def _controls(metric: Metric, batch: Batch) -> str:
    """Black frames, noise and the like have finite rows, or the metric says that it is undefined for them."""
    faults = []
    for control in (JPEG, *NULLS):
        with suppress(Unmeasurable):
            fault = _rows(_control_rows(metric, batch, control), len(batch.prompts))
            faults += [f"{control}: {fault}"] if fault else []
    return "; ".join(faults)


def null_controls(metric: Metric, batch: Batch) -> dict[str, str]:
    """What a metric makes of each null control beside the batch's own images, in the words of a run.

    ``distinguished``: the control scores worse, by the 95% interval of the difference; ``confused``: it does not; ``not read``:
    other prompts give the same rows.
    """
    found, same = {}, _control_rows(metric, batch, IDENTICAL)
    for control in NULLS:
        try:
            rows = _control_rows(metric, batch, control)
            difference = metric.summarise(rows) - metric.summarise(metric.measure(batch))
        except Unmeasurable as error:
            found[control] = f"not measured ({error})"
            continue
        worse = mean_interval(-difference if metric.direction == "higher" else difference).low > 0
        unread = control == SHUFFLED and np.array_equal(rows, same)
        found[control] = "not read" if unread else "distinguished" if worse else "confused"
    return found


def _split_dependence(metric: Metric, batch: Batch, whole: FloatArray) -> str:
    """Rows of pieces of three images, and of every other image, against those of the whole batch."""
    pieces = np.concatenate([metric.measure(_part(batch, slice(i, i + 3))) for i in range(0, len(batch.prompts), 3)])
    return _unlike(pieces, whole, 1e-4) or _unlike(metric.measure(_part(batch, slice(None, None, 2))), whole[::2], 1e-4)


def _part(batch: Batch, part: slice) -> Batch:
    full = None if batch.full is None else batch.full[part]
    return Batch(batch.images[part], batch.prompts[part], batch.indices[part], full)


def _summary(metric: Metric, measured: FloatArray) -> str:
    values = np.asarray(metric.summarise(measured))
    if values.shape != (len(measured),):
        return f"its shape is {list(values.shape)} for {len(measured)} images"
    if not np.isfinite(values).all():
        return f"{int((~np.isfinite(values)).sum())} values are not finite"
    turned = np.asarray(metric.summarise(measured[::-1].copy()))[::-1]
    return "" if np.allclose(turned, values, rtol=1e-6, atol=1e-8) else "the values depend on the order of the images"


def _per_image(values: Any, n: int) -> str:
    if values is None:
        return ""
    if np.shape(values) != (n,):
        return f"its shape is {list(np.shape(values))} for {n} images"
    return "" if np.isfinite(values).all() else f"{int((~np.isfinite(values)).sum())} values are not finite"


def _beyond(metric: Metric, measured: FloatArray, tolerance: float = 1e-5) -> str:
    """Values of single images, where the metric has them, and the score; float32 may pass a bound by its rounding."""
    low, high = (end if end is not None else sign * math.inf for end, sign in zip(range_of(metric), (-1, 1), strict=True))
    if not low < high:
        return f"its range is {low:g} to {high:g}"
    each = metric.per_image(metric.checked(measured))
    found = np.append([] if each is None else each, np.mean(metric.summarise(measured)))
    slack = tolerance * max([1.0, *(abs(end) for end in (low, high) if math.isfinite(end))])
    beyond = found[(found < low - slack) | (found > high + slack)]
    return f"{beyond[0]:g} is outside of {low:g} to {high:g}" if beyond.size else ""


def _refuses(metric: Metric, measured: FloatArray) -> str:
    try:
        metric.summarise(measured)
    except Unmeasurable:
        return ""
    return f"it summarised {len(measured)} of them instead of raising Unmeasurable"


def _spoilt(measured: FloatArray) -> FloatArray:
    spoilt = measured.copy()
    spoilt[len(spoilt) // 2] = np.inf
    return spoilt


def _fingerprint(metric: Metric, again: Metric) -> str:
    first = metric.fingerprint()
    if not first or not all(isinstance(text, str) for pair in first.items() for text in pair):
        return f"it is {first!r}, not texts by name"
    if dict(first) != dict(again.fingerprint()):
        return "two metrics built alike have different ones"
    return "" if dict(metric.basis()) == dict(again.basis()) else "two metrics built alike have different bases"
