"""The caches of diffusers as rows: what they cannot do is a reason, what they skip is counted, and nothing of them stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baselines.table import BASELINES
from harness.config.methods import parse_method
from harness.errors import NotMeasured, UsageError
from harness.sampling.pipeline import Pipeline
from ilf_bench.testing import images
from tests.conftest import open_pipeline


def method(text: str) -> object:
    return parse_method(f"diffusers-cache:{text}", BASELINES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sea", "hook"),
        ("first-block:interval=2", "an option of diffusers-cache:first-block: threshold"),
        ("pab:interval=0", "interval of at least 1"),
        ("magcache:-1", "threshold of at least 0"),
        ("taylorseer:modules=all", "modules"),
    ],
)
def test_options_that_a_cache_does_not_have_are_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        method(text)


def test_labels_name_what_was_chosen() -> None:
    assert method("first-block").label == "diffusers-cache(first-block)"  # type: ignore[attr-defined]
    chosen = method("taylorseer:interval=2:modules=parts")
    assert chosen.label == "diffusers-cache(taylorseer, interval=2, modules=parts)"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("dit", "taylorseer:interval=2:warmup=1", "it would silently do nothing"),
        ("pixart", "taylorseer:interval=2:warmup=1", "it would silently do nothing"),
        ("dit", "taylorseer:modules=lite", "its blocks would return zeros"),
        ("dit", "fastercache", "second half is the conditional one"),
        ("pixart", "pab:interval=1:cross=1", "none in 4 calls"),
        ("pixart", "first-block:9", "one image in each call"),
    ],
)
def test_what_it_would_do_wrongly_or_not_at_all_is_not_measured(folders: dict[str, Path], name: str, text: str, why: str) -> None:
    pipeline = open_pipeline(folders[name])
    plain = images(pipeline, (0, 1))
    with pytest.raises(NotMeasured, match=why), method(text).attach(pipeline):  # type: ignore[attr-defined]
        images(pipeline, (0, 1))
    assert torch.equal(images(pipeline, (0, 1)), plain)


def test_an_error_of_the_library_is_a_reason(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of our own outside the transformer's call is not taken for one."""
    with pytest.raises(TypeError, match="ours"), method("first-block:9").attach(pipeline):  # type: ignore[attr-defined]
        raise TypeError("ours")
    monkeypatch.setattr(pipeline.blocks[-1], "forward", _broken)
    with pytest.raises(NotMeasured, match="got TypeError: broken"), method("first-block:9").attach(pipeline):  # type: ignore[attr-defined]
        images(pipeline, (0,))


def _broken(*args: object, **kwargs: object) -> None:
    raise TypeError("broken")


@pytest.mark.parametrize("text", ["first-block:9", "magcache:9:retention=0", "pab:low=0:high=1000", "taylorseer:2:warmup=1"])
def test_it_runs_less_and_changes_the_images(folders: dict[str, Path], text: str) -> None:
    pipeline = open_pipeline(folders["pixart"], steps=6)
    text = text.replace("taylorseer:2", "taylorseer:modules=parts:interval=2")
    plain = images(pipeline, (0,))
    with pipeline.counting() as counter, method(text).attach(pipeline):  # type: ignore[attr-defined]
        assert not torch.equal(images(pipeline, (0,)), plain)
    assert 0 < counter.rows < pipeline.plan().block_evaluations


def test_ilf_is_refused_because_its_blocks_run_twice(pipeline: Pipeline, tmp_path: Path) -> None:
    from tests.methods import build, save_random_module

    both = build("ilf:checkpoint={ilf}+diffusers-cache:pab", save_random_module(pipeline, tmp_path))
    with pytest.raises(NotMeasured, match="blocks that run once a step"):
        both.plan(pipeline.plan())
