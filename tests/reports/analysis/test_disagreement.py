"""Where a distance of distributions and the images themselves contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.results import Score
from harness.storage.records import Run
from reports.analysis.disagreement import disagreements
from reports.analysis.roles import role_of

Make = Callable[..., Run]


def renamed(run: Run, quality: dict[str, np.ndarray]) -> Run:
    """``far`` becomes a FID: pseudo-values that are best for the accelerator; ``good`` an image reward, with changes."""
    scores = {}
    for (label, metric), score in run.scores.items():
        assert isinstance(score, Score)
        if metric == "far":
            values = {"full": 2.0, "ilf(steps=10)": 1.0}.get(label, 3.0) + 0.1 * np.random.default_rng(len(label)).normal(size=64)
            scores[label, "fid"] = replace(score, metric="fid", influence=values, per_image=None, value=float(values.mean()))
        else:
            values = score.influence - quality.get(label, np.zeros(64))
            own = {"influence": values, "per_image": values, "value": float(values.mean())}
            scores[label, "image_reward"] = replace(score, metric="image_reward", **own)  # type: ignore[arg-type]
    return replace(run, spec=dict(run.spec) | {"metrics": ["fid", "image_reward"]}, scores=scores)


def test_a_better_fid_with_a_worse_reward_is_named_with_the_worst_images(make_run: Make) -> None:
    losses = np.zeros(64)
    losses[[5, 40]] = 9.0, 6.0
    run = renamed(make_run(), {"ilf(steps=10)": 3.0 + losses})
    full, fewer = disagreements(run)
    assert (full.method, full.rival, full.better, full.worse) == ("ilf(steps=10)", "full", ("fid",), ("image_reward",))
    assert fewer.rival == "fewer steps at equal cost"
    for found in (full, fewer):
        assert [loser.index for loser in found.worst[:2]] == [5, 40]
        assert found.worst[0].loss > found.worst[1].loss > found.worst[2].loss


def test_agreement_is_none(make_run: Make) -> None:
    assert disagreements(renamed(make_run(), {"ilf(steps=10)": np.full(64, -0.2)})) == []


def test_a_loss_within_the_noise_is_none(make_run: Make) -> None:
    noise = np.random.default_rng(0).normal(0, 1, 64)
    run = make_run()
    assert [d for d in disagreements(renamed(run, {"ilf(steps=10)": noise - noise.mean() - 0.1})) if d.rival == "full"] == []


def test_prompts_go_with_the_images_where_they_are_known(make_run: Make) -> None:
    run = make_run(n=4)
    from reports.analysis.evidence import Evidence

    assert Evidence(run).prompts == ("red apple", "<b>x</b>", "cat | face", "hot dog")


@pytest.mark.parametrize(
    ("role", "metrics"),
    [("distribution", "fid kid sfid cmmd"), ("fidelity", "psnr ssim feature_distance"), ("judgement", "clip_score image_reward")],
)
def test_roles(role: str, metrics: str) -> None:
    assert {role_of(metric) for metric in metrics.split()} == {role}
