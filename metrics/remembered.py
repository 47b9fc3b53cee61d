"""What networks have said before: prompts and the full run's images come again with every method, and are looked at once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from harness.storage.writing import THREADS
from metrics.base import FeatureExtractor

MOST_BYTES = 2**29  # of rows: 30,000 images of 4,096 numbers
LARGE = 2**16  # bytes of an image that is worth a thread


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

    def __call__(self, images: torch.Tensor, keep: bool = True) -> torch.Tensor:
        """float32 [B, d], on the network's device, for uint8 [B, 3, H, W]; without ``keep`` no new image is remembered."""
        keys = _keys(images)
        places = {key: i for i, key in enumerate(keys) if key not in self.rows}
        new = dict(zip(places, self.embed(images[list(places.values())]).float(), strict=True)) if places else {}
        found = torch.stack([new[key] if key in new else self.rows[key] for key in keys])
        self.rows.update(new if keep else {})
        for key in keys if keep else ():
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


def _keys(images: torch.Tensor) -> list[bytes]:
    """One for each of the images [B, 3, H, W]; large ones are hashed by several threads, because hashing needs no lock."""
    return list((_hashing().map if images[0].nbytes > LARGE else map)(_key, images))


@cache
def _hashing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="hashing")


def _key(image: torch.Tensor) -> bytes:
    pixels = image.contiguous().cpu().numpy()
    total = hashlib.sha256(repr(pixels.shape).encode())  # processors have instructions for it: twice as fast as BLAKE2
    total.update(pixels.data)
    return total.digest()
