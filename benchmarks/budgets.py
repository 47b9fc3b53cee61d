"""Print what the product's budgets allow and what this machine needs: ``python benchmarks/budgets.py [--skip-run]``.

Not a test: it measures the default run's wall clock and peak memory, and the share of time that the runner adds to a bare
loop over the same pipeline calls. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.models.loading import load_pipeline
from harness.storage.samples import SampleSet
from ilf_bench import experiment as app

REPEATS = 8


def runner_overhead(preset: str) -> tuple[float, float]:
    """Least seconds of a bare loop and of the sample stage over the same chunks, in turn (A B A B ...).

    The least, because other work on the machine only ever adds time.
    """
    experiment = app.prepare(preset, {}, []).experiment
    spec, pipeline = experiment.spec, load_pipeline(experiment.spec)
    bare: list[float] = []
    stored: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS + 1):
            samples = SampleSet(Path(folder) / str(repeat), experiment.prompts[: 2 * spec.batch], spec.batch)
            start = time.perf_counter()
            for indices in samples.chunks():
                pipeline.generate([samples.prompts[i] for i in indices], spec.seed, indices)
            middle = time.perf_counter()
            with pipeline.counting() as counter:
                for indices in samples.chunks():
                    samples.generate(
                        indices, lambda p, i: pipeline.generate(p, spec.seed, i).numpy(), partial(getattr, counter, "rows")
                    )
            samples.finish("full")
            if repeat:  # the first turn warms up
                bare.append(middle - start)
                stored.append(time.perf_counter() - middle)
    return min(bare), min(stored)


def default_run(preset: str) -> tuple[float, float]:
    """Wall seconds and peak resident GiB of ``ilf-bench run PRESET`` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["/usr/bin/env", sys.executable, "-c", CHILD, preset, folder]
        start = time.perf_counter()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return time.perf_counter() - start, int(output.splitlines()[-1]) / 2**30


CHILD = """
import resource, sys
from ilf_bench.cli import main
code = main(["run", sys.argv[1], "--out", sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny-text")
    parser.add_argument("--skip-run", action="store_true", help="only the runner's overhead")
    arguments = parser.parse_args()
    table = Table("budget", "allowed", "measured")
    bare, stored = runner_overhead(arguments.preset)
    table.add_row("runner's overhead on a bare loop", "3%", f"{100 * (stored / bare - 1):.1f}% ({bare:.2f} s, {stored:.2f} s)")
    if not arguments.skip_run:
        seconds, memory = default_run(arguments.preset)
        table.add_row(f"run {arguments.preset}", "180 s with AMX, 720 s in fp32", f"{seconds:.0f} s")
        table.add_row("peak memory", "3 GiB", f"{memory:.2f} GiB")
    Console().print(table)


if __name__ == "__main__":
    main()
