"""PickScore, HPSv2.1 and LAION's aesthetic predictor on random weights, against transformers, hpsv2 and plain algebra."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from harness.contracts import Batch
from harness.errors import NotMeasured
from metrics.context import MetricContext
from metrics.published.preference import AESTHETIC_LAYERS, AestheticScore, HpsV21, PickScore, cropped_to, padded_to
from metrics.published.spec import Aesthetic, HpsV2, PickScoreWeights
from metrics.table import METRICS
from tests.published import CLIP_NAME, FULL_STACK, draw_images, save_open_clip, to_pil_image

PROMPTS = ["a cat", "a dog on a mat", "a cat"]


def save_pickscore(folder: Path, seed: int = 0) -> PickScoreWeights:
    """A small CLIP with a tokenizer of single letters, as transformers saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "projection_dim": 16}
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={**shared, "vocab_size": len(words), "max_position_embeddings": 24, **ends},
        vision_config={**shared, "image_size": 48, "patch_size": 8},
        projection_dim=16,
    )
    model = CLIPModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    return PickScoreWeights(model=str(folder), tokenizer=str(folder))


def test_pickscore_is_the_logit_of_transformers(tmp_path: Path) -> None:
    spec = save_pickscore(tmp_path)
    score = PickScore(spec)
    images = draw_images(3, side=64)
    model: Any = CLIPModel.from_pretrained(spec.model).eval()
    pixels = torch.stack([torch.from_numpy(np.array(to_pil_image(x).resize((48, 48), Image.Resampling.BICUBIC))) for x in images])
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    values = ((pixels.float() / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)
    tokens = score.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = model(pixel_values=values, **tokens).logits_per_image.diagonal()
    torch.testing.assert_close(score(images, PROMPTS), wanted, rtol=1e-4, atol=1e-4)
    assert score(images, PROMPTS).std() > 0.01 and torch.equal(score(images[1:2], ["a cat"])[0], score(images[1:2], ["a cat"])[0])


def test_pickscores_crop_is_that_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason=FULL_STACK)
    from transformers import CLIPImageProcessor

    size = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    processor = CLIPImageProcessor(**size, do_normalize=False, do_rescale=False)
    image = to_pil_image(draw_images(1, side=96)[0]).resize((131, 77))
    theirs = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0)
    ours = np.asarray(cropped_to(48, image)).astype(np.float64)
    assert np.abs(ours - theirs).max() <= 2, "rounding of another resize"


def save_aesthetic(path: Path, width: int) -> Path:
    torch.manual_seed(0)
    sizes = {**AESTHETIC_LAYERS, 0: (width, 1024)}
    state = {}
    for number, (inside, outside) in sizes.items():
        state[f"layers.{number}.weight"] = torch.randn(outside, inside) * inside**-0.5
        state[f"layers.{number}.bias"] = torch.randn(outside) * 0.1
    torch.save(state, path)
    return path


class Encoder:
    """Embeds an image as the means of its channels and of their squares."""

    scale = 1.0

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        means = (images.float() / 255).flatten(2)
        return torch.cat([means.mean(dim=2), means.square().mean(dim=2)], dim=1).repeat(1, 128)

    def embed_texts(self, texts: Any) -> torch.Tensor:
        raise AssertionError("the prompts are not read")

    def fingerprint(self) -> dict[str, str]:
        return {"encoder": "means"}


def test_the_aesthetic_score_is_one_affine_map_of_the_unit_embedding(tmp_path: Path) -> None:
    path = save_aesthetic(tmp_path / "mlp.pth", 768)
    score = AestheticScore(Aesthetic(weights=path), Encoder)
    images = draw_images(4)
    stored = torch.load(path, weights_only=True)
    weight, bias = torch.eye(768, dtype=torch.float64), torch.zeros(768, dtype=torch.float64)
    for number in AESTHETIC_LAYERS:
        w, b = (stored[f"layers.{number}.{kind}"].double() for kind in ("weight", "bias"))
        weight, bias = w @ weight, w @ bias + b
    wanted = F.normalize(Encoder().embed_images(images).double(), dim=-1) @ weight.T + bias
    torch.testing.assert_close(score(images, PROMPTS).double(), wanted[:, 0], rtol=1e-4, atol=1e-5)
    assert score.fingerprint().keys() == {"encoder", "reward"}


