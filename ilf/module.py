"""The feedback module: blocks of the backbone's own kind, told where the step goes, and a scale a looped block."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from ilf.schedule import Schedule
from ilf.settings import IlfSettings

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
class Transition:
    """What the module is told about the step that it runs in; tensors have the looped rows [B] in front.

    ``t``, ``t_next``, ``t_before``: float timesteps of this step, of where it lands (-1: the clean image) and of the step before
    (1000: there was none). ``sample`` and ``previous``: the noisy latent, and the guided noise prediction of the step before
    (this step's own sample where there was none), [B, C, H, W]. ``distilled``: True where only the conditional branch runs and
    the module stands for guidance. ``guidance``: the scale, float [B].
    """

    t: torch.Tensor
    t_next: torch.Tensor
    t_before: torch.Tensor
    sample: torch.Tensor
    previous: torch.Tensor
    distilled: torch.Tensor
    guidance: torch.Tensor


class FeedbackModule(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reads the hidden states that leave the looped blocks; returns what is added to each looped block's input.

    The paper's form, ``IlfSettings.of({"form": "paper"})``, has one block, and one scale per looped block, which starts at
    zero, so that the untrained module changes nothing. The source states these. Everything else is our choice:

    - ``loop``: the looped blocks. ``inner_pass=False``: no second pass; the feedback is added to what leaves the last of them
      (an adapter without a loop, for comparison).
    - ``depth``: blocks in the module. ``separate``: a linear map of its own for each looped block.
    - ``gating``: ``fixed`` numbers, or ``time``: a gate per channel, a function of the transition.
    - ``transition_embedding``: the module is told t and where this step lands.
    - ``context``: it also sees the null branch's hidden states, the noisy latent, and the guided prediction and timestep of
      the step before, of which a solver's second order is made.
    - ``branches``: ``both`` loops on both guidance branches; ``conditional`` on the conditional one only.
    - ``guidance_input``: it is told the guidance scale and works at scales other than ``guidance``, which it was trained for.
    - ``inner_time``: the second pass runs at ``same`` time, the ``next`` one or their ``middle``.

    ``block_settings``, ``patch_size`` and ``channels`` are the backbone's; ``settings`` the resolved :class:`IlfSettings`.
    ``solvers``: a learned solver for each step count (see :class:`SolverTable`), which replaces the settings' solver and power.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        block_settings: dict[str, Any],
        settings: dict[str, Any],
        guidance: float = 1.5,
        patch_size: int = 2,
        channels: int = 4,
        solvers: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        chosen = self.settings = IlfSettings(**settings)
        width = self.width = block_settings["num_attention_heads"] * block_settings["attention_head_dim"]
        self.blocks = nn.ModuleList(build_block(block_settings) for _ in range(chosen.depth))
        times = 3 if chosen.context else 2
        self.transition = _mlp(times * width, width) if chosen.transition_embedding else None
        if chosen.context:
            self.read = nn.Linear(2 * width, width)
            self.patches = nn.Conv2d(2 * channels, width, patch_size, patch_size)
            self.mode = nn.Embedding(2, width)  # both branches, or guidance-distilled
        self.strength = _mlp(width, width) if chosen.guidance_input else None
        if chosen.gating == "time":
            self.gates = _zero(_mlp(times * width, self.fed * width))
        else:
            self.scales = nn.Parameter(torch.zeros(self.fed))
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(self.fed)) if chosen.separate else None
        self.eval()  # in train mode a DiT block would drop class labels at random

    def schedule(self, steps: int | None = None, feedback: str | None = None, guidance_distilled: str | None = None) -> Schedule:
        """The module's own :class:`Schedule`, or with another step count or other steps chosen."""
        return Schedule.of(self.settings, self.config.solvers, steps, feedback, guidance_distilled)

    def reschedule(self, **changes: Any) -> None:
        """Change ``steps``, ``feedback`` or ``power`` of the settings, in the configuration that is saved as well."""
        self.settings = replace(self.settings, **changes)
        self.register_to_config(settings=self.settings.content())

    def forward(
        self, left: torch.Tensor, null: torch.Tensor | None, transition: Transition, conditioning: dict[str, Any]
    ) -> list[torch.Tensor]:
        """Additions [B, tokens, width] to the inputs of the looped blocks.

        ``left`` [B, tokens, width] left the looped blocks on the rows that loop, ``null`` on the null branch's (None where
        there is none); ``conditioning`` is what the looped blocks were called with.
        """
        own = next(self.parameters()).dtype
        mixed = own == torch.float32 and left.dtype in (torch.bfloat16, torch.float16)  # in training, beside a half backbone
        with torch.autocast(left.device.type, left.dtype) if mixed else nullcontext():
            return self._additions(left, null, transition, conditioning)

    def _additions(
        self, left: torch.Tensor, null: torch.Tensor | None, transition: Transition, conditioning: dict[str, Any]
    ) -> list[torch.Tensor]:
        hidden = left
        if self.settings.context:
            both = [nn.functional.layer_norm(x, (self.width,)) for x in (left, left if null is None else null)]
            seen = torch.cat([transition.sample, transition.previous - transition.sample], dim=1)
            hidden = self.read(torch.cat(both, dim=-1)) + self.patches(seen).flatten(2).transpose(1, 2)
            hidden = hidden + self.mode(transition.distilled.long())[:, None]
        where = self._where(transition).to(left.dtype)
        if self.transition is not None:
            hidden = hidden + self.transition(where)[:, None]
        if self.strength is not None:
            told = get_timestep_embedding(100 * transition.guidance, self.width, max_period=10000)
            hidden = hidden + self.strength(told.to(left.dtype))[:, None]
        for block in self.blocks:
            hidden = block(hidden, **conditioning)
        fed = [hidden] * self.fed if self.maps is None else [linear(hidden) for linear in self.maps]
        return [(gate * x).to(left.dtype) for gate, x in zip(self._gates(where), fed, strict=True)]

    def _where(self, transition: Transition) -> torch.Tensor:
        times = [transition.t, transition.t_next + 1] + ([transition.t_before] if self.settings.context else [])
        return torch.cat([get_timestep_embedding(x, self.width, max_period=10000) for x in times], dim=1)

    def _gates(self, where: torch.Tensor) -> list[torch.Tensor]:
        if self.settings.gating == "fixed":
            return list(self.scales)
        return list(self.gates(where).view(len(where), self.fed, 1, self.width).unbind(1))

    @property
    def fed(self) -> int:
        """How many places the feedback goes to."""
        return max(1, self.settings.looped)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs // 2), nn.SiLU(), nn.Linear(inputs // 2, outputs))


def _zero(mlp: nn.Sequential) -> nn.Sequential:
    """Zero at the start, whatever goes in."""
    for parameter in mlp[-1].parameters():
        nn.init.zeros_(parameter)
    return mlp
