"""The word-level tokenizers and the tiny T5 and CLIP encoders of the bundled text models."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from zoo.recipes import digits, emoji

MAX_TOKENS = 12
SD3_TOKENS = 8  # the longest caption has 7, or 8 with CLIP's two special ones
ATTRIBUTES = ("good", "bad", "clean", "noisy", "colourful", "dull", "picture")


def vocabulary() -> list[str]:
    """Every word the bundled prompts use, sorted."""
    words = {w for caption in emoji.captions() + digits.captions() for w in caption.split()}
    return sorted(words | set(ATTRIBUTES))


def build_tokenizer(longest: int = MAX_TOKENS) -> T5Tokenizer:
    """A T5 unigram tokenizer whose pieces are whole words; unknown words map to ``<unk>``."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -10.0)]
    pieces += [("▁" + word, -2.0) for word in vocabulary()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=longest)


def build_text_encoder(tokenizer: T5Tokenizer, width: int = 96, layers: int = 2) -> T5EncoderModel:
    """A randomly initialised two-layer T5 encoder over the word vocabulary."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=4 * width,
        num_layers=layers,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config)


def build_clip_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer whose merges go on until every word of the vocabulary is one token."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    learned.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = vocabulary()
    trainer = trainers.BpeTrainer(
        vocab_size=100 * len(words),
        min_frequency=1,
        end_of_word_suffix="</w>",
        special_tokens=[start, end],
        show_progress=False,
    )
    learned.train_from_iterator(words, trainer)
    model = json.loads(learned.to_str())["model"]
    return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=SD3_TOKENS)


def build_clip(tokenizer: CLIPTokenizer, width: int = 48, layers: int = 2) -> CLIPTextModelWithProjection:
    """A randomly initialised two-layer CLIP text encoder, of whose layers Stable Diffusion 3 reads the last but one."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=SD3_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModelWithProjection(config)
