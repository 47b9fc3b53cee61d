"""A model that was distilled to few steps, beside its teacher: other weights with steps, guidance and solver of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from baselines.support.caching import at_least
from baselines.third_party.lora import merged, read_adapters
from harness.config.solvers import OWN, check_solver
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.models.architecture import class_of
from harness.models.reading import CLASSES, load_part, read_seconds, read_settings, stored_shapes
from harness.results import UpfrontCost
from harness.sampling.patching import patched
from harness.sampling.settling import settle_scheduler
from harness.storage.hashing import contents_digest

if TYPE_CHECKING:
    from torch import nn

    from harness.sampling.pipeline import Pipeline

FREE = ("_class_name", "_diffusers_version", "_name_or_path", "_commit_hash")  # settings that decide no shape and no arithmetic


@dataclass(frozen=True)
class Distilled:
    """The weights of a student in the place of its teacher's: those of a ``transformer``, or the teacher's with a ``lora`` added.

    ``lora``: a safetensors file, added ``scale`` times. ``transformer``: a pipeline's folder, or that of a transformer of the
    same settings. ``steps`` and ``guidance`` (1: none; for a model that is told its scale, that scale) are the student's.
    ``solver``: by name; default: the ``scheduler`` in the student's folder, else the pipeline's.
    """

    innermost: ClassVar[int] = 3  # whatever else there is works on the student
    lora: str | None = None
    transformer: str | None = None
    steps: int = 4
    guidance: float = 1.0
    solver: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if (self.lora is None) == (self.transformer is None):
            got = "neither" if self.lora is None else "both"
            raise UsageError(
                expected="either lora=FILE or transformer=FOLDER", got=got, remedy="for example distilled:lora=FILE:steps=4"
            )
        at_least("steps", self.steps, 1)
        at_least("guidance", self.guidance, 0)
        if self.solver is not None:
            check_solver(self.solver)

    @property
    def label(self) -> str:
        """For example ``distilled(turbo, steps=4, guidance=1)``."""
        name = Path(self.lora or str(self.transformer)).name
        solver = f", {self.solver}" if self.solver else ""
        scale = f", scale={self.scale:g}" if self.scale != 1 else ""
        return f"distilled({name}, steps={self.steps}, guidance={self.guidance:g}{solver}{scale})"

    @property
    def source(self) -> Path:
        """The LoRA's file, or the folder of the transformer. Raises :class:`UsageError` where there is none."""
        path = Path(self.lora or str(self.transformer)).expanduser()
        if self.lora is not None:
            if not path.is_file():
                raise UsageError(expected=f"a safetensors file {path}", got="none", remedy="distilled:lora=FILE")
            return path
        for folder in (path / "transformer", path):
            if (folder / "config.json").is_file():
                return folder
        raise UsageError(expected=f"a transformer in {path}", got="none", remedy="distilled:transformer=FOLDER")

    @property
    def scheduler(self) -> Path | None:
        """The student's own scheduler, where it has one and no solver was named."""
        folder = self.source.parent / "scheduler"
        own = self.transformer is not None and self.solver is None and (folder / "scheduler_config.json").is_file()
        return folder if own else None

    def plan(self, plan: Plan) -> Plan:
        """The student's steps and guidance at the same cost for each call of the model."""
        if self.transformer is not None:
            check_same(read_settings(self.source / "config.json"), plan.backbone.config, self.source)
        plan = plan.choosing("the weights", "the guidance")
        solver = OWN if self.scheduler else self.solver
        plan = (plan if solver is None else plan.with_solver(solver)).with_steps(self.steps)
        guidance = guided(plan.guidance, self.guidance)
        steps = tuple(replace(cost, branches=guidance.branches) for cost in plan.steps)
        return replace(plan, steps=steps, guidance=guidance, backbone=replace(plan.backbone, weights=self._digest()))

    def reads(self, plan: Plan) -> list[Path]:
        """The weights, and the scheduler."""
        return [self.source, *filter(None, [self.scheduler])]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """The parameters that were trained, and the seconds of it where a record lies beside them."""
        source = self.source
        if self.lora is not None:
            trained = sum(adapter.parameters for adapter in read_adapters(source).values())
            return UpfrontCost(read_seconds(source.with_name("training.json")), trained)
        trained = sum(torch.Size(shape).numel() for shape in stored_shapes(source).values())
        return UpfrontCost(read_seconds(source.parent / "training-transformer.json"), trained)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """The student inside the context; behind it every weight is the very tensor that it was."""
        with ExitStack() as stack:
            stack.enter_context(patched(pipeline, "weights", self._digest()))
            stack.enter_context(patched(pipeline, "guidance", guided(pipeline.guidance, self.guidance)))
            stack.enter_context(exchanged(pipeline.transformer, self._weights(pipeline.transformer)))
            if self.scheduler:
                stack.enter_context(patched(pipeline, "own_scheduler", _scheduler(self.scheduler)))
            solver = OWN if self.scheduler else self.solver
            stack.enter_context(pipeline.sampling(steps=self.steps, solver=solver))
            yield

    def _digest(self) -> str:
        return f"{contents_digest([self.source])} {self.scale:g}"

    def _weights(self, transformer: nn.Module) -> Mapping[str, torch.Tensor]:
        if self.lora is not None:
            return merged(self.source, transformer, self.scale)
        own: Any = transformer
        check_same(read_settings(self.source / "config.json"), dict(own.config), self.source)
        loaded = load_part(type(transformer), self.source, "a transformer", "restore it")
        return dict(loaded.named_parameters())


