"""``ilf-bench check``: whether a user's own methods and metrics keep the contract that ours are tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import HarnessError, NotMeasured, UsageError
from ilf_bench.console import print_line
from ilf_bench.failures import described
from ilf_bench.options import split

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline
    from ilf_bench.registry import Registry
    from ilf_bench.testing import Clause

FEWEST = 24  # images that a metric is held to the contract with


def check(
    file: Annotated[Path, typer.Argument(help="A Python file with METHODS, METRICS or both; your own code is run.")],
    methods: Annotated[
        str | None, typer.Option(help="Methods to check, with options as for run; default: every method of the file.")
    ] = None,
) -> None:
    """Check the methods and metrics of a file against the contract, on the two bundled models; exit 1 if one breaks it.

    Methods: the pipeline restored bit for bit, predicted cost equal to counted cost, the same images twice, images that do not
    depend on their neighbours. Metrics: shape, range, determinism, rows that do not depend on their neighbours, fingerprint, what
    they make of null controls.
    """
    from ilf_bench.registry import Registry

    registry = Registry.of([file])
    texts = split(methods) or tuple(name for name in registry.methods if name in registry.plugins)
    metrics = [name for name in registry.metrics if name in registry.plugins]
    if not (texts or metrics):
        raise UsageError(expected=f"methods or metrics in {file}", got="none", remedy="see docs/add-a-method.md")
    clauses = []
    for title, work in [*_methods(registry, texts), *_metrics(registry, metrics)]:
        print_line(title)
        clauses += _held(work)
    broken = sum(bool(clause.fault) for clause in clauses)
    print_line(f"{len(clauses) - broken} promises kept, {broken} broken")
    raise typer.Exit(1 if broken or not clauses else 0)


def _held(work: Callable[[], list[Clause]]) -> list[Clause]:
    """Print what the promises turn out to be. What cannot run on this model, and says so, breaks none."""
    from ilf_bench.testing import Clause

    try:
        clauses = work()
    except NotMeasured as error:
        print_line(f"  skipped {error}")
        return []
    except Exception as error:  # the user's code
        clauses = [Clause("runs", str(error) if isinstance(error, HarnessError) else described(error))]
    for clause in clauses:
        print_line(f"  BROKEN  {clause.promise}: {clause.fault}" if clause.fault else f"  ok      {clause.promise}")
    return clauses


def _methods(registry: Registry, texts: Sequence[str]) -> Iterator[tuple[str, Callable[[], list[Clause]]]]:
    """Each method on each model; the model is loaded once."""
    from ilf_bench.testing import TASKS, tiny_pipeline, tiny_prompts

    for task in TASKS if texts else ():
        pipeline, prompts = tiny_pipeline(task), tiny_prompts(task)
        for text in texts:
            yield f"{text} on tiny-{task}", partial(_method, registry, text, pipeline, prompts)


def _method(registry: Registry, text: str, pipeline: Pipeline, prompts: Sequence[str]) -> list[Clause]:
    from ilf_bench.testing import method_clauses

    return method_clauses(pipeline, registry.method(text), prompts)


def _metrics(registry: Registry, names: Sequence[str]) -> Iterator[tuple[str, Callable[[], list[Clause]]]]:
    """Each metric on images of the text model, as many as it needs."""
    for name in names:
        yield f"{name} on images of tiny-text", partial(_metric, registry, name)


def _metric(registry: Registry, name: str) -> list[Clause]:
    from ilf_bench.testing import metric_clauses, null_controls, tiny_batch, tiny_context

    build, context = registry.metrics[name], tiny_context("text")
    metric = build(context)
    batch = tiny_batch("text", max(FEWEST, metric.floor))
    clauses = metric_clauses(name, build, batch, context)
    if not any(clause.fault for clause in clauses):
        seen = "; ".join(f"{control} {verdict}" for control, verdict in null_controls(metric, batch).items())
        print_line(f"  null controls beside these images: {seen}")
    return clauses
