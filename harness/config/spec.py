"""The experiment specification: one YAML file, validated before the first denoising step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.config.anchors import Anchor
from harness.config.solvers import check_solver
from harness.errors import UsageError, did_you_mean
from harness.paths import ROOT
from harness.storage.documents import PRESET_BYTES, parse_yaml
from harness.storage.files import read_small

MOST = 10**7  # images or rounds: more is a typing error


class TimingSpec(BaseModel):
    """Interleaved timing: every method once per round, after ``warmup`` separate rounds; ``batches`` are further batch sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rounds: int = Field(8, ge=0, le=MOST)
    batch: int = Field(16, ge=1, le=MOST)
    warmup: int = Field(1, ge=0, le=MOST)
    batches: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @property
    def all_batches(self) -> tuple[int, ...]:
        """Every batch size that is timed, ``batch`` first; reports compare methods at that one."""
        return tuple(dict.fromkeys((self.batch, *self.batches)))


RANDOM = "random:"  # pipelines of random weights: their name begins so
LATER = ("true_guidance", "negative_prompt", "height", "width")  # fields that older identities do not have
PRECISION_OF = {"bfloat16": "bf16", "float16": "fp16"}  # the arithmetic of weights that are not float32


class ExperimentSpec(BaseModel):
    """What is compared, on what, and how it is scored. Relative paths are relative to the installation.

    ``pipeline`` is a folder, ``hub:OWNER/NAME[@REVISION]`` (``+OWNER/NAME`` where the transformer has a repository of its
    own), or ``random:ARCHITECTURE``. ``dtype`` is that of the weights; float32 weights are computed with as ``precision``
    says. ``compile``: the timed rounds run every block through torch.compile. ``prompts``: see harness/config/prompts.py.
    ``true_guidance``: of a second branch beside the scale that a guidance-distilled model is told. ``height`` and ``width``:
    pixels of its images, together; 0: the model's own.
    ``offload``: where the parts of the pipeline lie while others work, see harness/sampling/residency.py; ``auto``: on the
    device, or ``text`` where they are predicted not to fit. ``decode_dtype``: of the decoder; ``auto``: as ``dtype``, or float32
    where it is known to overflow in float16. ``decode_tiled``: images are decoded in overlapping tiles, in less memory.
    ``reference_steps``: with so many steps the plain pipeline counts as converged; metrics NAME_converged are held against it.
    ``anchors`` and ``memory_gib`` (needed on the device) are notes for the reader. ``training`` is what ``ilf-bench train``
    trains; the method's package validates it, and it affects nothing that a run measures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    title: str = ""
    task: Literal["class", "text"]
    pipeline: str
    solver: str = "dpm++"
    steps: int = Field(20, ge=1, le=1000)
    guidance: float = Field(1.5, ge=0, allow_inf_nan=False)
    true_guidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    negative_prompt: str = ""
    height: int = Field(0, ge=0, le=16384)
    width: int = Field(0, ge=0, le=16384)
    samples: int = Field(256, ge=1, le=MOST)
    batch: int = Field(32, ge=1, le=MOST)
    seed: int = Field(1000, ge=0, le=2**32)
    prompts: str
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    methods: tuple[str, ...] = Field(min_length=1)
    metrics: tuple[str, ...]
    scorers: str = "zoo/scorers"
    reference: str | None = None
    reference_steps: int | None = Field(None, ge=1, le=1000)
    timing: TimingSpec = TimingSpec()
    compile: bool = False
    offload: Literal["auto", "none", "text", "model"] = "auto"
    decode_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    decode_tiled: bool = False
    anchors: tuple[Anchor, ...] = ()
    memory_gib: float | None = Field(None, gt=0, allow_inf_nan=False)
    training: dict[str, Any] = {}

    @field_validator("solver")
    @classmethod
    def _known_solver(cls, name: str) -> str:
        return check_solver(name)

    @model_validator(mode="after")
    def _one_arithmetic(self) -> ExperimentSpec:
        allowed = PRECISION_OF.get(self.dtype, self.precision)
        if self.precision not in ("auto", allowed):
            raise ValueError(f"precision {self.precision} needs dtype float32; {self.dtype} weights compute in {allowed}")
        return self

    @model_validator(mode="after")
    def _reference_is_a_method(self) -> ExperimentSpec:
        n = self.reference_steps
        if n is not None and (n <= self.steps or f"steps:{n}" not in self.methods):
            raise ValueError(
                f"reference_steps {n} must be more than the full run's {self.steps}, and steps:{n} among the methods"
            )
        return self

    @model_validator(mode="after")
    def _both_sides(self) -> ExperimentSpec:
        if bool(self.height) != bool(self.width):
            raise ValueError("height and width are named both, in pixels, or neither")
        return self

    def identity(self) -> dict[str, Any]:
        """All that decides results, and no notes. What came later is left out where it is not used: identities stay."""
        unused = {name for name in LATER if getattr(self, name) == ExperimentSpec.model_fields[name].default}
        return self.model_dump(mode="json", exclude={"anchors", "memory_gib", "training", *unused})

    def digest(self) -> str:
        """16 hexadecimal digits that identify the experiment."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]


def is_random(pipeline: str) -> bool:
    """Whether a specification's pipeline has random weights.

    >>> is_random("random:dit-xl-2-256"), is_random("zoo/tiny-dit")
    (True, False)
    """
    return pipeline.startswith(RANDOM)


def preset_names() -> list[str]:
    """The presets that ship with the product."""
    return sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


def load_spec(preset: str, overrides: dict[str, Any] | None = None) -> ExperimentSpec:
    """A bundled preset by name or a YAML file by path, with command-line overrides. Raises :class:`UsageError`."""
    path = ROOT / "presets" / f"{preset}.yaml"
    if not path.exists():
        path = Path(preset)
    if not path.is_file():
        known = preset_names()
        remedy = f"{did_you_mean(preset, known)}see ilf-bench list presets"
        raise UsageError(expected=f"a preset ({', '.join(known)}) or a YAML file", got=repr(preset), remedy=remedy)
    try:
        content = parse_yaml(read_small(path, PRESET_BYTES))
    except (ValueError, OSError) as error:
        raise UsageError(expected=f"valid YAML in {path}", got=str(error), remedy="correct that line") from error
    if not isinstance(content, dict):
        raise UsageError(expected=f"a mapping in {path}", got=type(content).__name__, remedy="see presets/tiny-text.yaml")
    return build_spec(_merged(content, overrides or {}), str(path))


def _merged(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``content`` with fields replaced, those of a section one by one."""
    sections = {k: content[k] | v for k, v in overrides.items() if isinstance(v, dict) and isinstance(content.get(k), dict)}
    return content | overrides | sections


def build_spec(content: dict[str, Any], origin: str) -> ExperimentSpec:
    """Validate a mapping; every wrong field is named in one message."""
    try:
        return ExperimentSpec(**content)
    except ValidationError as error:
        wrong = error.errors()
        lines = [": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")))) for e in wrong]
        known = [*ExperimentSpec.model_fields, *TimingSpec.model_fields]
        hints = [did_you_mean(str(e["loc"][-1]), known) for e in wrong if e["type"] == "extra_forbidden"]
        remedy = f"{''.join(hints)}edit {origin} or the option"
        unknown = any(e["type"] == "extra_forbidden" for e in wrong)
        expected = f"fields out of {', '.join(ExperimentSpec.model_fields)}" if unknown else "valid settings"
        raise UsageError(expected=expected, got="; ".join(lines), remedy=remedy) from error
