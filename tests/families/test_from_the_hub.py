"""Families whose folders have parts of their own, downloaded from a stand-in hub in shards, and refused where they are gated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.errors import ArtifactError
from harness.models.loading import load_pipeline, locate_weights
from ilf_bench.testing import images
from studies.families import CASES
from tests.fake_hub import serve


@pytest.mark.parametrize("name", ["Qwen-Image", "Z-Image", "Chroma"])
def test_shards_from_the_hub_make_the_same_images_as_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case, folder = CASES[name], tmp_path / "hub" / "models" / "toy" / "model"
    case.tiny.build().save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("transformer/*.safetensors"))) > 1
    with serve(tmp_path / "hub", monkeypatch) as hub:
        spec = case.spec(folder).model_copy(update={"pipeline": "hub:toy/model"})
        locate_weights(spec, complete=False)
        assert hub.served and not any(".safetensors@" in file for file in hub.served), "settings alone fetch no weights"
        assert torch.equal(images(load_pipeline(spec), [0]), images(case.open(folder), [0]))
        hub.gated.add("toy/gated")
        with pytest.raises(ArtifactError, match="gated repository"):
            load_pipeline(spec.model_copy(update={"pipeline": "hub:toy/gated"}))