def guided(known: Guidance, scale: float) -> Guidance:
    """The teacher's guidance at the student's scale. A model that is told its scale runs no second branch."""
    return known.at(scale) if known.told is None else replace(known, told=scale, scale=known.off)


def check_same(config: Mapping[str, Any], teacher: Mapping[str, Any], folder: Path) -> None:
    """Raise :class:`NotMeasured` where the settings of a student are not its teacher's: its weights would mean something else."""
    if config.get("_class_name") not in (teacher.get("_class_name"), None) and "_class_name" in teacher:
        raise _other(folder, "_class_name", teacher["_class_name"], config["_class_name"])
    for name in teacher.keys() & config.keys() - set(FREE):
        if _plain(config[name]) != _plain(teacher[name]):
            raise _other(folder, name, teacher[name], config[name])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _other(folder: Path, name: str, wanted: object, got: object) -> NotMeasured:
    return NotMeasured(
        expected=f"a student with {name} {wanted}",
        got=f"{got} in {folder}",
        remedy="run it as a pipeline of its own, and compare the two runs",
    )


def _scheduler(folder: Path) -> Any:
    settings = read_settings(folder / "scheduler_config.json")
    name = str(settings.get("_class_name"))
    if name not in CLASSES["diffusers"] or not name.endswith("Scheduler"):
        raise ArtifactError(expected=f"a scheduler of diffusers in {folder}", got=name, remedy="name a solver")
    return settle_scheduler(class_of(name).from_config(settings))


@contextmanager
def exchanged(transformer: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Other values in the parameters of these names inside the context; what they replace waits on the host.

    Raises :class:`ArtifactError` where a name is none of the model's, or a shape is another.
    """
    parameters = dict(transformer.named_parameters())
    for name, value in weights.items():
        if name not in parameters or parameters[name].shape != value.shape:
            found = list(parameters[name].shape) if name in parameters else "no such weight"
            raise ArtifactError(
                expected=f"{name} of shape {list(value.shape)}",
                got=f"{found} in the model",
                remedy="name a student of this model",
            )
    held: dict[str, torch.Tensor] = {}
    try:
        for name, value in weights.items():
            parameter = parameters[name]
            held[name] = parameter.data.cpu()
            parameter.data = value.detach().to(parameter.device, parameter.dtype)
        yield
    finally:
        for name, value in held.items():
            parameters[name].data = value.to(parameters[name].device)
