"""ImageReward (Xu et al., 2023): the package's loader, and its network run on whole batches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.models.reading import load_tensors
from harness.text import cut_note
from metrics.base import token_counts
from metrics.published.blip_compat import own_tokenizer, package
from metrics.published.packages import checked, digest, existing, frozen, prepared, weights_of
from metrics.published.spec import ImageRewardWeights

WEIGHTS, CONFIG = "ImageReward.pt", "med_config.json"
TOKENS, BATCH = 35, 32
BUFFERS = ("position_ids",)  # counted from 0; not in every file


def open_package(folder: Path | None, device: str = "cpu") -> Any:
    """``ImageReward.load`` of a folder (or of the hub), with every weight accounted for: the package itself ignores strangers."""
    loader: Any = package()
    remedy = f"give a folder with {WEIGHTS}, {CONFIG} and vocab.txt (bert-base-uncased) as image_reward.folder"
    with (
        weights_of("ImageReward", remedy),
        own_tokenizer(folder),
        contextlib.redirect_stdout(open(os.devnull, "w", encoding="utf-8")),
    ):
        if folder is None:
            return frozen(loader.load(device=device), device)
        weights, config = existing(folder / WEIGHTS, WEIGHTS), existing(folder / CONFIG, CONFIG)
        stored = load_tensors(weights, map_location="cpu", mmap=True)
        model = loader.load(str(weights), device=device, med_config=str(config))
        lacking = [name for name in model.state_dict() if name not in stored and not name.endswith(BUFFERS)]
        if lacking:
            raise ValueError(f"{weights} lacks {len(lacking)} tensors, {lacking[0]} among them")
        return frozen(model, device)


class RewardModel:
    """A ``PreferenceModel``: preprocessing, tokens and weights of the package, but many pairs in one forward pass.

    ``precision`` bf16 lets autocast multiply in bfloat16; scores are then those of the package to about 0.01 deviations.
    """

    def __init__(self, spec: ImageRewardWeights, device: str = "cpu") -> None:
        self.model = open_package(spec.folder, device)
        self.device, self.precision = device, spec.precision
        self._digest = digest(self.model)

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B] for uint8 [B, 3, H, W] and B prompts; a prompt is cut after 35 tokens."""
        pixels = prepared(self.model.preprocess, checked(images), BATCH)
        return torch.cat([self._score(part, prompts[i * BATCH : (i + 1) * BATCH]) for i, part in enumerate(pixels)])

    @torch.inference_mode()
    def _score(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        pixels = pixels.to(self.device)
        tokens = self.model.blip.tokenizer(
            list(prompts), padding="longest", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bf16"):
            seen = self.model.blip.visual_encoder(pixels)
            text = self.model.blip.text_encoder(
                tokens.input_ids,
                attention_mask=tokens.attention_mask,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
                return_dict=True,
            )
        raw = self.model.mlp(text.last_hidden_state[:, 0].float())[:, 0]
        rewards: torch.Tensor = (raw - self.model.mean) / self.model.std
        return rewards

    def cut(self, texts: Sequence[str]) -> str:
        """How many texts are cut, in words."""
        return cut_note(token_counts(self.model.blip.tokenizer, texts), TOKENS, "ImageReward's BLIP")

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing, arithmetic, package."""
        return {
            "reward": self._digest,
            "preprocessing": "uint8 RGB, Pillow bicubic (antialiased) to 224, centre crop, CLIP mean",
            "precision": self.precision,
            "image-reward": version("image-reward"),
        }
