"""The feedback module: blocks of the backbone's own kind, told where the step goes, and a scale a looped block."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

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


def block_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a backbone's blocks, from its config. DiT has no cross-attention and embeds its own class."""
    return {name: config[name] for name in BLOCK_SETTINGS if name in config}


def build_block(settings: dict[str, Any]) -> BasicTransformerBlock:
    """A freshly initialised block with a backbone block's settings."""
    rest = dict(settings)
    heads, head_dim = rest.pop("num_attention_heads"), rest.pop("attention_head_dim")
    return BasicTransformerBlock(heads * head_dim, heads, head_dim, **rest)


@dataclass(frozen=True)
class Jump:
    """What a feedback step knows of itself; tensors have the looped rows [B] in front.

    ``t``, ``t_next``, ``t_before``: timesteps of this step, of where it lands (-1: the clean image) and of the step before
    (1000: there was none), float. ``sample`` and ``previous``: the noisy latent and the guided noise prediction of the step
    before (this step's own sample where there was none), [B, C, H, W]. ``folded``: True where only the conditional branch
    runs. ``guidance``: float [B].
    """

    t: torch.Tensor
    t_next: torch.Tensor
    t_before: torch.Tensor
    sample: torch.Tensor
    previous: torch.Tensor
    folded: torch.Tensor
    guidance: torch.Tensor


class FeedbackModule(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reads the hidden states that leave the looped blocks; returns what is added to each looped block's input.

    The paper's form is ``FeedbackModule(settings, first, last)``: one block, and one scale a looped block, which starts at
    zero, so that the untrained module changes nothing. The source states these. Everything else is our choice:

    - ``first``, ``last``: the looped blocks, 1-based, inclusive. ``inner_pass=False``: no second pass; the feedback is added
      to what leaves block ``last`` (the adapter without a loop, for comparison).
    - ``depth``: blocks in the module. ``separate``: a linear map of its own for each looped block.
    - ``gating``: ``fixed`` numbers, or ``time``: a gate a channel, a function of the jump.
    - ``jump_embedding``: the module is told t and where this step lands.
    - ``context``: it also sees the null branch's hidden states, the noisy latent, and the guided prediction and timestep of
      the step before, of which a solver's second order is made.
    - ``branches``: ``both`` loops on both guidance branches; ``conditional`` on the conditional one only.
    - ``guidance``: the scale it was trained for; ``guidance_input``: it is told the scale and works at others.
    - ``inner_time``: the second pass runs at ``same`` time, the ``next`` one or their ``middle``.
    - ``solver``, ``power`` (of the timesteps), ``grids`` (step counts), ``folded`` (on which steps only the conditional
      branch runs), ``feedback`` (on which the loop runs) and ``steps``: what it was trained for, and a method's defaults.
    - ``solvers``: a learned solver for each step count (see :class:`SolverTable`), which then takes the place of these.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        block_settings: dict[str, Any],
        first: int,
        last: int,
        inner_pass: bool = True,
        depth: int = 1,
        separate: bool = False,
        gating: str = "fixed",
        jump_embedding: bool = False,
        context: bool = False,
        branches: str = "both",
        guidance: float = 1.5,
        guidance_input: bool = False,
        inner_time: str = "same",
        solver: str = "dpm++",
        power: float = 1.0,
        grids: list[int] | None = None,
        folded: str = "none",
        feedback: str = "all",
        steps: int = 10,
        patch_size: int = 2,
        channels: int = 4,
        solvers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        width = block_settings["num_attention_heads"] * block_settings["attention_head_dim"]
        self.width = width
        self.blocks = nn.ModuleList(build_block(block_settings) for _ in range(depth))
        times = 3 if context else 2
        self.jump = _mlp(times * width, width) if jump_embedding else None
        if context:
            self.read = nn.Linear(2 * width, width)
            self.patches = nn.Conv2d(2 * channels, width, patch_size, patch_size)
            self.mode = nn.Embedding(2, width)  # both branches, or folded
        self.strength = _mlp(width, width) if guidance_input else None
        if gating == "time":
            self.gates = _zero(_mlp(times * width, self.fed * width))
        else:
            self.scales = nn.Parameter(torch.zeros(self.fed))
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(self.fed)) if separate else None
        self.eval()  # in train mode a DiT block would drop class labels at random

    def forward(
        self, left: torch.Tensor, null: torch.Tensor | None, jump: Jump, conditioning: dict[str, Any]
    ) -> list[torch.Tensor]:
        """Additions [B, tokens, width] to the inputs of the looped blocks.

        ``left`` [B, tokens, width] left the looped blocks on the rows that loop, ``null`` on the null branch's (None where
        there is none); ``conditioning`` is what the looped blocks were called with.
        """
        own = next(self.parameters()).dtype
        mixed = own == torch.float32 and left.dtype in (torch.bfloat16, torch.float16)  # in training, beside a half backbone
        with torch.autocast(left.device.type, left.dtype) if mixed else nullcontext():
            return self._additions(left, null, jump, conditioning)

    def _additions(
        self, left: torch.Tensor, null: torch.Tensor | None, jump: Jump, conditioning: dict[str, Any]
    ) -> list[torch.Tensor]:
        hidden = left
        if self.config.context:
            both = [nn.functional.layer_norm(x, (self.width,)) for x in (left, left if null is None else null)]
            seen = torch.cat([jump.sample, jump.previous - jump.sample], dim=1)
            hidden = self.read(torch.cat(both, dim=-1)) + self.patches(seen).flatten(2).transpose(1, 2)
            hidden = hidden + self.mode(jump.folded.long())[:, None]
        where = self._where(jump).to(left.dtype)
        if self.jump is not None:
            hidden = hidden + self.jump(where)[:, None]
        if self.strength is not None:
            told = get_timestep_embedding(100 * jump.guidance, self.width, max_period=10000)
            hidden = hidden + self.strength(told.to(left.dtype))[:, None]
        for block in self.blocks:
            hidden = block(hidden, **conditioning)
        fed = [hidden] * self.fed if self.maps is None else [linear(hidden) for linear in self.maps]
        return [(gate * x).to(left.dtype) for gate, x in zip(self._gates(where), fed, strict=True)]

    def _where(self, jump: Jump) -> torch.Tensor:
        times = [jump.t, jump.t_next + 1] + ([jump.t_before] if self.config.context else [])
        return torch.cat([get_timestep_embedding(x, self.width, max_period=10000) for x in times], dim=1)

    def _gates(self, where: torch.Tensor) -> list[torch.Tensor]:
        if self.config.gating == "fixed":
            return list(self.scales)
        return list(self.gates(where).view(len(where), self.fed, 1, self.width).unbind(1))

    @property
    def looped(self) -> int:
        """How many blocks run a second time."""
        return int(self.config.last - self.config.first + 1) if self.config.inner_pass else 0

    @property
    def fed(self) -> int:
        """How many places the feedback goes to."""
        return max(1, self.looped)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs // 2), nn.SiLU(), nn.Linear(inputs // 2, outputs))


def _zero(mlp: nn.Sequential) -> nn.Sequential:
    """Zero at the start, whatever goes in."""
    for parameter in mlp[-1].parameters():
        nn.init.zeros_(parameter)
    return mlp
