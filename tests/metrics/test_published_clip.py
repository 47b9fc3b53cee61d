"""CLIP score and CLIP-IQA of the published packages with random weights, against independent paths to the same numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.contracts import Batch
from harness.errors import NotMeasured
from metrics.clip_iqa import ClipIqa
from metrics.clip_score import ClipScore
from metrics.kernel import gaussian_kernel
from metrics.published.clip_iqa import PROMPT_PAIRS, PyiqaEncoder
from metrics.published.open_clip import OpenClipEncoder, OpenClipFeatures
from metrics.published.packages import to_pil
from metrics.published.spec import OpenClip
from tests.published import CLIP_NAME, CLIP_WIDTH, FULL_STACK, draw_images, save_open_clip, save_rn50

open_clip: Any = pytest.importorskip("open_clip", reason=FULL_STACK)
pytest.importorskip("pyiqa", reason=FULL_STACK)
PROMPTS = ["a red cat", "two dogs on a hill", "nothing", "a very long text " * 40]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    path = save_open_clip(tmp_path_factory.mktemp("clip"))
    return OpenClipEncoder(OpenClip(model=CLIP_NAME, pretrained=str(path)))


@pytest.fixture(scope="module")
def iqa(tmp_path_factory: pytest.TempPathFactory) -> PyiqaEncoder:
    return PyiqaEncoder(str(save_rn50(tmp_path_factory.mktemp("iqa") / "RN50.pt")))


def test_clip_score_is_a_hand_written_cosine_of_single_images(encoder: OpenClipEncoder) -> None:
    images = draw_images(4)
    found = ClipScore(encoder).measure(Batch(images, PROMPTS, range(4)))[:, 0]
    rows = []
    for image, prompt in zip(to_pil(images), PROMPTS, strict=True):
        with torch.no_grad():
            a = encoder.model.encode_image(encoder.preprocess(image)[None])[0].double().numpy()
            b = encoder.model.encode_text(open_clip.tokenize([prompt]))[0].double().numpy()
        rows.append(100 * max(0.0, float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))))
    np.testing.assert_allclose(found, rows, atol=1e-3)
    assert np.ptp(rows) > 0.1


def test_clip_score_is_torchmetrics_on_the_same_model(encoder: OpenClipEncoder) -> None:
    from torchmetrics.multimodal import CLIPScore

    def processor(
        images: list[torch.Tensor] | None = None, text: list[str] | None = None, **_: object
    ) -> dict[str, torch.Tensor]:
        if images is not None:
            return {"pixel_values": torch.stack([encoder.preprocess(image) for image in to_pil(torch.stack(images))])}
        tokens = open_clip.tokenize(text)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    class Model(torch.nn.Module):
        config = SimpleNamespace()

        def get_image_features(self, pixels: torch.Tensor) -> Any:
            return encoder.model.encode_image(pixels)

        def get_text_features(self, tokens: torch.Tensor, mask: torch.Tensor) -> Any:
            return encoder.model.encode_text(tokens)

    images = draw_images(3, seed=1)
    theirs = CLIPScore(model_name_or_path=lambda: (Model(), processor))
    wanted = []
    for i in range(3):
        theirs.reset()
        theirs.update(images[i], PROMPTS[i])
        wanted.append(max(0.0, float(theirs.compute())))
    found = ClipScore(encoder).measure(Batch(images, PROMPTS[:3], range(3)))[:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_clip_features_have_unit_length_and_name_their_weights(encoder: OpenClipEncoder) -> None:
    features = OpenClipFeatures(encoder)
    found = features(draw_images(3, seed=2))
    assert features.width == CLIP_WIDTH and found.shape == (3, CLIP_WIDTH)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert encoder.fingerprint()["encoder"].startswith(CLIP_NAME) and "Resize" in encoder.fingerprint()["preprocessing"]
    assert features.fingerprint()["extractor"] != encoder.fingerprint()["encoder"]
    x = found.double().numpy()
    wanted = np.exp(-((x[:, None] - x[None]) ** 2).sum(axis=2) / 200)
    np.testing.assert_allclose(gaussian_kernel(x, x), wanted, rtol=1e-12)


def test_missing_or_foreign_clip_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"strange": torch.zeros(1)}, tmp_path / "other.pt")
    for pretrained in ("no-such-tag", str(tmp_path / "other.pt")):
        with pytest.raises(NotMeasured, match="state-dict file"):
            OpenClipEncoder(OpenClip(model=CLIP_NAME, pretrained=pretrained))


def test_clip_iqa_averages_to_pyiqas_own_score(iqa: PyiqaEncoder) -> None:
    pairs = [
        ("Good image", "bad image"),
        ("Sharp image", "blurry image"),
        ("sharp edges", "blurry edges"),
        ("High resolution image", "low resolution image"),
        ("Noise-free image", "noisy image"),
    ]
    images = draw_images(3, seed=3, side=96)
    own = [ClipIqa(iqa, {"good": pair}).measure(Batch(images, [""] * 3, range(3))) for pair in pairs]
    with torch.no_grad():
        wanted = iqa.whole(images.float() / 255)
    np.testing.assert_allclose(np.mean(own, axis=0), wanted.numpy(), atol=1e-5)
    assert np.ptp(wanted.numpy()) > 1e-4


@pytest.mark.parametrize("pair", list(PROMPT_PAIRS))
def test_each_attribute_is_the_softmax_over_its_pair(iqa: PyiqaEncoder, pair: str) -> None:
    images = draw_images(2, seed=4)
    metric = ClipIqa(iqa, PROMPT_PAIRS, pair)
    pixels = (images.float() / 255 - iqa.whole.default_mean) / iqa.whole.default_std
    with torch.no_grad():
        logits, _ = iqa.model(pixels, iqa.tokenize(list(PROMPT_PAIRS[pair])), pos_embedding=False)
    np.testing.assert_allclose(metric.measure(Batch(images, ["", ""], range(2)))[:, 0], logits.softmax(dim=1)[:, 0], atol=1e-5)
    assert not metric.tiny and "(tiny)" not in metric.title


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "RN50.pt").write_bytes(b"half a file")
    with pytest.raises(NotMeasured, match=r"RN50\.pt as clip_iqa"):
        PyiqaEncoder(str(tmp_path / "RN50.pt"))
