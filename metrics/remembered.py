"""What networks have said before: prompts and the full run's images come again with every method, and are looked at once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch

from metrics.base import FeatureExtractor

MOST_BYTES = 2**29  # of rows: 30,000 images of 4,096 numbers


class RememberedTexts:
    """``embed``, asked for each text once; rows must not depend on their neighbours."""

    def __init__(self, embed: Callable[[Sequence[str]], torch.Tensor]) -> None:
        self.embed = embed
        self.rows: dict[str, torch.Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """[B, d] for B texts, on the network's device."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self.rows]
        if unknown:
            self.rows.update(zip(unknown, self.embed(unknown), strict=True))
        return torch.stack([self.rows[text] for text in texts])


class RememberedImages:
    """``embed``, asked for each image once, by its pixels; what was used longest ago is forgotten above ``most_bytes``."""

    def __init__(self, embed: Callable[[torch.Tensor], torch.Tensor], most_bytes: int = MOST_BYTES) -> None:
        self.embed, self.most_bytes = embed, most_bytes
        self.rows: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, d], on the network's device, for uint8 [B, 3, H, W]."""
        keys = [_key(image) for image in images]
        places = {key: i for i, key in enumerate(keys) if key not in self.rows}
        if places:
            self.rows.update(zip(places, self.embed(images[list(places.values())]).float(), strict=True))
        found = torch.stack([self.rows[key] for key in keys])
        for key in keys:
            self.rows.move_to_end(key)
        while len(self.rows) * found[0].nbytes > self.most_bytes:
            self.rows.popitem(last=False)
        return found


class RememberedFeatures:
    """A ``FeatureExtractor`` that looks at each image once."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor, self.width, self.images = extractor, extractor.width, RememberedImages(extractor)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, H, W]."""
        return self.images(images)

    def fingerprint(self) -> Mapping[str, str]:
        """The extractor's."""
        return self.extractor.fingerprint()


def _key(image: torch.Tensor) -> bytes:
    pixels = image.contiguous().cpu().numpy()
    total = hashlib.sha256(repr(pixels.shape).encode())  # processors have instructions for it: twice as fast as BLAKE2
    total.update(pixels.data)
    return total.digest()
