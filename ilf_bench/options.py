"""Options that several commands share, and what lets a command take a dataclass of options where typer wants a flat signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from harness.errors import UsageError


def _place(text: str) -> Path:
    from harness.storage.locations import place  # fsspec takes a tenth of a second

    return place(text)


def _local(text: str) -> Path:
    from harness.storage.locations import local_path

    return local_path(text)


WRITTEN: dict[str, Any] = {"parser": _local, "metavar": "PATH"}  # a file or folder to write, on this machine
Out = Annotated[
    Path, typer.Option(parser=_place, metavar="FOLDER", help="Folder or URL (s3://...) of all runs and their history.")
]
DEFAULT_OUT = Path("runs")
EXIT_PARTIAL = 4  # finished, but something failed
RunFolder = Annotated[Path, typer.Argument(parser=_place, metavar="RUN", help="A run folder.")]
Scorers = Annotated[
    str | None, typer.Option(help="Folder of the tiny scorers, or a YAML file naming published ones; see docs/metrics.md.")
]
Reference = Annotated[
    str | None, typer.Option(help="Reference of the distribution metrics: features, a statistics file, or a folder of images.")
]
Methods = Annotated[str | None, typer.Option(help="Comma-separated, for example full,steps:12,deepcache:interval=3,ilf.")]
Metrics = Annotated[str | None, typer.Option(help="Comma-separated; see `ilf-bench list metrics`.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file with METHODS or METRICS; your own code is run."),
]

Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="KIND[:WHERE]",
        help="Also log runs that are new there to mlflow:URI, wandb:PROJECT or tensorboard:FOLDER.",
    ),
]

Assigned = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set any field of the preset, for example timing.rounds=3; repeatable."),
]


@dataclass(frozen=True)
class ModelOptions:
    """Whose weights a preset is used with, where, and with which prompts; None leaves the preset's."""

    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None
    pipeline: Annotated[
        str | None, typer.Option(help="Weights: a diffusers folder, hub:OWNER/NAME, or random:ARCHITECTURE (speed only).")
    ] = None
    dtype: Annotated[str | None, typer.Option(help="Dtype of the weights: float32, bfloat16 or float16.")] = None
    prompts: Annotated[
        str | None, typer.Option(help="A .txt, .csv, .tsv, .json, .jsonl or .parquet, hub:OWNER/NAME/FILE, classes:N.")
    ] = None

    height: Annotated[int | None, typer.Option(help="Of the images, in pixels, with --width; default: the model's own.")] = None
    width: Annotated[int | None, typer.Option(help="Of the images, in pixels, with --height.")] = None
    assigned: Assigned = None

    def overrides(self) -> dict[str, Any]:
        """The fields of a preset that these options replace."""
        return with_assigned(self.values(), self.assigned)

    def values(self) -> dict[str, Any]:
        """The fields of a preset that these options replace, but for ``--set``."""
        names = ("device", "pipeline", "dtype", "prompts", "height", "width")
        return given({name: getattr(self, name) for name in names})


def with_assigned(values: dict[str, Any], assignments: Sequence[str] | None) -> dict[str, Any]:
    """``values``, and what ``--set`` assigns. Raises :class:`UsageError` on an unknown field, or one that has both."""
    if not assignments:
        return values
    from ilf_bench.assignments import assigned, joined

    return joined(values, assigned(assignments))


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def flat(work: Callable[..., None]) -> Callable[..., None]:
    """``work`` as typer takes it: every parameter that is a dataclass of options becomes the options that are its fields."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, own in inspect.signature(work, eval_str=True).parameters.items():
        if not is_dataclass(own.annotation):
            parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[name], hints = own.annotation, get_type_hints(own.annotation, include_extras=True)
        for one in fields(own.annotation):
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(one.name, kind, default=one.default, annotation=hints[one.name]))

    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
        work(**values)

    call.__doc__ = work.__doc__
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def chosen_preset(overrides: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where no preset is named: the bundled text-to-image model, or what suits the family of the pipeline that is named, below
    the options. Returns the preset and the fields that replace its own."""
    if overrides.get("pipeline") is None:
        return "tiny-text", overrides
    from ilf_bench.recognise import without_preset

    steps = str(overrides.get("steps", ""))  # one that is no number is refused with the specification
    preset, found = without_preset(overrides["pipeline"], int(steps) if steps.isdecimal() else None)
    timing = found["timing"] | (overrides.get("timing") or {})
    return preset, found | overrides | {"timing": timing}


def split(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated words, or None."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def timing_overrides(rounds: int | None, warmup: int | None, batches: str | None) -> dict[str, Any] | None:
    """Fields of a preset's ``timing`` that options replace, or None. Raises :class:`UsageError` on what is no batch size."""
    changed: dict[str, Any] = {key: n for key, n in (("rounds", rounds), ("warmup", warmup)) if n is not None}
    sizes = split(batches)
    if sizes is not None:
        if not sizes or not all(size.isdecimal() for size in sizes):
            raise UsageError(expected="batch sizes joined by commas", got=repr(batches), remedy="for example --batches 8,1")
        changed |= {"batch": int(sizes[0]), "batches": [int(size) for size in sizes[1:]]}
    return changed or None
