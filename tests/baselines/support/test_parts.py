"""Caches of attention and MLP outputs against blocks written out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.fora import Fora
from baselines.pab import PAB
from baselines.smoothcache import WHAT, SmoothCache
from baselines.taylorseer import TaylorSeer, TaylorSeries
from baselines.tgate import TGate
from harness.contracts import Method
from harness.cost.macs import KINDS
from harness.errors import UsageError
from harness.models.families.basic import block_cost
from harness.sampling.pipeline import Pipeline
from harness.training import calibration
from harness.training.calibration import find
from tests.baselines.recording import Step, record, run_parts

Compute = Callable[[], torch.Tensor]


def check_reuse(pipeline: Pipeline, method: Method, runs: Callable[[int, str], bool]) -> None:
    """Each part is computed by hand where ``runs(step, part)``, else it is what it was last."""
    kept: dict[tuple[int, str], torch.Tensor] = {}
    for i, step in enumerate(record(pipeline, method)):

        def part(block: int, name: str, compute: Compute, i: int = i) -> torch.Tensor:
            if runs(i, name):
                kept[block, name] = compute()
            return kept[block, name]

        assert torch.allclose(run_parts(pipeline, step, part), step.left, atol=1e-5)


def test_the_block_written_by_hand_is_the_block(pipeline: Pipeline) -> None:
    check_reuse(pipeline, Fora(interval=1), lambda step, part: True)


def test_fora_equals_one_written_by_hand(pipeline: Pipeline) -> None:
    check_reuse(pipeline, Fora(interval=3), lambda step, part: step % 3 == 0)


def test_pab_equals_one_written_by_hand(pipeline: Pipeline) -> None:
    """10 steps: timesteps 999, 899, 799, ... 99; steps 2 to 8 lie between 800 and 100."""
    pipeline.steps = 10
    every = {"attn1": 2, "attn2": 4, "ff": 1}
    check_reuse(pipeline, PAB(), lambda i, part: not 2 <= i <= 8 or i % every[part] == 0)


def test_smoothcache_equals_one_written_by_hand(pipeline: Pipeline) -> None:
    pipeline.steps = 8
    method = SmoothCache(0.5)
    with method.attach(pipeline):
        known = find(SmoothCache(), pipeline.plan(), WHAT)
    assert known is not None
    runs = method.full_steps(known.curves)
    assert {kind: sum(flags) for kind, flags in runs.items()}.keys() == {KIND_OF[part] for part in parts(pipeline)}
    assert any(not all(flags) for flags in runs.values())
    check_reuse(pipeline, method, lambda step, part: runs[KIND_OF[part]][step])


KIND_OF = {"attn1": "attention", "attn2": "cross", "ff": "mlp"}


def parts(pipeline: Pipeline) -> list[str]:
    return ["attn1", "ff"] if pipeline.is_class_conditional else ["attn1", "attn2", "ff"]


def test_smoothcache_schedule_follows_its_curves() -> None:
    """Skipped while the distance to the last run stays below alpha, and at most ``most`` times in a row."""
    curves = {
        "mlp-1": [0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9],
        "mlp-2": [0, 0, 0.2, 0.2, 0.2, 0.2, 0.9],
        "mlp-3": [0, 0, 0] + [0.3] * 4,
    }
    assert SmoothCache(0.15).full_steps(curves)["mlp"] == [True, False, True, False, True, False, True]
    assert SmoothCache(0.25).full_steps(curves)["mlp"] == [True, False, False, True, False, False, True]
    assert SmoothCache(0.5, most=1).full_steps(curves)["mlp"] == [True, False, True, False, True, False, True]


def test_smoothcache_curves_are_relative_distances(pipeline: Pipeline) -> None:
    """Against outputs collected by hand from the same tuning samples, chunk by chunk."""
    outputs: list[torch.Tensor] = []
    hooks = [block.ff.register_forward_hook(lambda m, a, output: outputs.append(output)) for block in pipeline.blocks]
    prompts = calibration.tuning_prompts(pipeline.folder)  # type: ignore[arg-type]
    pipeline.generate(prompts, calibration.SEED, range(len(prompts)))
    for hook in hooks:
        hook.remove()
    with SmoothCache().attach(pipeline):
        known = find(SmoothCache(), pipeline.plan(), WHAT)
    assert known is not None
    depth = len(pipeline.blocks)
    distances = [
        float((outputs[2 * depth + b] - outputs[b]).abs().mean() / outputs[2 * depth + b].abs().mean()) for b in range(depth)
    ]
    assert known.curves["mlp-2"][2] == pytest.approx(np.mean(distances), rel=1e-4)


def test_taylorseer_equals_one_written_by_hand(pipeline: Pipeline) -> None:
    """Full at 0, 1, 4, 7 (interval 3 after a warm-up of 2): divided differences over the distance of the last two."""
    pipeline.steps = 9
    recorded: dict[tuple[int, str], list[tuple[int, torch.Tensor]]] = {}
    for i, step in enumerate(record(pipeline, TaylorSeer(interval=3, order=2))):

        def part(block: int, name: str, compute: Compute, i: int = i) -> torch.Tensor:
            history = recorded.setdefault((block, name), [])
            if i in (0, 1, 4, 7):
                history.append((i, compute()))
                return history[-1][1]
            return forecast(history, i)

        assert torch.allclose(run_parts(pipeline, step, part), step.left, atol=2e-5)


def forecast(history: list[tuple[int, torch.Tensor]], step: int) -> torch.Tensor:
    """Second order: f + f' x + f'' x^2 / 2, where f'' needs the slope that was known at the full step before."""
    (t, f), slopes = history[-1], []
    for (a, early), (b, late) in itertools.pairwise(history):
        slopes.append((late - early) / (b - a))
    x, value = step - t, f.clone()
    if slopes:
        value = value + slopes[-1] * x
    if len(slopes) > 1:
        value = value + (slopes[-1] - slopes[-2]) / (t - history[-2][0]) * x * x / 2
    return value


