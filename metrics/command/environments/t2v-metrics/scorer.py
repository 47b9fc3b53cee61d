"""VQAScore (Lin et al., 2024) by its authors' own package: the probability that CLIP-FlanT5-XXL says "Yes", the prompt is shown.

T2V_MODEL: another of the package's CLIP-FlanT5 models, for example clip-flant5-xl. On a GPU bfloat16 as the package has it, on a
CPU float32. There a batch was seen to score as its images do one by one (docs/scorer-commands.md).
"""

import os

from ilf_bench_scorer import digest_of, redirect, serve

redirect()  # transformers prints while it is imported

from clip_flant5 import module  # noqa: E402
from huggingface_hub import constants  # noqa: E402

name = os.environ.get("T2V_MODEL", "clip-flant5-xxl")
device = os.environ.get("ILF_BENCH_DEVICE", "cuda")
scorer = module("clip_t5_model").CLIPT5Model(name, device=device, cache_dir=constants.HF_HUB_CACHE)
if device == "cpu":
    scorer.model.float()  # its towers are bfloat16 beside float32 pixels, which only CUDA's autocast mixes

serve(
    lambda images, prompts: scorer.forward(images, prompts).tolist(),
    name="vqascore_t2v",
    title=f"VQAScore ({name}, t2v-metrics)",
    weights=digest_of(scorer.model),
    packages=("t2v-metrics", "torch", "transformers"),
    preprocessing=f"the package's: padded to a square, {'float32' if device == 'cpu' else 'bfloat16'}",
    range=[0, 1],
)
