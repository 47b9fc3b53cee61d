"""Text encoders and tokenizers that need no download, for pipelines with random weights."""

from __future__ import annotations

from typing import Any

CHARACTERS = [chr(code) for code in range(33, 127)]
T5_VOCABULARY = 4 + len(CHARACTERS)
NOTE_T5 = "the text encoder is a T5 XXL cut to {layers} of 24 layers: the text stage is not timed as published"


def t5_tokenizer(tokens: int) -> Any:
    """A T5 tokenizer that knows characters only."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((character, -3.0) for character in CHARACTERS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=tokens)


def t5_encoder(width: int = 4096, heads: int = 64, feed_forward: int = 10240, layers: int = 2) -> tuple[str, dict[str, Any]]:
    """The class's name and the config of a T5 v1.1 encoder. XXL has 24 layers, 4.7 billion parameters; its width is kept."""
    return "T5EncoderModel", {
        "vocab_size": T5_VOCABULARY,
        "d_model": width,
        "d_kv": width // heads,
        "d_ff": feed_forward,
        "num_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }
