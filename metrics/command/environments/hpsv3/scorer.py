"""HPSv3 (Ma et al., 2025) by its own package, a scorer command; needs a GPU of 20 GB. Of its two outputs the first, the mean."""

import os

import huggingface_hub
from hpsv3 import HPSv3RewardInferencer
from ilf_bench_scorer import digest, serve

checkpoint = os.environ.get("HPSV3_CHECKPOINT") or huggingface_hub.hf_hub_download("MizzenAI/HPSv3", "HPSv3.safetensors")
model = HPSv3RewardInferencer(checkpoint_path=checkpoint, device=os.environ.get("ILF_BENCH_DEVICE", "cuda"))


def score(images, prompts):
    """One number for each path."""
    return [float(reward[0]) for reward in model.reward(images, prompts)]


serve(
    score,
    name="hpsv3",
    title="HPSv3",
    weights=digest(checkpoint),
    packages=("hpsv3", "torch", "transformers"),
    preprocessing="the package's: 256 x 28 x 28 pixels",
)
