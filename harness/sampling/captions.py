"""How a pipeline's text encoders read the prompts of a run: which ones they cut, and that they tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.errors import ArtifactError
from harness.models.components import table_of_positions
from harness.sampling.pipeline import Pipeline
from harness.text import cut_note

KINDS = {  # transformers' names of text encoders, and what they are called
    **{"t5": "T5", "clip_text_model": "CLIP", "qwen2_5_vl": "Qwen2.5-VL", "qwen3": "Qwen3", "mistral3": "Mistral"},
}


def caption_notes(pipeline: Pipeline, prompts: Sequence[str]) -> list[str]:
    """A sentence for each text encoder that cuts prompts, or does not know words of them.

    Raises :class:`ArtifactError` where a tokenizer makes the same tokens of all prompts.
    """
    distinct = [_as_read(pipeline, prompt) for prompt in dict.fromkeys(prompts)]
    notes = []
    for name in (name for name in pipeline.pipe.components if name.startswith("tokenizer")):
        part = name.replace("tokenizer", "text_encoder")
        tokenizer, encoder = pipeline.pipe.components[name], pipeline.pipe.components.get(part)
        if tokenizer is None or encoder is None:
            continue
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor of texts and images
        tokens: list[list[int]] = tokenizer(distinct, truncation=False).input_ids
        if len({prompt.casefold() for prompt in distinct}) > 1 and len(set(map(tuple, tokens))) == 1:
            raise ArtifactError(
                expected=f"a {name} that tells prompts apart",
                got=f"the same {len(tokens[0])} tokens for all {len(distinct)} prompts",
                remedy=f"restore or download the {name} again, and check that the prompts are in its language",
            )
        who = f"the {KINDS.get(encoder.config.model_type, encoder.config.model_type)} of {part}"
        notes.append(cut_note(list(map(len, tokens)), longest_text(pipeline, tokenizer, encoder, prompts), who))
        notes.append(_unknown_note(tokens, tokenizer, who))
    return [note for note in notes if note]


def longest_text(pipeline: Pipeline, tokenizer: Any, encoder: Any, prompts: Sequence[str]) -> int:
    """How many tokens of a prompt an encoder reads: its table of positions, or what the pipeline asks for."""
    positions = table_of_positions(encoder.config)
    if positions:
        return min(positions, int(tokenizer.model_max_length))
    asked = pipeline.family.arguments(pipeline, prompts[:1]).get("max_sequence_length")
    return int(asked or pipeline.caption_tokens or tokenizer.model_max_length)


def _as_read(pipeline: Pipeline, prompt: str) -> str:
    """A prompt as the pipeline gives it to its tokenizers: PixArt's writes small letters, others put it into a conversation."""
    pipe = pipeline.pipe
    text = str(pipe._text_preprocessing(prompt)[0]) if hasattr(pipe, "_text_preprocessing") else prompt
    return pipeline.family.written(pipe, text)


def _unknown_note(tokens: Sequence[Sequence[int]], tokenizer: Any, who: str) -> str:
    """How many prompts hold words that a vocabulary lacks; CLIP's has no token for these, and spells them."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.eos_token_id:
        return ""
    count = sum(unknown in one for one in tokens)
    return f"{count} of {len(tokens)} prompts hold words that {who} does not know" if count else ""
