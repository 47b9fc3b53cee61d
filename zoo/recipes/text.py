"""The word-level tokenizer and tiny T5 encoder shared by the bundled text models."""

from __future__ import annotations

from transformers import T5Config, T5EncoderModel, T5Tokenizer

from zoo.recipes import digits, emoji

MAX_TOKENS = 12
ATTRIBUTES = ("good", "bad", "clean", "noisy", "colourful", "dull", "picture")


def vocabulary() -> list[str]:
    """Every word the bundled prompts use, sorted."""
    words = {w for caption in emoji.captions() + digits.captions() for w in caption.split()}
    return sorted(words | set(ATTRIBUTES))


def build_tokenizer() -> T5Tokenizer:
    """A T5 unigram tokenizer whose pieces are whole words; unknown words map to ``<unk>``."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -10.0)]
    pieces += [("▁" + word, -2.0) for word in vocabulary()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)


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
