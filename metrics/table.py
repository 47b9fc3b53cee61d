"""All metrics by name. A new one is one file and one row here."""

from __future__ import annotations

from collections.abc import Callable

from harness.contracts import Metric
from metrics.clip_iqa import ClipIqa
from metrics.clip_score import ClipScore
from metrics.context import MetricContext
from metrics.feature_distance import FeatureDistance
from metrics.frechet import FrechetDistance
from metrics.image_reward import ImageReward
from metrics.kernel import KernelDistance
from metrics.psnr import Psnr
from metrics.ssim import Ssim

METRICS: dict[str, Callable[[MetricContext], Metric]] = {
    "fid": lambda c: FrechetDistance(c.frechet_features, c.frechet_reference, tiny=True),
    "kid": lambda c: KernelDistance(c.frechet_features, c.feature_reference, tiny=True),
    "clip_score": lambda c: ClipScore(c.clip, tiny=True),
    "clip_iqa": lambda c: ClipIqa(c.clip, "good", tiny=True),
    "clip_iqa_noisy": lambda c: ClipIqa(c.clip, "clean", tiny=True),
    "clip_iqa_colourful": lambda c: ClipIqa(c.clip, "colourful", tiny=True),
    "image_reward": lambda c: ImageReward(c.reward, tiny=True),
    "psnr": lambda c: Psnr(),
    "ssim": lambda c: Ssim(),
    "feature_distance": lambda c: FeatureDistance(c.fidelity_features, tiny=True),
}
