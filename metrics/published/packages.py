"""What the adapters share: packages that may be missing, weights that may be missing, and images on their way in."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import nn

from harness.errors import HarnessError, NotMeasured, UsageError
from harness.storage.images import from_planes
from harness.storage.writing import THREADS

INSTALL = "in an environment of its own: make metrics, or pip install --constraint constraints/full-metrics.txt '.[metrics]'"
Precision = Literal["fp32", "bf16"]
Prepare = Callable[[Image.Image], torch.Tensor]
MIN_SIDE = 32  # pixels; a smaller image tells these networks nothing
PIXELS = 2**22  # of all images in one forward pass: 64 of 256 x 256, 4 of 1024 x 1024


def require(module: str, package: str, install: str = INSTALL) -> Any:
    """The imported module, or :class:`NotMeasured` with the way to install it."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package beside a torch that it does not fit raises almost anything
        got = "not installed" if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: {error}"
        raise NotMeasured(expected=f"the package {package}", got=got, remedy=f"{install}; see `ilf-bench doctor`") from error


@contextmanager
def weights_of(what: str, remedy: str) -> Iterator[None]:
    """Whatever goes wrong while weights are fetched or read, as one :class:`NotMeasured` with its remedy."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # of any type: damaged archives, foreign pickles, missing keys
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise NotMeasured(expected=f"the weights of {what}", got=said[:300], remedy=remedy) from error


def existing(path: Path, what: str) -> Path:
    """``path``, or :class:`NotMeasured` where it is not."""
    if not path.exists():
        raise NotMeasured(expected=what, got=f"no {path}", remedy="fix the path in the scorers' YAML file")
    return path


def frozen(model: nn.Module, device: str) -> Any:
    """The model in eval mode on its device, without gradients."""
    return model.eval().requires_grad_(False).to(device)


def digest(model: nn.Module) -> str:
    """16 hexadecimal digits over names and values of the weights, whichever file they came from."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:16]


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """uint8 [B, 3, H, W] as RGB images."""
    return [from_planes(image.contiguous().cpu().numpy()) for image in images]


def checked(images: torch.Tensor) -> torch.Tensor:
    """Images uint8 [B, 3, H, W] of a sensible size."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < MIN_SIDE:
        raise UsageError(
            expected=f"uint8 RGB images of at least {MIN_SIDE} x {MIN_SIDE}",
            got=f"{images.dtype} {list(images.shape)}",
            remedy="score the images at their original size",
        )
    return images


@torch.no_grad()
def in_chunks(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    side: int = 0,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    prepare: Prepare | None = None,
) -> torch.Tensor:
    """``network`` over checked images, so many at a time that large ones fit, ``side`` x ``side`` ones too; rows in float32.

    ``precision`` bf16 lets autocast multiply in bfloat16 on ``device``. With ``prepare`` the network is given what that makes of
    each image; see :func:`prepared`.
    """
    size = images_at_once(checked(images), side)
    parts = torch.split(images, size) if prepare is None else prepared(prepare, images, size)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        return torch.cat([network(part).float() for part in parts])


@cache
def preparing() -> ThreadPoolExecutor:
    """Threads that resize: Pillow lets go of Python's lock."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="preparing")


def prepared(prepare: Prepare, images: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """What ``prepare`` makes of each image, ``size`` of them at a time; the later ones are prepared in the background."""
    begun = [preparing().submit(_prepared, prepare, image) for image in images]
    for start in range(0, len(begun), size):
        yield torch.stack([each.result() for each in begun[start : start + size]])


def _prepared(prepare: Prepare, image: torch.Tensor) -> torch.Tensor:
    (whole,) = to_pil(image[None])
    return prepare(whole)


def arithmetic(precision: Precision) -> dict[str, str]:
    """What a fingerprint says of it: nothing of float32."""
    return {} if precision == "fp32" else {"precision": precision}


def images_at_once(images: torch.Tensor, side: int = 0) -> int:
    """How many images go through a network together, at their own size or at ``side`` x ``side``, whichever is larger."""
    return max(1, PIXELS // max(images.shape[2] * images.shape[3], side**2))
