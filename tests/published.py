"""Random weights of the published networks in the files that their packages read; small where the architecture allows."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

FULL_STACK = "needs the full metric stack: make test-metrics"
CLIP_NAME, CLIP_WIDTH = "ilf-bench-test", 32
DINO_WIDTH = 16


def draw_images(count: int, seed: int = 0, side: int = 64) -> torch.Tensor:
    """uint8 [count, 3, side, side]: smooth random colours under a little noise."""
    generator = torch.Generator().manual_seed(seed)
    large = nn.functional.interpolate(torch.rand(count, 3, 4, 4, generator=generator), size=(side, side), mode="bilinear")
    noise = 0.05 * torch.randn(count, 3, side, side, generator=generator)
    return ((large + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def save_images(images: torch.Tensor, folder: Path) -> Path:
    """PNG files in the order of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(folder / f"{i:04d}.png")
    return folder


def to_pil_image(image: torch.Tensor) -> Image.Image:
    """One image uint8 [3, H, W]."""
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))


def spread(model: nn.Module, seed: int) -> None:
    """Weights that keep the scale of their input through many rectified layers, so that features differ between images."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def save_inception(path: Path, seed: int = 0) -> Path:
    """torch-fidelity's architecture at its one size."""
    from torch_fidelity import feature_extractor_inceptionv3 as package

    class Blank(package.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
            return None

    with mock.patch.object(package, "load_state_dict_from_url", return_value={}):
        model = Blank("blank", ["2048"])
    spread(model, seed)
    torch.save(model.state_dict(), path)
    return path


def save_open_clip(folder: Path, seed: int = 0, width: int = CLIP_WIDTH) -> Path:
    """A small CLIP as an open_clip state dict; its configuration is registered as :data:`CLIP_NAME`. ``width``: of embeddings."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    (folder / f"{CLIP_NAME}.json").write_text(json.dumps({"embed_dim": width, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder)
    torch.manual_seed(seed)
    model = open_clip.create_model(CLIP_NAME)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)  # so that embeddings differ between images
    torch.save(model.state_dict(), folder / "open_clip.pt")
    return folder / "open_clip.pt"


def save_rn50(path: Path, seed: int = 0) -> Path:
    """A small ResNet CLIP as the TorchScript archive that OpenAI publishes."""
    from pyiqa.archs.clip_model import CLIP

    torch.manual_seed(seed)
    model = CLIP(32, 64, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.ones_(parameter)  # the package starts its blocks as identities
    example = (torch.rand(1, 3, 64, 64), torch.zeros(1, 77, dtype=torch.long))
    trace: Any = torch.jit.trace
    torch.jit.save(trace(model, example), str(path))
    return path


def save_dino(folder: Path, seed: int = 0) -> Path:
    """A small DINOv2 as transformers saves it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=DINO_WIDTH, num_hidden_layers=2, num_attention_heads=2, image_size=224)
    Dinov2Model(config).save_pretrained(folder)
    return folder


MED_CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30524,
    "encoder_width": 768,
    "add_cross_attention": True,
}


def save_vocabulary(folder: Path) -> None:
    """Letters, so that every lower-case prompt has its own tokens."""
    letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


@contextlib.contextmanager
def small_vision(depth: int) -> Any:
    """image-reward's vision transformer with fewer blocks; the package itself knows one size only."""
    from metrics.published import blip_compat

    blip_compat.package()
    from ImageReward.models.BLIP import blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer

    def create(vit: str, image_size: int, *_: object) -> tuple[nn.Module, int]:
        return VisionTransformer(img_size=image_size, patch_size=16, embed_dim=1024, depth=depth, num_heads=16), 1024

    with mock.patch.object(blip_pretrain, "create_vit", create):
        yield


def save_image_reward(folder: Path, depth: int | None = None, seed: int = 0) -> Path:
    """ImageReward.pt, med_config.json and vocab.txt. ``depth`` blocks and layers; None: full size.

    The score head starts near zero in the package: it is scaled here until random images spread over several deviations.
    """
    from metrics.published import blip_compat

    folder.mkdir(parents=True, exist_ok=True)
    save_vocabulary(folder)
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG | ({"num_hidden_layers": depth} if depth else {})))
    torch.manual_seed(seed)
    with blip_compat.own_tokenizer(folder), small_vision(depth) if depth else contextlib.nullcontext():
        model: Any = blip_compat.package().ImageReward(med_config=str(folder / "med_config.json"), device="cpu")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("mlp") and "embed" not in name:
            nn.init.normal_(parameter, std=0.04)
    for layer in model.mlp.layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.5 * layer.in_features**-0.5)
    torch.save(model.state_dict(), folder / "ImageReward.pt")
    return folder
