"""Text encoders and tokenizers that need no download, for pipelines with random weights."""

from __future__ import annotations

from typing import Any

CHARACTERS = [chr(code) for code in range(33, 127)]
T5_VOCABULARY = 4 + len(CHARACTERS)
CLIP_VOCABULARY = 2 + 2 * len(CHARACTERS)
NOTE_CUT = "the text encoders have {layers} layers each and the published ones more: the text stage is not timed as published"
NOTE_T5 = "the text encoder is a T5 XXL cut to {layers} of 24 layers: the text stage is not timed as published"

TINY_T5 = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1}
TINY_CLIP = {"hidden_size": 16, "projection_dim": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


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


def clip_tokenizer(tokens: int = 77) -> Any:
    """A CLIP tokenizer that knows characters only."""
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *CHARACTERS, *(character + "</w>" for character in CHARACTERS)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=tokens)


def clip_encoder(width: int, heads: int, feed_forward: int, *, projected: bool = True) -> tuple[str, dict[str, Any]]:
    """The class's name and the config of a CLIP text encoder (CLIP-L: width 768, 12 layers; bigG: 1280, 32), cut to two layers,
    with its projection or without."""
    return "CLIPTextModelWithProjection" if projected else "CLIPTextModel", {
        "vocab_size": CLIP_VOCABULARY,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }


def gemma_tokenizer(tokens: int) -> Any:
    """A Gemma tokenizer that knows characters only."""
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *CHARACTERS]
    return GemmaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=tokens)


def gemma_encoder(width: int, heads: int, feed_forward: int) -> tuple[str, dict[str, Any]]:
    """The class's name and the config of a Gemma 2, cut to two layers (2B: width 2304, 26 layers)."""
    return "Gemma2Model", {
        "vocab_size": 6 + len(CHARACTERS),
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": 256,
    }
