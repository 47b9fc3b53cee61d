"""DeeDiff's network (Tang et al. 2023, arXiv 2309.17074): exits and heads that say how uncertain they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn


class ExitHeads(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One exit and one uncertainty head after each block but the last, for hidden states [B, tokens, width]."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.exits = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.uncertainties = nn.ModuleList(nn.Linear(2 * width, 1) for _ in range(depth - 1))
        for parameter in self.exits.parameters():
            nn.init.zeros_(parameter)

    def leave(self, number: int, hidden_states: torch.Tensor) -> torch.Tensor:
        """What would leave the last block, as far as block ``number`` (0-based) can say."""
        normed = F.layer_norm(hidden_states, hidden_states.shape[-1:])
        left: torch.Tensor = hidden_states + self.exits[number](normed)
        return left

    def uncertainty(self, number: int, hidden_states: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The expected error after block ``number``: float32 [B] in 0..1, the mean over tokens. ``t`` float [B]."""
        normed = F.layer_norm(hidden_states, hidden_states.shape[-1:])
        when = get_timestep_embedding(t, hidden_states.shape[-1]).to(normed.dtype)[:, None].expand_as(normed)
        return self.uncertainties[number](torch.cat([normed, when], dim=-1)).float().sigmoid().mean(dim=(1, 2))  # type: ignore[no-any-return]
