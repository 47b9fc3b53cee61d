"""FLUX.2 klein (Black Forest Labs 2026): FLUX.2 in small, with Qwen3 for captions and without an embedded guidance scale.

Its base checkpoints run guidance as a second call with the empty prompt, its distilled ones take four steps and run none.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from harness.cost.guidance import Guidance
from harness.models.families import flux2
from harness.models.families.base import Configs, Usual
from harness.models.text import qwen3_encoder

READ = 9, 18, 27  # the layers of Qwen3 whose states make a caption


def is_distilled(configs: Configs) -> bool:
    """As the pipeline's index says."""
    return bool(configs["pipeline"].get("is_distilled"))


def guidance(configs: Configs, scale: float, true_guidance: float) -> Guidance:
    """Klein runs the empty prompt in a second call, where it is not distilled."""
    return Guidance(1.0, "none") if is_distilled(configs) else Guidance(scale, "calls")


def asked(pipe: Any, prompt: str) -> str:
    """Klein's conversation: the prompt, and an answer that begins without thinking."""
    said = [{"role": "user", "content": prompt}]
    told = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    return str(pipe.tokenizer.apply_chat_template(said, **told))


FAMILY = replace(
    flux2.FAMILY,
    name="flux2-klein",
    title="FLUX.2 klein",
    pipelines=("Flux2KleinPipeline",),
    guidance=guidance,
    arguments=partial(flux2.arguments, read=READ),
    written=asked,
    without_numbers=lambda pipeline: nullcontext(),
    usual=lambda configs: Usual(4, 1.0) if is_distilled(configs) else Usual(50, 4.0),
    expects={"patch_size": 1, "guidance_embeds": False},
    architectures={
        "flux.2-klein-4b": flux2.architecture((5, 20), 24, qwen3_encoder(2560, 32, 8, 128, 9728, flux2.CUT), distilled=True),
        "flux.2-klein-base-9b": flux2.architecture(
            (8, 24), 32, qwen3_encoder(4096, 32, 8, 128, 12288, flux2.CUT), distilled=False
        ),
    },
    tiny=flux2.tiny(qwen3_encoder(16, 2, 1, 8, 32, flux2.CUT)[1]),
)
