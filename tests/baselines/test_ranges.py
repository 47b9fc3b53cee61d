"""Caches of block ranges against loops written by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from baselines.delta_dit import DeltaDiT
from baselines.encoder_propagation import EncoderPropagation
from baselines.first_block_cache import FirstBlockCache
from baselines.step_rehash import StepRehash
from baselines.teacache import TeaCache
from harness.contracts import Method
from harness.errors import UsageError
from harness.sampling.pipeline import Pipeline
from harness.training import calibration
from harness.training.calibration import Calibration, find
from tests.baselines.recording import block_by_hand, record, run_blocks
from tests.conftest import PROMPTS


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def test_delta_dit_equals_one_written_by_hand(pipeline: Pipeline) -> None:
    """6 blocks, 2 cached, 6 steps of which 3 are early: rear blocks 5 and 6 are skipped at step 1, front ones at 3 and 5."""
    pipeline.steps = 6
    blocks, change = pipeline.blocks, {}
    for i, step in enumerate(record(pipeline, DeltaDiT(interval=2, blocks=2))):
        after_front = step.entered + change["front"] if i in (3, 5) else run_blocks(blocks[:2], step.entered, step.told)
        change["front"] = after_front - step.entered
        middle = run_blocks(blocks[2:4], after_front, step.told)
        left = middle + change["rear"] if i == 1 else run_blocks(blocks[4:], middle, step.told)
        change["rear"] = left - middle
        assert close(left, step.left)


def test_encoder_propagation_equals_one_written_by_hand(pipeline: Pipeline) -> None:
    """The first 4 of 6 blocks at 3 key steps of 6; the rest always, at its own timestep."""
    pipeline.steps = 6
    method, kept = EncoderPropagation(keys=3), torch.zeros(())
    assert method.key_steps(6) == {0, 1, 3}
    for i, step in enumerate(record(pipeline, method)):
        if i in (0, 1, 3):
            kept = run_blocks(pipeline.blocks[:4], step.entered, step.told)
        assert close(run_blocks(pipeline.blocks[4:], kept, step.told), step.left)


def test_key_steps_are_dense_early_and_as_many_as_asked() -> None:
    for steps in range(1, 51):
        for keys in range(1, 51):
            chosen = sorted(EncoderPropagation(keys=keys).key_steps(steps))
            assert len(chosen) == min(keys, steps) and chosen[0] == 0 and chosen[-1] < steps
    gaps = [b - a for a, b in zip([0, 1, 3, 5, 8, 12], [1, 3, 5, 8, 12, 16], strict=True)]
    assert gaps == sorted(gaps)


def test_step_rehash_skips_where_neighbours_agree(pipeline: Pipeline) -> None:
    assert StepRehash(0.9).full_steps([0, 0.99, 0.99, 0.5, 0.95, 0.2]) == [True, False, True, True, False, True]
    method, added = StepRehash(0.2, first=3), torch.zeros(())
    steps, known = record(pipeline, method), find(method, pipeline.plan(), "step-rehash-3")
    assert known is not None
    runs = method.full_steps(known.curves["similarity"])
    assert not all(runs)
    for full, step in zip(runs, steps, strict=True):
        early = run_blocks(pipeline.blocks[:2], step.entered, step.told)
        if full:
            added = run_blocks(pipeline.blocks[2:], early, step.told) - early
        assert close(early + added, step.left)


def test_step_rehash_calibrates_on_the_cosine(pipeline: Pipeline) -> None:
    with StepRehash(first=1).attach(pipeline):
        known = find(StepRehash(first=1), pipeline.plan(), "step-rehash-1")
    assert known is not None
    values = known.curves["similarity"]
    assert len(values) == 4 and values[0] == 0 and all(-1 <= value <= 1 for value in values) and known.seconds > 0


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_first_block_cache_equals_one_written_by_hand(pipeline: Pipeline, guidance: float) -> None:
    """Each image apart; images differ in what they skip."""
    pipeline.steps, pipeline.guidance = 8, pipeline.guidance.at(guidance)
    threshold, decisions = 0.25, []
    steps = record(pipeline, FirstBlockCache(threshold))
    branches = 2 if guidance > 1 else 1
    for image in range(5):
        rows = [image + 5 * branch for branch in range(branches)]
        seen = added = torch.zeros(())
        for i, step in enumerate(steps):
            told = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in step.told.items()}
            first = run_blocks(pipeline.blocks[:1], step.entered[rows], told)
            residual = first - step.entered[rows]
            runs = i == 0 or float((residual - seen).abs().mean() / seen.abs().mean()) > threshold
            decisions.append((image, i, runs))
            if runs:
                seen, added = residual, run_blocks(pipeline.blocks[1:], first, told) - first
            assert close(first + added, step.left[rows])
    patterns = {tuple(runs for number, _, runs in decisions if number == image) for image in range(5)}
    assert len(patterns) > 1, "raise or lower the threshold until the images differ"


@pytest.mark.parametrize(("threshold", "steps"), [(2.8, 4), (3.4, 4), (1.5, 8)])
def test_teacache_equals_one_written_by_hand(pipeline: Pipeline, threshold: float, steps: int) -> None:
    """The polynomial is read from the calibration; everything else is written out."""
    pipeline.steps = steps
    recorded = record(pipeline, TeaCache(threshold))
    known = find(TeaCache(), pipeline.plan(), "teacache")
    assert isinstance(known, Calibration)
    low, high = known.curves["range"]
    for image in range(5):
        rows, before, added, total = [image, image + 5], torch.zeros(()), torch.zeros(()), 0.0
        for i, step in enumerate(recorded):
            told = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in step.told.items()}
            entered, read = step.entered[rows], modulated_by_hand(pipeline, step.entered[rows], told)
            change = float((read - before).abs().mean() / before.abs().mean()) if i else 0.0
            powers = [min(max(change, low), high) ** k for k in range(len(known.curves["polynomial"]))]
            total += max(0.0, sum(c * p for c, p in zip(reversed(known.curves["polynomial"]), powers, strict=True)))
            before = read
            if i in (0, steps - 1) or total >= threshold:
                added, total = run_blocks(pipeline.blocks, entered, told) - entered, 0.0
            assert close(entered + added, step.left[rows])


def modulated_by_hand(pipeline: Pipeline, h: torch.Tensor, told: dict[str, object]) -> torch.Tensor:
    """What self-attention of the first block reads, caught inside a block written by hand."""
    read: list[torch.Tensor] = []
    attention = pipeline.blocks[0].attn1
    hook = attention.register_forward_pre_hook(lambda m, args: read.append(args[0]))
    with torch.inference_mode():
        block_by_hand(pipeline.blocks[0], h, told, lambda name, compute: compute())
    hook.remove()
    return read[0]


def test_teacache_polynomial_is_the_least_squares_fit_of_out_to_in(pipeline: Pipeline) -> None:
    """Both distances collected by hand from the same tuning samples, image by image with both of its branches."""
    pipeline.steps = 8
    with TeaCache().attach(pipeline):
        known = find(TeaCache(), pipeline.plan(), "teacache")
    assert known is not None and len(known.curves["polynomial"]) == 5
    read: list[torch.Tensor] = []
    left: list[torch.Tensor] = []
    hooks = [
        pipeline.blocks[0].attn1.register_forward_pre_hook(lambda m, args: read.append(args[0])),
        pipeline.blocks[-1].register_forward_hook(lambda m, args, output: left.append(output)),
    ]
    prompts = calibration.tuning_prompts(pipeline.folder)  # type: ignore[arg-type]
    pipeline.generate(prompts, calibration.SEED, range(len(prompts)))
    for hook in hooks:
        hook.remove()

    def distances(states: list[torch.Tensor]) -> list[float]:
        rows = [[image, image + len(prompts)] for image in range(len(prompts))]
        return [float((b[r] - a[r]).abs().mean() / a[r].abs().mean()) for a, b in pairwise(states) for r in rows]

    x, y = distances(read), distances(left)
    low, high = known.curves["range"]
    assert (low, high) == (pytest.approx(min(x), rel=1e-4), pytest.approx(max(x), rel=1e-4))
    assert np.polyval(known.curves["polynomial"], x) == pytest.approx(np.polyval(np.polyfit(x, y, 4), x), rel=1e-2)


@pytest.mark.parametrize("method", [FirstBlockCache(0.25), TeaCache(3.5)])
def test_images_of_one_batch_skip_on_their_own(pipeline: Pipeline, method: Method) -> None:
    """Fewer evaluations than all and more than none, and those of five batches of one."""
    costs = []
    with pipeline.counting() as counter, method.attach(pipeline):
        for i in range(5):
            counter.rows = 0.0
            pipeline.generate([PROMPTS[i]], 0, [i])
            costs.append(counter.rows)
        counter.rows = 0.0
        pipeline.generate(PROMPTS, 0, range(5))
    assert counter.rows == sum(costs) and min(costs) < pipeline.plan().block_evaluations


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeltaDiT(interval=0),
        lambda: DeltaDiT(switch=2.0),
        lambda: EncoderPropagation(keys=0),
        lambda: StepRehash(-1.0),
        lambda: FirstBlockCache(-0.1),
        lambda: TeaCache(float("nan")),
    ],
)
def test_impossible_options_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("method", [DeltaDiT(blocks=4), EncoderPropagation(blocks=6), StepRehash(first=7)])
def test_ranges_outside_the_model_are_refused(pipeline: Pipeline, method: Method) -> None:
    with pytest.raises(UsageError):
        method.plan(pipeline.plan())
    with pytest.raises(UsageError), method.attach(pipeline):
        pass
