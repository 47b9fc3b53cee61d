"""The bundled tiny scorers: network definitions, loaders, and the adapters that the metrics take.

All of them read uint8 RGB images [B, 3, 32, 32] and see them as float32 ``(x / 255 - 0.5) / 0.5``. They were trained by
the zoo on the bundled data sets only, so their numbers compare with each other and with nothing published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from harness.errors import ArtifactError, UsageError
from harness.models.checksums import check_sums
from harness.storage.files import write_bytes
from harness.text import cut_note
from metrics.base import token_counts
from metrics.bundled.degradations import KINDS
from metrics.remembered import RememberedImages, RememberedTexts

if TYPE_CHECKING:  # transformers takes seconds, and a table of metrics needs no network
    from transformers import CLIPModel, T5Tokenizer

IMAGE_SIZE = 32
MAX_TOKENS = 12
FRECHET_WIDTH = 24
WEIGHTS, CONFIG, PROJECTION = "model.safetensors", "config.json", "frechet.safetensors"
PREPROCESSING = "uint8 RGB 32x32, no resize, (x/255-0.5)/0.5"


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, 32, 32] in 0..255 to float32 in -1..1."""
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise UsageError(
            expected=f"uint8 images [B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}] for the tiny scorers",
            got=f"{images.dtype} {list(images.shape)}",
            remedy="score images of this size with the full metrics",
        )
    return (images.float() / 255 - 0.5) / 0.5


def build_clip(vocabulary: int, width: int = 96, vision_layers: int = 4, text_layers: int = 3, projection: int = 64) -> CLIPModel:
    """A randomly initialised image-text encoder for 32x32 images; token 0 pads and token 1 ends a text."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": 4, "projection_dim": projection}
    text = {"vocab_size": vocabulary, "num_hidden_layers": text_layers, "max_position_embeddings": MAX_TOKENS}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    vision = {"num_hidden_layers": vision_layers, "image_size": IMAGE_SIZE, "patch_size": 4}
    config = CLIPConfig(text_config={**shared, **text, **tokens}, vision_config={**shared, **vision}, projection_dim=projection)
    model = CLIPModel(config)
    model.set_attn_implementation("eager")
    return model


def embed_images(clip: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Projected image embeddings [B, projection], not normalised, for pixels [B, 3, 32, 32] in -1..1."""
    projected: torch.Tensor = clip.visual_projection(clip.vision_model(pixels).pooler_output)
    return projected


def embed_tokens(clip: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """Projected text embeddings [B, projection], not normalised, for token ids [B, L]."""
    projected: torch.Tensor = clip.text_projection(clip.text_model(tokens).pooler_output)
    return projected


def tokenize(tokenizer: T5Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token ids int64 [B, 12], padded to one length so that a text's embedding does not depend on its neighbours."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def build_tower(channels: Sequence[int] = (32, 64, 96, 128), squeeze: int = 32) -> nn.Sequential:
    """Convolutions at 32, 16, 8 and 4 pixels, flattened with their positions to ``16 * squeeze`` numbers."""
    layers: list[nn.Module] = []
    previous = 3
    for index, width in enumerate(channels):
        layers += [nn.Conv2d(previous, width, 3, stride=1 if index == 0 else 2, padding=1), nn.GroupNorm(8, width), nn.GELU()]
        previous = width
    return nn.Sequential(*layers, nn.Conv2d(previous, squeeze, 1), nn.GELU(), nn.Flatten())


class ImageClassifier(nn.Module):
    """A small convolutional classifier whose linear penultimate layer is a feature space of chosen width.

    A second, linear head reads the strength of each kind of damage from the same features. Without it they would hold the
    class alone, and a distance between them would not see a badly drawn but recognisable image.
    """

    def __init__(self, classes: int, features: int, kinds: int = len(KINDS)) -> None:
        super().__init__()
        self.config = {"classes": classes, "features": features, "kinds": kinds}
        self.tower = build_tower()
        self.features = nn.Linear(512, features)
        self.head = nn.Linear(features, classes)
        self.damage = nn.Linear(features, kinds)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [B, features] of pixels [B, 3, 32, 32] in -1..1, before any non-linearity."""
        features: torch.Tensor = self.features(self.tower(pixels))
        return features

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes]."""
        return self.classify(self.embed(pixels))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] from features [B, features]."""
        logits: torch.Tensor = self.head(F.gelu(features))
        return logits


class RewardModel(nn.Module):
    """A preference score of an image for a text, trained on rankings as ImageReward is (Xu et al., 2023, equation 1).

    Its image tower is its own; the text comes as the image-text encoder's normalised embedding [B, text].
    ``mean`` and ``std`` standardise the score over real and damaged images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, text: int, width: int = 64) -> None:
        super().__init__()
        self.config = {"text": text, "width": width}
        self.tower = build_tower()
        self.image = nn.Linear(512, width)
        self.text = nn.Linear(text, width)
        self.mlp = nn.Sequential(nn.Linear(3 * width, 96), nn.GELU(), nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 1))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image features [B, width] of pixels [B, 3, 32, 32] in -1..1."""
        seen: torch.Tensor = self.image(self.tower(pixels))
        return seen

    def judge(self, seen: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Standardised scores [...] for image features [..., width] and text embeddings [..., text] of like leading shape."""
        read = self.text(text)
        score: torch.Tensor = self.mlp(torch.cat([seen, read, seen * read], dim=-1)).squeeze(-1)
        return (score.float() - self.mean) / self.std

    def forward(self, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Standardised scores [B]."""
        return self.judge(self.see(pixels), text)


def round_to_stored(model: nn.Module) -> None:
    """Round the weights in place to float16, as they will be stored, so that what is derived from them belongs to them."""
    model.half().float()


def save_network(model: ImageClassifier | RewardModel, folder: Path) -> None:
    """Write config.json and float16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / CONFIG, (json.dumps(model.config) + "\n").encode())
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)