@pytest.mark.parametrize("order", [1, 2, 3])
def test_taylorseer_forecasts_polynomials_of_its_order(order: int) -> None:
    """After enough full steps at distance 1 the forecast of t^order, one step ahead, errs only by higher differences."""
    series = TaylorSeries(order)
    for t in range(6):
        series.keep((torch.tensor([float(2 * t + 3)], dtype=torch.float64),), t)
    assert series.recall(7)[0].item() == pytest.approx(17.0)  # a line: all higher differences vanish
    series.keep((torch.tensor([1.0]),), 0)
    assert series.recall(1)[0].item() == 1.0  # a new call has forgotten the last


def test_tgate_equals_one_written_by_hand(opened: dict[str, Pipeline]) -> None:
    """Full for 2 of 4 steps; then one branch, with the mean of both branches' last cross-attention."""
    pipeline = opened["pixart"]
    pipeline.steps, pipeline.guidance = 4, pipeline.guidance.at(2.0)
    kept: dict[int, torch.Tensor] = {}
    steps: list[Step] = record(pipeline, TGate(0.5))
    assert [len(step.entered) for step in steps] == [10, 10, 5, 5]
    for i, step in enumerate(steps):

        def part(block: int, name: str, compute: Compute, i: int = i) -> torch.Tensor:
            if name != "attn2":
                return compute()
            if i < 2:
                kept[block] = compute()
                return kept[block]
            return (kept[block][:5] + kept[block][5:]) / 2

        assert torch.allclose(run_parts(pipeline, step, part), step.left, atol=1e-5)


def test_tgate_after_the_gate_is_the_conditional_branch(opened: dict[str, Pipeline]) -> None:
    """What is told to the blocks after the gate is what the second half (conditional in PixArt) was told before."""
    pipeline = opened["pixart"]
    pipeline.steps, pipeline.guidance = 4, pipeline.guidance.at(2.0)
    early, late = record(pipeline, TGate(0.5))[1:3]
    assert torch.equal(late.told["encoder_hidden_states"], early.told["encoder_hidden_states"][5:])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fora(0),
        lambda: TaylorSeer(interval=0),
        lambda: TaylorSeer(order=-1),
        lambda: TaylorSeer(warmup=0),
        lambda: SmoothCache(-1.0),
        lambda: SmoothCache(most=4),
        lambda: PAB(attention=0),
        lambda: PAB(low=900),
        lambda: TGate(0.0),
        lambda: TGate(1.5),
    ],
)
def test_impossible_options_are_refused(make: Callable[[], Method]) -> None:
    with pytest.raises(UsageError):
        make()


def test_shares_of_a_block_are_those_of_its_multiplications() -> None:
    """DiT-XL/2 at 256: 4 N d^2 + 2 N^2 d for attention, 8 N d^2 for the MLP, per sample 7 d^2 + 256 d for the embedding."""
    d, n = 1152, 256
    macs = block_cost(d, n, 0, 0, own_embedding=True)
    whole = 12 * n * d * d + 2 * n * n * d + 7 * d * d + 256 * d
    assert macs.block == whole
    assert macs.share("attn1") == pytest.approx((4 * n * d * d + 2 * n * n * d) / whole, abs=1 / 1024)
    assert macs.share("ff") == pytest.approx(8 * n * d * d / whole, abs=1 / 1024) and macs.share("attn2") == 0
    text = block_cost(d, n, 120, 1152, own_embedding=False)
    assert sum(text.share(part) for part in ("attn1", "attn2", "ff")) == sum(text.shares(text.block).values()) == 1.0
    assert text.skippable(KINDS) == ("attn1", "attn2", "ff") and text.skippable(["cross"]) == ("attn2",)


def test_counted_parts_agree_with_a_count_of_multiplications(pipeline: Pipeline) -> None:
    """PyTorch's own counter, on a full run and on FORA: the quotient is that of the counted block evaluations."""
    pipeline.steps = 8

    def in_blocks(method: Method) -> int:
        with FlopCounterMode(display=False) as flops, method.attach(pipeline):
            pipeline.generate(["cat"], 0, [0])
        counts = flops.get_flop_counts()
        return sum(sum(found.values()) for name, found in counts.items() if name.count(".") == 2 and "transformer_blocks" in name)

    measured = in_blocks(Fora(2)) / in_blocks(Fora(1))
    plan = pipeline.plan()
    assert measured == pytest.approx(Fora(2).plan(plan).block_evaluations / plan.block_evaluations, abs=0.01)
