"""Scorers of imscore as commands: ``python scorer.py NAME`` with one of :data:`MODELS`."""

import hashlib
import importlib
import os
import sys

import torch
from ilf_bench_scorer import serve
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

MODELS = {  # module, class, weights on the hub
    "hpsv3": ("imscore.hpsv3.model", "HPSv3", "RE-N-Y/hpsv3"),
    "vqascore": ("imscore.vqascore.model", "VQAScore", "RE-N-Y/clip-t5-xxl"),
    "mps": ("imscore.mps.model", "MPS", "RE-N-Y/mpsv1"),
    "brightness": ("imscore.dummy.model", "DummyReward", ""),  # no weights: to try the environment
}
TITLES = {"hpsv3": "HPSv3", "vqascore": "VQAScore (CLIP-FlanT5-XXL)", "mps": "MPS", "brightness": "Brightness"}


def load(name):
    """The model on its device."""
    module, kind, weights = MODELS[name]
    found = getattr(importlib.import_module(module), kind)
    model = found.from_pretrained(weights) if weights else found()
    return model.eval().requires_grad_(False).to(os.environ.get("ILF_BENCH_DEVICE", "cpu"))


def weights_of(model):
    """SHA-256 over names and values, or a word where there are none."""
    total = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        total.update(key.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return "sha256:" + total.hexdigest() if model.state_dict() else "none"


name = sys.argv[1]
model = load(name)


@torch.inference_mode()
def score(images, prompts):
    """One number for each path. One image at a time: VQAScore of imscore averages over its batch."""
    device = os.environ.get("ILF_BENCH_DEVICE", "cpu")
    pixels = [pil_to_tensor(Image.open(path).convert("RGB"))[None].float().to(device) / 255 for path in images]
    return [float(model.score(image, [prompt]).reshape(-1)[0]) for image, prompt in zip(pixels, prompts)]  # noqa: B905


serve(
    score,
    name=name,
    title=TITLES[name],
    weights=weights_of(model),
    packages=("imscore", "torch", "torchvision", "transformers"),
    preprocessing="uint8 RGB / 255, imscore's own",
    range=[0, 1] if name == "vqascore" else [None, None],
)