def _open(folder: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    if not (folder / CONFIG).exists() or not (folder / WEIGHTS).exists():
        raise ArtifactError(expected=f"{CONFIG} and {WEIGHTS} in {folder}", got="none", remedy="rebuild the zoo's scorers")
    check_sums(folder)
    state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    return json.loads((folder / CONFIG).read_text(encoding="utf-8")), state


def load_classifier(folder: Path) -> ImageClassifier:
    """The classifier saved in ``folder``, in float32 and frozen."""
    config, state = _open(folder)
    model = ImageClassifier(**config)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def load_reward(folder: Path) -> RewardModel:
    """The reward model saved in ``folder``, in float32 and frozen."""
    config, state = _open(folder)
    model = RewardModel(**config)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def save_clip(model: CLIPModel, tokenizer: T5Tokenizer, projection: torch.Tensor, mean: torch.Tensor, folder: Path) -> None:
    """Write the encoder in float16, its tokenizer, and the Fréchet projection [24, d] with its centre [d] in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    model.config.dtype = torch.float16
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    tensors = {"frechet_projection": projection.contiguous(), "frechet_mean": mean.contiguous()}
    save_file(tensors, folder / PROJECTION)


def digest(*files: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 over the files' bytes, in the order given."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


class TinyClip:
    """The tiny image-text encoder, loaded from the folder that :func:`save_clip` wrote; an ``ImageTextEncoder``."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import CLIPModel, T5Tokenizer

        if not (folder / WEIGHTS).exists():
            raise ArtifactError(expected=f"{WEIGHTS} in {folder}", got="none", remedy="rebuild the zoo's scorers")
        self.folder, self.device = folder, device
        check_sums(folder)
        self.tokenizer: T5Tokenizer = T5Tokenizer.from_pretrained(folder)
        model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model: CLIPModel = model.eval().requires_grad_(False).to(device)
        self.scale = float(self.model.logit_scale.exp())
        self._digest = digest(folder / WEIGHTS)
        self.embed_images = RememberedImages(self._embed_images)
        self.embed_texts = RememberedTexts(self._embed_texts)

    @torch.no_grad()
    def _embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, d], not normalised, for uint8 [B, 3, 32, 32]."""
        return embed_images(self.model, to_unit(images.to(self.device)))

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [B, d], not normalised."""
        return embed_tokens(self.model, tokenize(self.tokenizer, texts).to(self.device))

    def cut(self, texts: Sequence[str]) -> str:
        """How many texts are cut, in words."""
        return cut_note(token_counts(self.tokenizer, texts), MAX_TOKENS, "the tiny CLIP")

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing and the version of the library that runs them."""
        return {"encoder": self._digest, "preprocessing": PREPROCESSING, "transformers": version("transformers")}


class ProjectedClipFeatures:
    """Image embeddings before normalisation, on the 24 leading principal directions of real images; a ``FeatureExtractor``."""

    def __init__(self, clip: TinyClip) -> None:
        self.clip = clip
        tensors = load_file(clip.folder / PROJECTION, device=clip.device)
        self.projection, self.mean = tensors["frechet_projection"], tensors["frechet_mean"]
        self.width = len(self.projection)
        self._digest = digest(clip.folder / WEIGHTS, clip.folder / PROJECTION)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 24] for uint8 [B, 3, 32, 32]."""
        return (self.clip.embed_images(images) - self.mean) @ self.projection.T

    def fingerprint(self) -> Mapping[str, str]:
        """Weights with the projection, preprocessing, library version."""
        return {**self.clip.fingerprint(), "extractor": self._digest}


class ClassifierFeatures:
    """The penultimate layer of a tiny classifier; a ``FeatureExtractor``."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = device
        self.model = load_classifier(folder).to(device)
        self.width = self.model.config["features"]
        self._digest = digest(folder / WEIGHTS)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, 32, 32]."""
        return self.model.embed(to_unit(images.to(self.device)))

    def fingerprint(self) -> Mapping[str, str]:
        """Weights and preprocessing."""
        return {"extractor": self._digest, "preprocessing": PREPROCESSING}


class TinyReward:
    """The tiny reward model together with the text tower it was trained on; a ``PreferenceModel``."""

    def __init__(self, folder: Path, clip: TinyClip) -> None:
        self.clip = clip
        self.model = load_reward(folder).to(clip.device)
        self._digest = digest(folder / WEIGHTS)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B] for uint8 [B, 3, 32, 32] and B prompts."""
        text = F.normalize(self.clip.embed_texts(prompts), dim=-1)
        rewards: torch.Tensor = self.model(to_unit(images.to(self.clip.device)), text)
        return rewards

    def cut(self, texts: Sequence[str]) -> str:
        """How many texts are cut, in words."""
        return self.clip.cut(texts)

    def fingerprint(self) -> Mapping[str, str]:
        """Both networks' weights, preprocessing, library version."""
        return {**self.clip.fingerprint(), "reward": self._digest}
