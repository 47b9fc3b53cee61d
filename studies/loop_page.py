"""The tables of docs/results/ilf-loop.md, from the lines of docs/results/ilf-loop.jsonl."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from harness.paths import ROOT
from harness.results import FloatArray
from studies.converged import ERRORS
from studies.loop_forms import MODELS
from studies.study_tables import table

RESULTS = ROOT / "docs" / "results" / "ilf-loop.jsonl"
COMPARED = {"latent": "latent error", "rmse": "pixel error"}


def rows() -> list[dict[str, Any]]:
    """All results so far."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def append(row: dict[str, Any]) -> None:
    """Add a result."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def page() -> str:
    """A table for each model and length of training: means over trainings, and how much less error than the adapter's."""
    found, parts = rows(), []
    plain = dict.fromkeys(row["form"] for row in found if not row["minutes"])
    lower = [f"{name} lower than the adapter's by" for name in COMPARED.values()]
    head = ("form", "description", "trainings", "block evaluations", *ERRORS, *lower)
    for model, minutes in sorted({(row["model"], row["minutes"]) for row in found if row["minutes"]}):
        names = [name for name in (*MODELS[model].forms, *plain) if _of(found, model, name, minutes)]
        ratios = {error: {name: _ratios(found, model, name, minutes, error) for name in names} for error in COMPARED}
        gains = [_gains(of_error, plain) for of_error in ratios.values()]
        lines = [[*_line(found, model, name, minutes), *(gain[name] for gain in gains)] for name in names]
        parts += [f"## {MODELS[model].folder.name}, {minutes:g} min of one thread", table(*head, rows=lines)]
        repeated = [name for name, x in ratios["latent"].items() if len(x) > 1 and name not in plain]
        if adapters := _of(found, model, "adapter", minutes):
            parts.append(_pairing(adapters, repeated))
    return "\n\n".join(parts) + "\n"


def _pairing(adapters: Mapping[int, dict[str, Any]], repeated: Sequence[str]) -> str:
    """What the gains of a table are held against, and where their intervals come from."""
    errors = ", ".join(f"{row['latent']:.4f} (seed {seed})" for seed, row in sorted(adapters.items()))
    text = f"A gain is against the adapter that was trained with the same seed; the adapters' latent errors: {errors}."
    return f"{text} Deviation between trainings: that of {', '.join(repeated)}." if repeated else text


def _of(found: Sequence[dict[str, Any]], model: str, form: str, minutes: float) -> dict[int, dict[str, Any]]:
    """The trainings of a form by their seed; rows of plain steps belong to every length of training."""
    lengths = (minutes,) if form in MODELS[model].forms else (0, minutes)
    return {row["seed"]: row for row in found if (row["model"], row["form"]) == (model, form) and row["minutes"] in lengths}


def _line(found: Sequence[dict[str, Any]], model: str, form: str, minutes: float) -> list[str]:
    mine, forms = _of(found, model, form, minutes), MODELS[model].forms
    means = {name: float(np.mean([row[name] for row in mine.values()])) for name in ("blocks", *ERRORS)}
    what = forms[form].what if form in forms else "plain steps"
    errors = [f"{means[name]:.{digits}f}" for name, digits in ERRORS.items()]
    return [form, what, str(len(mine)) if form in forms else "", f"{means['blocks']:.0f}", *errors]


def _ratios(found: Sequence[dict[str, Any]], model: str, form: str, minutes: float, error: str) -> FloatArray:
    """Log ratios [n] of a form's error to that of the adapter of the same seed and about the same cost."""
    rival = f"adapter{form.partition('-9')[1]}"
    mine, adapters = (_of(found, model, name, minutes) for name in (form, rival))
    alike = [seed for seed in mine if seed in adapters and form != rival and _at_one_cost(mine[seed], adapters[seed])]
    return np.array([np.log(mine[seed][error] / adapters[seed][error]) for seed in alike])


def _at_one_cost(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return abs(float(one["blocks"]) / float(other["blocks"]) - 1) < 0.1


def _gains(ratios: Mapping[str, FloatArray], apart: Container[str]) -> dict[str, str]:
    """Of each form's log ratios: the mean gain, with Student's 95% interval over trainings.

    The variance between trainings is one for all forms of a table, estimated from those that were trained more than once, so that
    a form that was trained once has an interval, too. Rows ``apart`` have their own.
    """
    shared = [x - x.mean() for name, x in ratios.items() if len(x) > 1 and name not in apart]
    gains = {}
    for name, found in ratios.items():
        residuals = [found - found.mean()] if name in apart and len(found) else shared
        freedom = sum(len(x) - 1 for x in residuals)
        gains[name] = _gain(found, residuals, freedom) if len(found) else ""
    return gains


def _gain(ratios: FloatArray, residuals: Sequence[FloatArray], freedom: int) -> str:
    mean, n = float(ratios.mean()), len(ratios)
    if not freedom:
        return f"{1 - np.exp(mean):.0%} (one training)"
    deviation = (sum(float((x**2).sum()) for x in residuals) / freedom) ** 0.5
    half = float(stdtrit(freedom, 0.975)) * deviation / n**0.5
    return f"{1 - np.exp(mean):.0%} ({1 - np.exp(mean + half):.0%}..{1 - np.exp(mean - half):.0%})"
