"""The contract of a method as one function, for the methods here and for your own (docs/add-a-method.md)."""

from __future__ import annotations

import torch

from harness.contracts import Method
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS

EVERY = [0, 1, 2]


def images(pipeline: Pipeline, indices: list[int]) -> torch.Tensor:
    """Images of seed 0 as signed integers."""
    return pipeline.generate([PROMPTS[i] for i in indices], 0, indices).int()


def state_of(pipeline: Pipeline) -> list[object]:
    """Everything that a method may not leave changed: attributes of every module, the scheduler and the settings."""
    modules = [(name, sorted(vars(module)), len(module._forward_hooks)) for name, module in pipeline.transformer.named_modules()]
    return [modules, id(pipeline.pipe.scheduler), vars(pipeline.pipe.scheduler).keys(), pipeline.steps, pipeline.solver]


def keeps_the_contract(pipeline: Pipeline, method: Method, *, changes: bool = True) -> None:
    """Counted cost, repeatable calls, images that know nothing of each other, and a pipeline that is bit for bit restored."""
    before, plain = state_of(pipeline), images(pipeline, EVERY)
    weights = {key: value.clone() for key, value in pipeline.transformer.state_dict().items()}
    with pipeline.counting() as counter, method.attach(pipeline):
        together, cost = images(pipeline, EVERY), counter.rows
        counter.rows = 0.0
        alone = torch.cat([images(pipeline, [i]) for i in EVERY])
        alone_cost, shuffled = counter.rows, images(pipeline, [2, 0, 1])
        assert torch.equal(images(pipeline, EVERY), together), "state leaks from call to call"
    assert (together - alone).abs().max() <= 1 and alone_cost == cost, "an image depends on its neighbours"
    assert (together[[2, 0, 1]] - shuffled).abs().max() <= 1, "an image depends on its place"
    assert changes != torch.equal(together, plain), "the method changes nothing, or what it should not"
    plan = method.plan(pipeline.plan())
    assert cost / len(EVERY) == plan.block_evaluations if plan.exact else 0 < cost / len(EVERY) <= plan.block_evaluations
    after = pipeline.transformer.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[key], weights[key]) for key in weights)
    assert state_of(pipeline) == before and torch.equal(images(pipeline, EVERY), plain)
