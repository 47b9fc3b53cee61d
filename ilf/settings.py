"""Everything that decides a feedback module: its architecture, its inference schedule and its training, in one class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from harness.errors import UsageError, did_you_mean
from harness.sampling.grids import whole_grid

HIDDEN_STATE_BYTES = 2  # hidden states are stored as bfloat16
ROUND_BYTES = 1e9  # of hidden states in one round; four rounds are remembered
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Blocks = tuple[int, int] | Literal["last", "middle", "last-third"]
STAGES = {  # each stage's numbers of steps, without which its other fields have no effect
    ("optimiser_steps",): ("lr", "batch", "rounds", "runs", "remembered", "forced", "teacher_steps"),
    ("end_to_end_steps", "image_steps"): ("end_to_end_batch", "end_to_end_lr", "end_to_end_grids", "initial_solver"),
    ("image_steps",): ("image_targets", "recombined"),
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class IlfSettings:
    """A feedback module's architecture, schedule and training; also a preset's ``training`` section, and part of a checkpoint.

    Architecture (:class:`ilf.module.FeedbackModule` says what the source states and what is our choice):

    - ``loop``: first and last looped block, 1-based and inclusive; ``last`` is the last block alone, ``last-third`` the last
      third of the blocks, ``middle`` the middle 12/28 of them, our reading of the paper's 332 block evaluations. ``inner_pass``:
      whether these blocks run twice.
    - ``partial``: steps with feedback are partial ones, see :class:`ilf.partial.PartialSteps`; they need end-to-end training.
    - ``depth``, ``separate``, ``gating``, ``transition_embedding``, ``context``, ``branches``, ``guidance_input``,
      ``inner_time``: see :class:`ilf.module.FeedbackModule`. ``copy``: the module starts as a copy of the blocks before the
      loop's end, not from scratch.

    Schedule, see :func:`chosen_steps` for the texts:

    - ``steps``: denoising steps that the module is used with. ``power``: spacing of the timesteps, and ``shift`` that of
      flow matching, see :func:`harness.sampling.grids.power_grid`. ``feedback``: the steps
      with feedback. ``guidance_distilled``: the steps with feedback on which the module stands for guidance as well, so that
      only the conditional branch runs. ``guidance_carried``: steps on which only the conditional branch runs, and the difference
      of both predictions is that of the last step with both; they need end-to-end training.

    Training on single transitions from one timestep to the next:

    - ``grids``: step counts that are trained for. ``optimiser_steps`` (0: only end to end) with peak learning rate ``lr``,
      each on ``batch`` transitions. ``target``: the loss, see :class:`ilf.objective.Objective`, and ``teacher_steps`` its count.
    - ``trajectories`` of the teacher are recorded from noise of ``seed``. ``rounds``: how often the module's own trajectories
      are collected, ``runs`` for each step count (None: as many as keep the hidden states of a round within 1 GB); the
      transitions of the last ``remembered`` rounds are learned from. ``forced``: they start from the teacher's states only.
    - ``gradient_checkpointing``: activations are recomputed in the backward pass: less memory, more time.

    End-to-end training through full trajectories of few steps, which also learns a solver for each step count of
    ``end_to_end_grids`` (none: ``grids``), from ``initial_solver`` on the timesteps of ``power``
    (``unipc`` takes free timesteps with flow matching alone):

    - ``end_to_end_steps`` optimiser steps of ``end_to_end_batch`` trajectories whose error is that of the final latents, with
      peak learning rate ``end_to_end_lr``; then ``image_steps`` whose error is that of the decoded images of ``image_targets``
      converged trajectories of the teacher. The last ``recombined`` of these have captions of words drawn from all captions, so
      that the module does not memorise a few.

    ``start``: a trained module of the same architecture, a folder or the name of one inside the pipeline's, whose weights and
    learned solvers this training starts from; it then counts with its own training time.

    ``budget``: block evaluations per image within which the schedule is searched after training. How much training gives
    good quality at full size is not known.
    """

    loop: Blocks = "last"
    inner_pass: bool = True
    partial: bool = False
    depth: Count = 1
    separate: bool = False
    gating: Literal["time", "fixed"] = "time"
    transition_embedding: bool = True
    context: bool = True
    branches: Literal["conditional", "both"] = "conditional"
    guidance_input: bool = False
    inner_time: Literal["same", "next", "middle"] = "same"
    copy: bool = False
    steps: Count = 8
    power: Annotated[float, Field(gt=0, lt=10)] = 1.5
    shift: Positive | None = None
    initial_solver: Literal["dpm++", "unipc"] = "dpm++"
    feedback: str = "all"
    guidance_distilled: str = "none"
    guidance_carried: str = "none"
    grids: Annotated[tuple[Count, ...], Field(min_length=1)] = (5, 6, 8, 10)
    optimiser_steps: NonNegative = 8_000
    lr: Positive = 2e-3
    batch: Count = 64
    target: Literal["second-order", "first-order", "teacher-steps", "fad"] = "second-order"
    teacher_steps: Count = 2
    trajectories: Count = 1_536
    seed: int = 0
    rounds: Count = 16
    runs: Count | None = None
    remembered: Count = 4
    forced: bool = False
    gradient_checkpointing: bool = False
    end_to_end_steps: NonNegative = 0
    end_to_end_batch: Count = 32
    end_to_end_lr: Positive = 2e-4
    end_to_end_grids: tuple[Count, ...] = ()
    image_steps: NonNegative = 0
    image_targets: Count = 2_048
    recombined: NonNegative = 0
    start: str | None = None
    budget: Positive | None = None

    def __post_init__(self) -> None:
        for text in (self.feedback, self.guidance_distilled, self.guidance_carried):
            chosen_steps(text, self.timesteps(max(self.all_grids)))
        if (self.end_to_end_steps or self.image_steps) and self.guidance_input:  # a learned solver belongs to one scale
            raise UsageError(
                expected="one guidance scale with end-to-end training",
                got="guidance_input",
                remedy="set end_to_end_steps or guidance_input, not both",
            )
        if self.target == "teacher-steps" and self.context:
            raise UsageError(
                expected="context=False with target=teacher-steps, whose noised data have no step before",
                got="context=True",
                remedy="edit context",
            )
        if not (self.optimiser_steps or self.end_to_end_steps or self.image_steps):
            raise UsageError(
                expected="training steps", got="none of optimiser_steps, end_to_end_steps and image_steps", remedy="edit them"
            )
        if self.partial:
            self._check_partial()
        elif self.target != "fad" and self.branches == "both" and self.guidance_distilled != "all":
            raise UsageError(
                expected=f"branches=conditional or guidance_distilled=all with target={self.target}",
                got="feedback on both branches",
                remedy="use target=fad for the paper's form",
            )
        if self.guidance_carried != "none":
            self._check_carried()
        if self.start is not None and not (self.end_to_end_steps or self.image_steps):
            raise UsageError(
                expected="end-to-end training from a start, which also learns its solvers",
                got="none of end_to_end_steps and image_steps",
                remedy="edit them",
            )
        if self.recombined > self.image_targets:
            raise UsageError(
                expected=f"at most all {self.image_targets} image_targets recombined",
                got=str(self.recombined),
                remedy="edit recombined",
            )

    def _check_partial(self) -> None:
        needed: dict[str, Any] = {"inner_pass": True, "guidance_distilled": "none", "guidance_carried": "none"}
        self._need("partial", needed | {"inner_time": "same", "optimiser_steps": 0})
        self._need_whole_start("feedback", "partial")

    def _check_carried(self) -> None:
        needed = {"branches": "conditional", "guidance_distilled": "none", "optimiser_steps": 0}
        self._need("guidance_carried", needed)
        self._need_whole_start("guidance_carried", "guidance_carried")

    def _need(self, what: str, needed: Mapping[str, Any]) -> None:
        wrong = {name: getattr(self, name) for name, value in needed.items() if getattr(self, name) != value}
        if wrong:
            raise UsageError(
                expected=f"{what} with " + ", ".join(f"{name}={value}" for name, value in needed.items()),
                got=", ".join(f"{name}={value}" for name, value in wrong.items()),
                remedy="edit these fields",
            )

    def _need_whole_start(self, field: str, what: str) -> None:
        text = getattr(self, field)
        if any(0 in chosen_steps(text, self.timesteps(n)) for n in self.end_to_end_counts):
            raise UsageError(
                expected=f"{field} without the first step, which is whole, with {what}",
                got=f"{field}={text}",
                remedy=f"use {field}=odd, last-K or step numbers from 1 on",
            )

    @classmethod
    def of(cls, section: Mapping[str, Any], task: str = "text") -> IlfSettings:
        """Settings from a preset's ``training`` section; its key ``form`` names other defaults, see :data:`FORMS`.

        ``task``: the preset's, ``class`` or ``text``. Raises :class:`UsageError` that names every wrong field.

        >>> IlfSettings.of({"form": "paper", "steps": 10}).resolved(depth=28).loop
        (9, 20)
        """
        given = dict(section)
        form = given.pop("form", "ours")
        if form not in FORMS:
            raise UsageError(expected=f"training.form out of {', '.join(FORMS)}", got=repr(form), remedy="edit the form")
        try:
            settings = cls(**(FORMS[form] | given))
        except ValidationError as error:
            wrong = error.errors()
            known = cls.__dataclass_fields__
            hints = [did_you_mean(str(e["loc"][0]), known) for e in wrong if e["type"] == "unexpected_keyword_argument"]
            raise UsageError(
                expected="a valid training section",
                got="; ".join(f"training.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong),
                remedy=f"{''.join(hints)}edit the preset's training section or the option",
            ) from error
        if task == "class" and settings.recombined:
            raise UsageError(
                expected="training.recombined only with captions",
                got="class names, which cannot be recombined",
                remedy="remove it",
            )
        return settings

    def without_effect(self, section: Mapping[str, Any]) -> list[str]:
        """A note for each stage that these settings leave out, and of which ``section``, where they come from, names fields."""
        notes = []
        for steps, fields in STAGES.items():
            if named := [] if any(getattr(self, name) for name in steps) else sorted(section.keys() & set(fields)):
                notes.append(f"no effect: {', '.join(named)} in training, where {' and '.join(f'{name}=0' for name in steps)}")
        return notes

    @property
    def blocks(self) -> tuple[int, int]:
        """First and last looped block, 1-based, of settings that were :meth:`resolved`."""
        assert not isinstance(self.loop, str), "settings of a module are resolved"
        return self.loop

    @property
    def looped(self) -> int:
        """How many blocks run a second time, of settings that were :meth:`resolved`."""
        first, last = self.blocks
        return last - first + 1 if self.inner_pass else 0

    @property
    def solver(self) -> str:
        """The named solver that the module is trained for."""
        return "dpm++1" if self.target in ("first-order", "teacher-steps") else "dpm++"

    @property
    def end_to_end_counts(self) -> tuple[int, ...]:
        """The step counts of the end-to-end training."""
        return self.end_to_end_grids or self.grids

    @property
    def all_grids(self) -> tuple[int, ...]:
        """The step counts of every stage."""
        return (*self.grids, *self.end_to_end_grids)

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Those of a step count, see :func:`harness.sampling.grids.whole_grid`."""
        return whole_grid(steps, self.power, self.shift)

    def resolved(self, depth: int, hidden_values: int = 1, shift: float | None = None) -> IlfSettings:
        """These settings on a backbone of ``depth`` blocks, whose hidden state of one image has ``hidden_values`` values.

        ``loop`` becomes numbers, ``shift`` that of the backbone unless one was chosen, ``runs`` a count, ``rounds`` at most one
        per optimiser step, and ``steps`` is brought within the step counts that are trained for. Raises :class:`UsageError` on a
        loop that the backbone does not have, and where no step would carry feedback.
        """
        if not any(chosen_steps(self.feedback, self.timesteps(n)) for n in self.end_to_end_counts):
            raise UsageError(expected="at least one step with feedback", got=repr(self.feedback), remedy="edit feedback")
        named = {"last": (depth, depth), "middle": middle(depth), "last-third": (depth - max(1, depth // 3) + 1, depth)}
        first, last = named[self.loop] if isinstance(self.loop, str) else self.loop
        if not 1 <= first <= last <= depth:
            raise UsageError(expected=f"1 <= first <= last <= {depth}", got=f"{first} and {last}", remedy="edit the loop")
        fitting = int(ROUND_BYTES / (3 * HIDDEN_STATE_BYTES * hidden_values * sum(self.grids)))
        return replace(
            self,
            loop=(first, last),
            shift=self.shift or shift,
            runs=self.runs or max(1, min(256, self.trajectories, fitting)),
            rounds=max(1, min(self.rounds, self.optimiser_steps)),
            steps=min(max(self.steps, min(self.all_grids)), max(self.all_grids)),
        )

    def content(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


FORMS: dict[str, dict[str, Any]] = {
    "ours": {},
    "adapter": {"inner_pass": False},
    # no second pass, end to end for one step count: minutes for a small model
    "short": {
        "inner_pass": False,
        "grids": (8,),
        "steps": 8,
        "trajectories": 1_024,
        "optimiser_steps": 0,
        "end_to_end_steps": 400,
        "end_to_end_lr": 1e-3,
    },
    # every second step runs the last third of the blocks only
    "partial": {"loop": "last-third", "partial": True, "feedback": "odd", "optimiser_steps": 0, "end_to_end_steps": 3_200},
    # one block from scratch, a scale per looped block, both branches, FAD at t/2, trailing timesteps
    "paper": {
        "loop": "middle",
        "target": "fad",
        "gating": "fixed",
        "transition_embedding": False,
        "context": False,
        "branches": "both",
        "power": 1.0,
        "rounds": 1,
        "forced": True,
    },
}


def middle(depth: int) -> tuple[int, int]:
    """The middle 12 of 28 blocks, in proportion: 1-based first and last (9 and 20 of 28)."""
    looped = max(1, round(depth * 12 / 28))
    first = (depth - looped) // 2 + 1
    return first, first + looped - 1


def chosen_steps(text: str, timesteps: Sequence[int]) -> frozenset[int]:
    """0-based numbers of the steps that ``text`` chooses.

    ``all``, ``none``, ``odd`` (every second one from the second on), ``first-K``, ``last-K``, ``paper-K`` (K steps spread evenly
    by i * (n / m): our reading of the
    paper's "feedback-aware inference scheduling", whose exact form is not published), ``above-T`` (those that start at
    timestep T or more), ``between-S-T`` (at S or more and below T), or numbers joined by ``.`` or ``,``.

    >>> [sorted(chosen_steps(text, (999, 749, 499, 249))) for text in ("first-2", "paper-2", "above-700", "0,3")]
    [[0, 1], [0, 2], [0, 1], [0, 3]]
    """
    steps = len(timesteps)
    window = re.fullmatch(r"above-(\d+)|between-(\d+)-(\d+)", text)
    if window:
        low, high = int(window[1] or window[2]), int(window[3] or 1000)
        return frozenset(i for i, t in enumerate(timesteps) if low <= t < high)
    named = re.fullmatch(r"(first|last|paper)-(\d+)", text)
    if named:
        count = min(int(named[2]), steps)
        every = {
            "first": range(count),
            "last": range(steps - count, steps),
            "paper": (int(i * steps / count) for i in range(count)),
        }
        return frozenset(every[named[1]])
    named_sets = {"all": range(steps), "none": (), "odd": range(1, steps, 2)}
    if text in named_sets:
        return frozenset(named_sets[text])
    numbers = re.split(r"[.,]", text)
    if not all(n.isdecimal() and int(n) < steps for n in numbers):
        raise UsageError(
            expected=f"all, none, odd, first-K, last-K, paper-K, above-T, between-S-T or step numbers below {steps}",
            got=repr(text),
            remedy="edit feedback= or guidance_distilled=",
        )
    return frozenset(int(n) for n in numbers)