def test_an_image_is_padded_with_black_to_a_square() -> None:
    images = draw_images(2, side=64)[:, :, :32]
    padded = padded_to(32, images)
    assert padded.shape == (2, 3, 32, 32) and (padded[:, :, :8] == 0).all() and (padded[:, :, 24:] == 0).all()
    assert (padded[:, :, 8:24].flatten(1).std(dim=1) > 0.05).all()
    torch.testing.assert_close(padded_to(64, draw_images(2, side=64)), draw_images(2, side=64) / 255)


def test_padding_is_that_of_hpsv2(tmp_path: Path) -> None:
    """hpsv2/src/open_clip/transform.py, ResizeMaxSize: the same calls of torchvision on the tensor."""
    torchvision: Any = pytest.importorskip("torchvision.transforms.functional", reason=FULL_STACK)
    for height, width in ((64, 64), (100, 64), (64, 131)):
        images = draw_images(2, side=131)[:, :, :height, :width]
        size = [round(length * (48 / max(height, width))) for length in (height, width)]
        pixels = torchvision.resize(images / 255, size, torchvision.InterpolationMode.BICUBIC)
        below, right = 48 - size[0], 48 - size[1]
        wanted = torchvision.pad(pixels, [right // 2, below // 2, right - right // 2, below - below // 2], fill=0)
        torch.testing.assert_close(padded_to(48, images), wanted, rtol=0, atol=1e-5)


def test_hpsv2_is_the_cosine_of_open_clips_embeddings(tmp_path: Path) -> None:
    open_clip: Any = pytest.importorskip("open_clip", reason=FULL_STACK)
    weights = save_open_clip(tmp_path)
    torch.save({"state_dict": torch.load(weights, weights_only=True), "epoch": 1}, tmp_path / "HPS_v2.1_compressed.pt")
    score = HpsV21(HpsV2(model=CLIP_NAME, weights=tmp_path / "HPS_v2.1_compressed.pt"))
    images = draw_images(3, side=64)
    model = open_clip.create_model(CLIP_NAME, pretrained=str(weights)).eval()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    pixels = F.interpolate(images / 255, size=(32, 32), mode="bicubic", antialias=True)
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(CLIP_NAME)(PROMPTS), normalize=True)
    torch.testing.assert_close(score(images, PROMPTS), (image * text).sum(dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hpsv2", r"HPS_v2\.1_compressed\.pt as hpsv2\.weights"),
        ("pickscore", r"local folders as pickscore\.model"),
        ("aesthetic", r"sac\+logos\+ava1-l14-linearMSE\.pth as aesthetic\.weights"),
    ],
)
def test_missing_weights_name_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "scorers.yaml"
    path.write_text(yaml.safe_dump({"pickscore": {"model": str(tmp_path / "none")}}))
    with pytest.raises(NotMeasured, match=words):
        METRICS[name](MetricContext(path, "text"))


def test_each_is_a_metric_of_the_table(tmp_path: Path) -> None:
    spec = save_pickscore(tmp_path / "clip")
    path = tmp_path / "scorers.yaml"
    path.write_text(yaml.safe_dump({"pickscore": spec.model_dump()}))
    metric = METRICS["pickscore"](MetricContext(path, "text"))
    rows = metric.measure(Batch(draw_images(3), PROMPTS, range(3)))
    assert rows.shape == (3, 1) and rows.dtype == np.float32 and metric.title == "PickScore" and not metric.tiny
    with pytest.raises(NotMeasured, match=r"scorers metrics/published/scorers\.yaml"):
        METRICS["hpsv2"](MetricContext(Path("zoo/scorers"), "text"))
