"""All metrics by name. A new one is one file and one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.contracts import Metric
from metrics import feature_distance, frechet, kernel
from metrics.clip_iqa import ClipIqa
from metrics.clip_score import ClipScore
from metrics.context import MetricContext
from metrics.converged import SUFFIX, ToConverged
from metrics.feature_distance import FeatureDistance
from metrics.frechet import FrechetDistance
from metrics.kernel import KernelDistance
from metrics.lpips import LpipsDistance
from metrics.manifold import Manifold, Side
from metrics.preference import AESTHETIC, HPSV2, IMAGE_REWARD, PICKSCORE, Preference
from metrics.psnr import Psnr
from metrics.ssim import MsSsim, Ssim

MetricTable = Mapping[str, Callable[[MetricContext], Metric]]


def _fid(c: MetricContext) -> Metric:
    features = c.networks.frechet_features
    return FrechetDistance(features, c.reference_for(features), c.tiny)


def _sfid(c: MetricContext) -> Metric:
    features = c.networks.spatial_features
    return FrechetDistance(features, c.reference_for(features, spatial=True), c.tiny, frechet.SFID)


def _fd_dinov2(c: MetricContext) -> Metric:
    features = c.networks.dino_features
    return FrechetDistance(features, c.reference_for(features), c.tiny, frechet.FD_DINOV2)


def _kid(c: MetricContext) -> Metric:
    features = c.networks.frechet_features
    return KernelDistance(features, c.features_for(features), c.tiny)


def _cmmd(c: MetricContext) -> Metric:
    features = c.networks.clip_features
    return KernelDistance(features, c.features_for(features), c.tiny, kernel.CMMD)


def _manifold(c: MetricContext, side: Side) -> Metric:
    features = c.networks.frechet_features
    return Manifold(features, c.features_for(features), side, c.tiny)


def _clip_iqa(c: MetricContext, pair: str) -> Metric:
    return ClipIqa(c.networks.iqa, c.networks.iqa_prompts, pair, c.tiny)


def _fd_efficientnet(c: MetricContext) -> Metric:
    return FrechetDistance(c.judge, c.reference_for(c.judge), kind=frechet.FD_EFFICIENTNET)


def _kd_efficientnet(c: MetricContext) -> Metric:
    return KernelDistance(c.judge, c.features_for(c.judge), kind=kernel.KD_EFFICIENTNET)


_PLAIN: MetricTable = {
    "fid": _fid,
    "sfid": _sfid,
    "kid": _kid,
    "precision": lambda c: _manifold(c, "precision"),
    "recall": lambda c: _manifold(c, "recall"),
    "cmmd": _cmmd,
    "fd_dinov2": _fd_dinov2,
    "clip_score": lambda c: ClipScore(c.networks.clip, c.tiny),
    "clip_iqa": lambda c: _clip_iqa(c, "good"),
    "clip_iqa_noisy": lambda c: _clip_iqa(c, "clean"),
    "clip_iqa_colourful": lambda c: _clip_iqa(c, "colourful"),
    "clip_iqa_natural": lambda c: _clip_iqa(c, "natural"),
    "image_reward": lambda c: Preference(c.networks.preference("image_reward"), IMAGE_REWARD, c.tiny),
    "pickscore": lambda c: Preference(c.networks.preference("pickscore"), PICKSCORE),
    "hpsv2": lambda c: Preference(c.networks.preference("hpsv2"), HPSV2),
    "aesthetic": lambda c: Preference(c.networks.preference("aesthetic"), AESTHETIC),
    "psnr": lambda c: Psnr(),
    "ssim": lambda c: Ssim(),
    "ms_ssim": lambda c: MsSsim(),
    "lpips": lambda c: LpipsDistance(c.networks.lpips("alex")),
    "lpips_vgg": lambda c: LpipsDistance(c.networks.lpips("vgg"), "lpips_vgg", "LPIPS (VGG) to the full run"),
    "feature_distance": lambda c: FeatureDistance(c.networks.fidelity_features, c.tiny),
    "kd_efficientnet": _kd_efficientnet,
    "fd_efficientnet": _fd_efficientnet,
    "distance_efficientnet": lambda c: FeatureDistance(c.judge, kind=feature_distance.EFFICIENTNET),
}
PAIRED = ("psnr", "ssim", "ms_ssim", "lpips", "lpips_vgg", "feature_distance", "distance_efficientnet")


def _to_converged(name: str) -> Callable[[MetricContext], Metric]:
    return lambda c: ToConverged(_PLAIN[name](c), c.reference_steps)


METRICS: MetricTable = {**_PLAIN, **{f"{name}{SUFFIX}": _to_converged(name) for name in PAIRED}}
