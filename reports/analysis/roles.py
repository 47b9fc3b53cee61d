"""What kind of question a metric answers, by its name."""

from __future__ import annotations

from typing import Literal

Role = Literal["distribution", "fidelity", "judgement"]

DISTRIBUTION = ("fid", "sfid", "kid", "cmmd", "fd_", "kd_", "precision", "recall", "density", "coverage", "inception_score")
FIDELITY = ("psnr", "ssim", "ms_ssim", "lpips", "dists", "feature_distance", "distance_", "mse")


def role_of(metric: str) -> Role:
    """``distribution``: of all images together; ``fidelity``: to the full run's image; ``judgement``: of each image by itself."""
    if any(metric.startswith(name) for name in DISTRIBUTION):
        return "distribution"
    return "fidelity" if any(metric.startswith(name) for name in FIDELITY) else "judgement"
