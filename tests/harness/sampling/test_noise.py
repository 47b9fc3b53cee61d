"""The same starting noise for every batch size, order and worker."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from harness.sampling.noise import sample_seed
from harness.sampling.pipeline import Pipeline
from tests.conftest import PROMPTS, open_pipeline, starting_noise

SHAPE = (4, 8, 8)
N = 70


def in_batches(size: int) -> torch.Tensor:
    return torch.cat([starting_noise(5, range(i, min(i + size, N)), SHAPE) for i in range(0, N, size)])


def of_worker(indices: list[int]) -> torch.Tensor:
    return starting_noise(5, indices, SHAPE)


def test_noise_is_bit_identical_for_any_batch_size_order_and_worker() -> None:
    whole = in_batches(64)
    assert torch.equal(in_batches(1), whole) and torch.equal(in_batches(7), whole)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(starting_noise(5, order, SHAPE), whole[order])
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as workers:
        even, odd = workers.map(of_worker, [list(range(0, N, 2)), list(range(1, N, 2))])
    assert torch.equal(even, whole[::2]) and torch.equal(odd, whole[1::2])


def test_noise_differs_between_seeds_and_samples() -> None:
    assert len({sample_seed(seed, index) for seed in range(50) for index in range(50)}) == 2500
    noise = starting_noise(0, range(40), SHAPE).flatten(1)
    correlation = torch.corrcoef(noise) - torch.eye(40)
    assert correlation.abs().max() < 0.35
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


def test_the_pipeline_starts_from_exactly_this_noise(pipeline: Pipeline) -> None:
    seen: list[torch.Tensor] = []
    handle = pipeline.transformer.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    pipeline.generate(PROMPTS[:3], 5, [4, 9, 2])
    handle.remove()
    expected = starting_noise(5, [4, 9, 2], pipeline.latent_shape)
    assert torch.equal(seen[0], torch.cat([expected, expected]))


def test_images_agree_within_one_grey_level_for_any_batch_size(folders: dict[str, Path]) -> None:
    for name in ("dit", "pixart"):
        pipeline = open_pipeline(folders[name], steps=3)
        prompts = [PROMPTS[i % len(PROMPTS)] for i in range(64)]

        def images(size: int, pipeline: Pipeline = pipeline, prompts: list[str] = prompts) -> torch.Tensor:
            chunks = [range(i, min(i + size, 64)) for i in range(0, 64, size)]
            return torch.cat([pipeline.generate([prompts[i] for i in c], 1, c) for c in chunks]).int()

        whole = images(64)
        assert (images(7) - whole).abs().max() <= 1
        assert (images(1)[:8] - whole[:8]).abs().max() <= 1
        order = [5, 3, 60, 0, 33]
        shuffled = pipeline.generate([prompts[i] for i in order], 1, order).int()
        assert (shuffled - whole[order]).abs().max() <= 1
