"""The gate's promise on simulated machines, through the benchmark that measures it on a real one."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import gate_power as power
from benchmarks.disguised import Disguised
from harness.config.spec import load_spec
from reports.analysis.gate import GateVerdict

FAIL = GateVerdict.FAIL


def line(rng: np.random.Generator, process: int, number: int, slowed: bool) -> dict[str, Any]:
    """A run of 120 calls: load that wanders by tens of per cent and hits workload and call alike, bursts of waiting, 6% of noise
    a call, and 0.6% that differ from run to run and that no number of calls shows."""
    own = np.log(0.06) + rng.normal(0, 0.006) + (np.log(1.05) if slowed else 0.0)
    load = rng.normal(0, 0.2) + np.cumsum(rng.normal(0, 0.02, 241))
    timings = []
    for i in range(241):
        cpu = np.exp((np.log(0.02) if i % 2 == 0 else own) + load[i] + rng.normal(0, 0.06))
        waiting = rng.exponential(0.5) if rng.random() < 0.5 else 0.0
        timings.append([i % 2 == 0, round(cpu * (1 + waiting) * 1e6), round(cpu * 1e6), 10**8 + int(rng.normal(0, 10**5))])
    environment = {"machine_key": "m", "created": f"2026-01-01 {process}-{number}"}
    spec = load_spec("tiny-text").identity() | {"seed": 1}
    return {"process": process, "run": number, "slowed": slowed, "environment": environment, "spec": spec, "timings": timings}


def test_alarms_and_power_on_a_simulated_noisy_machine() -> None:
    """A/A gates and gates of a 5% slow-down, drawn as the benchmark draws them: few alarm, nine of ten are caught."""
    rng = np.random.default_rng(11)
    lines = [line(rng, process, i, slowed) for process in range(power.PROCESSES) for i, slowed in enumerate(power.PLAN)]
    alarms = sum(result.verdict is FAIL for result in power.gates(lines, False, 24, 3))
    caught = sum(result.verdict is FAIL for result in power.gates(lines, True, 16, 3))
    assert alarms <= 1 and caught >= 14


def test_a_slowed_method_burns_its_share() -> None:
    """5% more processor time a call, and the label of the method that it slows."""

    def generate(*_: object) -> str:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        return "images"

    pipeline: Any = SimpleNamespace(generate=generate)
    method: Any = SimpleNamespace(label="full", attach=lambda pipeline: nullcontext())
    slowed = Disguised(method, partial(power.slowed, share=0.5))
    with slowed.attach(pipeline):
        start = time.process_time()
        assert pipeline.generate() == "images"
        assert 0.07 <= time.process_time() - start <= 0.11
    assert pipeline.generate is generate and slowed.label == "full"
