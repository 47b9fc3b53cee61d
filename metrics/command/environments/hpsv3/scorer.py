"""HPSv3 (Ma et al., 2025) by its own package, a scorer command; needs a GPU of 20 GB. Of its two outputs the first, the mean."""

import os

from ilf_bench_scorer import digest, redirect, serve

redirect()  # hpsv3 prints while it is imported

import huggingface_hub  # noqa: E402
import torch  # noqa: E402
from hpsv3 import HPSv3RewardInferencer  # noqa: E402

checkpoint = os.environ.get("HPSV3_CHECKPOINT") or huggingface_hub.hf_hub_download("MizzenAI/HPSv3", "HPSv3.safetensors")
config = os.environ.get("HPSV3_CONFIG")  # a YAML file in the package's format, where the base model is not on the hub
device = os.environ.get("ILF_BENCH_DEVICE", "cuda")
inferencer = HPSv3RewardInferencer(config, checkpoint, device=device)
if device == "cpu":
    inferencer.model.float()  # the package's head is float32 beside bfloat16, which only CUDA's autocast mixes


@torch.inference_mode()
def score(images, prompts):
    """One number for each path."""
    return [float(reward[0]) for reward in inferencer.reward(images, prompts)]


serve(
    score,
    name="hpsv3",
    title="HPSv3",
    weights=digest(checkpoint),
    packages=("hpsv3", "torch", "transformers"),
    preprocessing=f"the package's: 256 x 28 x 28 pixels, {'float32' if device == 'cpu' else 'bfloat16'}",
)
