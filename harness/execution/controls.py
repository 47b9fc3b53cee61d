"""Null controls: what a metric says of images and prompts that are known to be wrong, or known to be the same.

Each is made from the full run's first images. ``identical`` is those images again; ``jpeg50`` copies them through JPEG of quality
50; ``shuffled`` gives each the prompt of another; ``constant`` fills each with its own mean colour; ``noise`` and ``black`` hold
nothing of it. A metric that cannot tell the compared methods from the last four measures nothing that matters in this run.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from harness.contracts import Batch
from harness.results import BASELINE, Failure, Score
from harness.statistics import Interval, mean_interval, score_difference

IMAGES = 100  # of the full run, at most
JPEG_QUALITY = 50
IDENTICAL, JPEG, SHUFFLED = "identical", "jpeg50", "shuffled"
NULLS = (SHUFFLED, "constant", "noise", "black")  # what a metric must find worse than every method
CONTROLS = (IDENTICAL, JPEG, *NULLS)


def shuffled(prompts: Sequence[str]) -> list[str]:
    """The prompts rotated by the shift that gives most of them another text, the one nearest to half way round."""
    n = len(prompts)
    shifts = sorted(range(1, n), key=lambda shift: abs(shift - n / 2))
    best = max(shifts, key=lambda shift: sum(prompts[i] != prompts[i - shift] for i in range(n)), default=0)
    return [prompts[i - best] for i in range(n)]


def as_jpeg(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] after JPEG of quality 50."""
    copies = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=JPEG_QUALITY)
        with Image.open(buffer) as copy:
            copies.append(torch.from_numpy(np.array(copy)).permute(2, 0, 1))
    return torch.stack(copies)


def _constant(images: torch.Tensor) -> torch.Tensor:
    colours = images.float().mean(dim=(2, 3), keepdim=True).round().to(torch.uint8)
    return colours.expand_as(images).clone()


def _noise(images: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)


MAKE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    IDENTICAL: torch.clone,
    JPEG: as_jpeg,
    SHUFFLED: torch.clone,
    "constant": _constant,
    "noise": _noise,
    "black": torch.zeros_like,
}


def control_batch(control: str, full: Batch) -> Batch:
    """The control that belongs to a batch of the full run."""
    prompts = shuffled(full.prompts) if control == SHUFFLED else full.prompts
    return Batch(MAKE[control](full.images), prompts, full.indices, full.images)


Verdict = Literal["the same", "told apart", "confused", "not read", "not measured"]


@dataclass(frozen=True)
class Separation:
    """What one metric makes of one control.

    ``harm``: by how much the control scores worse than the same images of the full run, in the metric's unit (for a metric
    that measures the distance to the full run: its score, smaller is nearer, with its sign turned where higher is better).
    ``confused_with``: the methods whose own harm is not clearly below it. ``not read``: the control differs from the full run
    in nothing that this metric looks at (prompts, for FID). ``the same``: the identical run scores as it must.
    """

    control: str
    verdict: Verdict
    harm: Interval | None = None
    confused_with: tuple[str, ...] = ()
    reason: str = ""


def separations(
    metric: str, scores: Mapping[tuple[str, str], Score | Failure], controls: Mapping[tuple[str, str], Score | Failure]
) -> tuple[Separation, ...]:
    """How a metric sees each control beside the methods; ``scores`` and ``controls`` are keyed by (label, metric).

    A method and the control are held against the full run on equal terms: each on its own images, of equal number.
    """
    full, same = scores.get((BASELINE, metric)), controls.get((IDENTICAL, metric))
    methods = {label: harm_of(s, full) for (label, name), s in scores.items() if name == metric}
    measured = {label: harm for label, harm in methods.items() if harm is not None}
    if isinstance(full, Score) != isinstance(same, Score):
        measured = {}  # one side has nothing to be held against
    return tuple(_separation(control, controls.get((control, metric)), same, measured) for control in CONTROLS)


def harm_of(score: Score | Failure | None, full: Score | Failure | None) -> Interval | None:
    """How much worse than the full run's a score is, with its interval; None where it was not measured.

    Where the full run has no value (PSNR to itself is infinite), the score itself with the sign that makes larger worse.
    """
    if not isinstance(score, Score):
        return None
    found = score_difference(score, full) if isinstance(full, Score) else mean_interval(score.per_image)
    return found if score.direction == "lower" else Interval(-found.value, -found.high, -found.low)


def _separation(
    control: str, score: Score | Failure | None, same: Score | Failure | None, methods: Mapping[str, Interval]
) -> Separation:
    if not isinstance(score, Score) or not methods:
        reason = score.reason if isinstance(score, Failure) else "no control was scored" if score is None else "no method was"
        return Separation(control, "not measured", reason=reason)
    harm = harm_of(score, same)
    assert harm is not None
    if isinstance(same, Score) and np.array_equal(score.per_image, same.per_image):
        return Separation(control, "the same" if control == IDENTICAL else "not read", harm)
    if control in NULLS:
        confused = tuple(label for label, own in methods.items() if not harm.low > own.high)
        return Separation(control, "confused" if confused else "told apart", harm, confused)
    seen = harm.excludes_zero if isinstance(same, Score) else True
    return Separation(control, "told apart" if seen else "confused", harm, () if seen else (BASELINE,))


def is_blind(found: Iterable[Separation]) -> bool:
    """Whether a metric confuses any method with shuffled prompts, constant colours, noise or black.

    JPEG copies are a yardstick, not a null: many methods do more harm than they, and some metrics need not see them.
    """
    return any(s.control in NULLS and s.verdict == "confused" for s in found)
