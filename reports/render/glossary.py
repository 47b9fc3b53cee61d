"""What the methods of a run are, a few words each, for a reader who meets their names for the first time."""

from __future__ import annotations

from collections.abc import Mapping

from harness.results import A_A, BASELINE
from harness.storage.records import Run
from reports.analysis.overview import Overview

EXPLAINED = 3  # names explained below the plot; the table's tooltips explain all of them
PLAIN = ("full", "steps")  # explain themselves
MEANINGS: Mapping[str, str] = {
    "full": "the full run: every step, every block",
    "steps": "the same solver with fewer steps",
    "solver": "another ODE solver",
    "spacing": "timesteps closer together at the end",
    "bespoke": "a solver whose coefficients were learned for this model",
    "deepcache": "deep blocks reused between full steps",
    "delta-dit": "reuses the change that the front or the rear blocks made",
    "encoder": "runs the first blocks on key steps only",
    "step-rehash": "skips late blocks on steps that resemble their neighbour",
    "fora": "attention and MLP reused between full steps",
    "taylorseer": "forecasts the blocks' outputs between full steps",
    "smoothcache": "reuses each layer's output for as long as it hardly changes",
    "pab": "reuses attention for several steps",
    "t-gate": "freezes cross-attention after some of the steps",
    "guidance-reuse": "runs the null branch of guidance on some of the steps only",
    "first-block": "skips the other blocks where the first one's output hardly changes",
    "teacache": "skips all blocks until the accumulated change is too large",
    "magcache": "skips all blocks while the accumulated error is small",
    "budcache": "runs a searched share of the steps and reuses the blocks' change on all others",
    "learning-to-cache": "a trained router decides which layers are reused",
    "harmonica": "a router trained along the cached trajectory decides what is reused",
    "deediff": "leaves the network early where it is certain enough",
    "ecad": "a caching schedule found by evolutionary search",
    "t-stitch": "a smaller model does the first steps",
    "bottleneck": "the steps in the middle run at half the resolution",
    "int8": "8-bit integer weights",
    "fp8": "8-bit floating-point weights and inputs",
    "compile": "blocks compiled by torch.compile",
    "cuda-graphs": "blocks replayed as CUDA graphs",
    "diffusers-cache": "a cache that diffusers brings",
    "cache-dit": "DBCache of the package cache-dit",
    "distilled": "a student model that was distilled to few steps",
    "ilf": "Inner Loop Feedback, a trained module that lets blocks run again",
    "ilf-untrained": "Inner Loop Feedback with an untrained module, for its cost only",
}


def meaning(run: Run, label: str) -> str:
    """What a method is, part by part; empty where none of its parts is one of ours."""
    record = run.described.get(label)
    names = dict.fromkeys(part.name for part in record.parts) if record else {}
    return "; ".join(f"{name}: {MEANINGS[name]}" for name in names if name in MEANINGS)


def explained(run: Run, found: Overview) -> list[tuple[str, str]]:
    """Name and meaning of what a reader meets first: parts of the accelerators, then of the other rows, at most EXPLAINED."""
    labels = [line.label for line in found.accelerators]
    labels += [line.label for line in found.lines if line.label not in (BASELINE, A_A, *labels)]
    names = dict.fromkeys(part.name for label in labels if label in run.described for part in run.described[label].parts)
    return [(name, MEANINGS[name]) for name in names if name in MEANINGS and name not in PLAIN][:EXPLAINED]
