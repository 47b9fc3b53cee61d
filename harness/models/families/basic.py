"""What DiT and PixArt share: diffusers' ``BasicTransformerBlock``, its settings and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.cost.flops import Geometry
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.families.base import Described
from harness.models.families.shapes import TIME_CHANNELS, grid, grid_tokens

if TYPE_CHECKING:
    from diffusers.models.attention import BasicTransformerBlock

BLOCK_SETTINGS = (
    "num_attention_heads",
    "attention_head_dim",
    "cross_attention_dim",
    "activation_fn",
    "attention_bias",
    "upcast_attention",
    "norm_type",
    "norm_elementwise_affine",
    "norm_eps",
    "num_embeds_ada_norm",
)


def block_settings(config: Mapping[str, Any], number: int = 1) -> dict[str, Any]:
    """The settings of a backbone's blocks, from its config. DiT has no cross-attention and embeds its own class."""
    return {name: config[name] for name in BLOCK_SETTINGS if name in config}


def build_block(settings: dict[str, Any]) -> BasicTransformerBlock:
    """A freshly initialised block with a backbone block's settings."""
    from diffusers.models.attention import BasicTransformerBlock

    rest = dict(settings)
    heads, head_dim = rest.pop("num_attention_heads"), rest.pop("attention_head_dim")
    return BasicTransformerBlock(heads * head_dim, heads, head_dim, **rest)


def block_cost(width: int, tokens: int, caption_tokens: int, caption_width: int, own_embedding: bool) -> BlockCost:
    """One block; ``caption_width`` is 0 without cross-attention. The MLP is four times as wide as the model, as in every
    published one. A DiT block embeds time and class on its own, once a sample."""
    modulation = 6 * width**2 + TIME_CHANNELS * width + width**2
    parts = [Part("attn1", "attention", 4 * linear(tokens, width, width) + attention(tokens, tokens, width))]
    if caption_width:
        caption = 2 * linear(caption_tokens, caption_width, width) + attention(tokens, caption_tokens, width)
        parts.append(Part("attn2", "cross", 2 * linear(tokens, width, width) + caption))
    parts.append(Part("ff", "mlp", 2 * linear(tokens, width, 4 * width)))
    return BlockCost(tuple(parts), modulation if own_embedding else 0, attention(tokens, tokens, width))


def geometry(model: Described, caption_tokens: int = 0) -> Geometry:
    """The shapes of a DiT or PixArt transformer. Raises :class:`KeyError` on a foreign config."""
    config = model.transformer
    n, patch = grid_tokens(model), int(config["patch_size"])
    d = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    cross, caption_width = int(config.get("cross_attention_dim") or 0), int(config.get("caption_channels") or 0)
    block = block_cost(d, n, caption_tokens, cross, config.get("norm_type") == "ada_norm_zero")
    shape = grid(model)
    out = int(config["out_channels"] or config["in_channels"])
    head = linear(n, d, patch**2 * out)
    rest = linear(n, patch**2 * shape[0], d) + head + TIME_CHANNELS * d + d * d
    caption_tokens = caption_tokens if caption_width else 0
    if caption_tokens:  # time is embedded once a model; in DiT every block does it, and the head projects it again
        rest += 6 * d * d + linear(caption_tokens, caption_width + d, d)
    else:
        rest += 2 * d * d
    blocks = (block,) * int(config["num_layers"])
    return Geometry(blocks, d, n, n, caption_tokens, caption_width, shape, rest, head)
