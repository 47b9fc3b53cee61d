"""The feedback module: one transformer block of the backbone's own kind, a jump embedding, and one scale a looped block."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

BLOCK_SETTINGS = (
    "num_attention_heads", "attention_head_dim", "cross_attention_dim", "activation_fn", "attention_bias",
    "upcast_attention", "norm_type", "norm_elementwise_affine", "norm_eps", "num_embeds_ada_norm",
)  # fmt: skip


def block_settings(transformer: nn.Module) -> dict[str, Any]:
    """The settings of a backbone's blocks, from its config. DiT has no cross-attention and embeds its own class."""
    config: Any = transformer.config
    return {name: config[name] for name in BLOCK_SETTINGS if name in config}


def build_block(settings: dict[str, Any]) -> BasicTransformerBlock:
    """A freshly initialised block with a backbone block's settings."""
    rest = dict(settings)
    heads, head_dim = rest.pop("num_attention_heads"), rest.pop("attention_head_dim")
    return BasicTransformerBlock(heads * head_dim, heads, head_dim, **rest)


class FeedbackModule(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reads the hidden states [B, tokens, width] that leave the looped blocks; returns what is fed back to their inputs.

    The paper's module is the block and the scales (which start at zero: the untrained module changes nothing).
    Ours, switched by ``jump_embedding``: the block also gets told where it is (t) and where this step lands (t_next).
    ``first`` and ``last`` are the looped blocks, 1-based and inclusive. ``folded``: the output is the GUIDED prediction
    at scale ``guidance``, from the conditional branch alone. ``solver`` and ``grids`` are what it was trained for.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, block_settings: dict[str, Any], first: int, last: int, folded: bool = True, guidance: float = 1.5,
        jump_embedding: bool = True, solver: str = "dpm++1", grids: list[int] | None = None, steps: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        width = block_settings["num_attention_heads"] * block_settings["attention_head_dim"]
        self.block = build_block(block_settings)
        self.scales = nn.Parameter(torch.zeros(last - first + 1))
        self.jump = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)) if jump_embedding else None
        self.width = width
        self.eval()  # in train mode a DiT block would drop class labels at random

    def forward(self, hidden_states: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor, **conditioning: Any) -> torch.Tensor:
        """Feedback [B, tokens, width] for timesteps [B]; ``conditioning`` is what the looped blocks were called with."""
        if self.jump is not None:
            where = torch.cat([get_timestep_embedding(x, self.width, max_period=10000) for x in (t, t_next + 1)], dim=1)
            hidden_states = hidden_states + self.jump(where.to(hidden_states.dtype))[:, None]
        return self.block(hidden_states, **conditioning)  # type: ignore[no-any-return]

    @property
    def looped(self) -> int:
        """How many blocks run a second time."""
        return int(self.config.last - self.config.first + 1)
