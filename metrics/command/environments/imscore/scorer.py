"""Scorers of imscore as commands: ``python scorer.py NAME`` with one of :data:`MODELS`."""

import importlib
import os
import sys

from ilf_bench_scorer import digest_of, redirect, serve

redirect()  # some of what follows prints while it loads

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torchvision.transforms.functional import pil_to_tensor  # noqa: E402

MODELS = {  # module, class, weights on the hub
    "vqascore": ("imscore.vqascore.model", "VQAScore", "RE-N-Y/clip-t5-xxl"),
    "mps": ("imscore.mps.model", "MPS", "RE-N-Y/mpsv1"),
    "brightness": ("imscore.dummy.model", "DummyReward", ""),  # no weights: to try the environment
}
TITLES = {"vqascore": "VQAScore (CLIP-FlanT5-XXL)", "mps": "MPS", "brightness": "Brightness"}


def load(name):
    """The model on its device."""
    module, kind, weights = MODELS[name]
    found = getattr(importlib.import_module(module), kind)
    model = found.from_pretrained(weights) if weights else found()
    return model.eval().requires_grad_(False).to(os.environ.get("ILF_BENCH_DEVICE", "cpu"))


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
    weights=digest_of(model) if model.state_dict() else "none",
    packages=("imscore", "torch", "torchvision", "transformers"),
    preprocessing="uint8 RGB / 255, imscore's own",
    range=[0, 1] if name == "vqascore" else [None, None],
)
