"""The benchmark of scoring compares pipelines by the deviation of a feature, and keeps the rows of other networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import scoring
from tests.published import draw_images


def means(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=(2, 3))


def test_a_run_of_one_small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    images = draw_images(6, side=32)
    deviation = float(means(images).std(dim=0).square().mean().sqrt())
    pipelines = {"first": means, "same": means, "off": lambda images: means(images) + torch.tensor([0.0, 0.0, 3 * deviation])}
    monkeypatch.setattr(scoring, "dinov2", lambda folder, device: pipelines)
    monkeypatch.setattr(scoring, "PACKAGES", ("torch",))
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"rows": [{"network": "clip"}, {"network": "dinov2", "pipeline": "of before"}]}))
    scoring.main(images=6, others=6, side=32, device="cpu", weights=None, to=file, only=["dinov2"])
    kept, *rows = json.loads(file.read_text())["rows"]
    assert kept == {"network": "clip"} and [row["pipeline"] for row in rows] == ["first", "same", "off"]
    assert [row["equal"] for row in rows] == [True, True, False] and all(row["images_per_s"] > 0 for row in rows)
    assert (rows[1]["largest"], rows[1]["rms"]) == (0, 0)
    np.testing.assert_allclose([rows[2]["largest"], rows[2]["rms"]], [3, 3**0.5], rtol=1e-4)
    assert rows[0]["versions"].keys() == {"torch"} and capsys.readouterr().out.count("images/s") == 3


def test_clean_fids_resize_is_bicubic_with_antialias_in_float() -> None:
    for side in (64, 400):
        images = draw_images(2, side=side)
        wanted = F.interpolate(images.double(), size=(299, 299), mode="bicubic", antialias=True).clamp(0, 255)
        torch.testing.assert_close(scoring.cleanfid_resize(images).double(), wanted, rtol=0, atol=0.05)
