"""The metrics of published networks keep the contract that ``ilf-bench check`` holds a user's to, and see the null controls.

Networks have random weights in the files that their packages read; the judge has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from harness.contracts import Batch, range_of
from ilf_bench.testing import metric_clauses, null_controls
from metrics.context import MetricContext
from metrics.published.lpips import ALEXNET, VGG16
from metrics.ssim import LEAST_SIDE
from metrics.table import METRICS
from tests.metrics.test_lpips import save_backbone
from tests.metrics.test_published_preference import save_aesthetic, save_pickscore
from tests.published import CLIP_NAME, FULL_STACK, draw_images, save_images, save_open_clip

N, AESTHETIC_WIDTH = 6, 768
BLIND = {"constant": "distinguished", "noise": "distinguished", "black": "distinguished", "shuffled": "not read"}


def of_lpips(folder: Path) -> dict[str, object]:
    return {"lpips": {kind.name: str(save_backbone(kind, folder / kind.file)) for kind in (ALEXNET, VGG16)}}


def of_pickscore(folder: Path) -> dict[str, object]:
    return {"pickscore": save_pickscore(folder).model_dump()}


def of_hpsv2(folder: Path) -> dict[str, object]:
    pytest.importorskip("open_clip", reason=FULL_STACK)
    weights = save_open_clip(folder)
    torch.save({"state_dict": torch.load(weights, weights_only=True)}, folder / "HPS_v2.1_compressed.pt")
    return {"hpsv2": {"model": CLIP_NAME, "weights": str(folder / "HPS_v2.1_compressed.pt")}}


def of_aesthetic(folder: Path) -> dict[str, object]:
    pytest.importorskip("open_clip", reason=FULL_STACK)
    clip = {"model": CLIP_NAME, "pretrained": str(save_open_clip(folder, width=AESTHETIC_WIDTH))}
    return {"clip": clip, "aesthetic": {"weights": str(save_aesthetic(folder / "mlp.pth", AESTHETIC_WIDTH))}}


def of_nothing(folder: Path) -> dict[str, object]:
    return {}


BUILD: dict[str, Callable[[Path], dict[str, object]]] = {
    "lpips": of_lpips,
    "lpips_vgg": of_lpips,
    "ms_ssim": of_nothing,
    "kd_efficientnet": of_nothing,
    "distance_efficientnet": of_nothing,
    "pickscore": of_pickscore,
    "hpsv2": of_hpsv2,
    "aesthetic": of_aesthetic,
}
READS_PROMPTS = ("pickscore", "hpsv2")
PAIRED = ("lpips", "lpips_vgg", "ms_ssim", "distance_efficientnet")


def context_of(name: str, folder: Path) -> MetricContext:
    """Its networks, and a reference of images of the same kind."""
    path = folder / "scorers.yaml"
    path.write_text(yaml.safe_dump(BUILD[name](folder)))
    return MetricContext(path, "text", reference=save_images(draw_images(24, seed=7), folder / "reference"))


def batch_of(name: str) -> Batch:
    """Images that are near the full run's, with prompts that differ."""
    full = draw_images(N, seed=3, side=LEAST_SIDE if name == "ms_ssim" else 64)
    noise = torch.randint(-6, 7, full.shape, generator=torch.Generator().manual_seed(0))
    return Batch((full + noise).clamp(0, 255).to(torch.uint8), [f"a {chr(97 + i)} cat" for i in range(N)], range(N), full)


@pytest.mark.parametrize("name", BUILD)
def test_it_keeps_the_contract_and_sees_the_null_controls(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    context, batch = context_of(name, tmp_path), batch_of(name)
    clauses = metric_clauses(name, METRICS[name], batch, context)
    assert {clause.promise: clause.fault for clause in clauses if clause.fault} == {} and len(clauses) > 10
    metric = METRICS[name](context)
    seen = null_controls(metric, batch)
    assert seen.keys() == BLIND.keys() and (metric.paired, metric.tiny) == (name in PAIRED, False)
    assert range_of(metric) == ((0, 1 if name == "ms_ssim" else None) if name in PAIRED else (None, None))
    assert (seen["shuffled"] == "not read") == (name not in READS_PROMPTS)
    if name in PAIRED or name == "kd_efficientnet":
        assert seen == BLIND, "a distance needs no trained weights to be larger for them"
    else:
        assert not any(verdict.startswith("not measured") for verdict in seen.values())
