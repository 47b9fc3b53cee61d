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


QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_WORDS = (  # of the instruction that Qwen-Image puts before a prompt, and cuts off again as 34 tokens
    *("system", "Describe", "Ġthe", "Ġimage", "Ġby", "Ġdetailing", "Ġcolor", "Ġshape", "Ġsize", "Ġtexture", "Ġquantity", "Ġtext"),
    *("Ġspatial", "Ġrelationships", "Ġof", "Ġobjects", "Ġand", "Ġbackground", "user", "assistant"),
)
_STARTS = dict.fromkeys(word[:end] for word in QWEN_WORDS for end in range(2, len(word) + 1))
QWEN_VOCABULARY = len(QWEN_SPECIAL) + 2 + len(CHARACTERS) + len(_STARTS)
QWEN_CHAT = (  # of Qwen 3 for one message, which may think
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer(tokens: int) -> Any:
    """A Qwen 2 tokenizer, which Qwen 3 has too, that knows characters and the words around a prompt."""
    from transformers import Qwen2Tokenizer

    words = [*QWEN_SPECIAL, "Ġ", "Ċ", *CHARACTERS, *_STARTS]
    merges = [(start[:-1], start[-1]) for start in _STARTS]
    tokenizer = Qwen2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges, model_max_length=tokens)
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_SPECIAL[1:]})
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer


def qwen_text(width: int, heads: int, groups: int, feed_forward: int, layers: int = 2) -> dict[str, Any]:
    """What the language models of Qwen 2.5 and Qwen 3 have in common."""
    return {
        "vocab_size": QWEN_VOCABULARY,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }


MISTRAL_CHAT = (  # what its user says, as FLUX.2 puts it
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
)


def mistral_tokenizer(tokens: int) -> Any:
    """A Mistral tokenizer that knows characters only, and a conversation as what its user says."""
    from transformers import LlamaTokenizer

    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "▁", *CHARACTERS])}
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=[], pad_token="<pad>", model_max_length=tokens)
    tokenizer.chat_template = MISTRAL_CHAT
    return tokenizer


def qwen3_encoder(
    width: int, heads: int, key_heads: int, head_width: int, feed_forward: int, layers: int
) -> tuple[str, dict[str, Any]]:
    """The class's name and the config of a Qwen3 with fewer ``layers`` (4B: width 2560, 36 layers; 8B: 4096, 36)."""
    return "Qwen3ForCausalLM", {**qwen_text(width, heads, key_heads, feed_forward, layers), "head_dim": head_width}


def mistral_encoder(
    width: int, heads: int, key_heads: int, head_width: int, feed_forward: int, layers: int
) -> tuple[str, dict[str, Any]]:
    """The class's name and the config of a Mistral Small 3 with fewer ``layers`` (24B: width 5120, 40 layers). Its part for
    images, which prompts do not use, is tiny."""
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {
        "model_type": "mistral",
        "vocab_size": 5 + len(CHARACTERS),
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_width,
    }
    return "Mistral3ForConditionalGeneration", {
        "text_config": text,
        "vision_config": {"model_type": "pixtral", "image_size": 16, "patch_size": 4, **vision},
    }


def qwen_vl_config(width: int, heads: int, groups: int, feed_forward: int, seeing: int, layers: int = 2) -> dict[str, Any]:
    """The config of a Qwen 2.5 VL; ``seeing``: the width of the part that sees images, which has nothing to do here."""
    pairs = width // heads // 2
    sections = [pairs // 4, pairs * 3 // 8, pairs - pairs // 4 - pairs * 3 // 8]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    sight = {"depth": layers, "hidden_size": seeing, "intermediate_size": seeing * 8 // 3, "num_heads": seeing // 80 or 2}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {
        "text_config": {**qwen_text(width, heads, groups, feed_forward, layers), "rope_parameters": rope},
        "vision_config": {**sight, "out_hidden_size": width},
        **dict.fromkeys(names, 0),
    }


TINY_QWEN_VL = qwen_vl_config(16, 2, 1, 32, seeing=16, layers=1)


def qwen_vl_encoder() -> tuple[str, dict[str, Any]]:
    """The class's name and the config of a Qwen 2.5 VL 7B, cut from 28 layers to two; the part that sees images too, from 32."""
    return "Qwen2_5_VLForConditionalGeneration", qwen_vl_config(3584, 28, 4, 18944, seeing=1280)
