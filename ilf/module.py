"""The feedback module: blocks of the backbone's own kind, told where the step goes, and a scale a looped block."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from harness.models.families.base import Conditioning, State
from harness.models.families.table import families
from ilf.schedule import Schedule
from ilf.settings import IlfSettings


@dataclass(frozen=True)
class Transition:
    """What the module is told about the step that it runs in; tensors have the looped rows [B] in front.

    ``t``, ``t_next``, ``t_before``: float timesteps of this step, of where it lands (-1: the clean image) and of the step before
    (1000: there was none). ``sample`` and ``previous``: the noisy latent, and the guided prediction of the step before (this
    step's own sample where there was none), [B, C, H, W] or packed [B, tokens, channels]. ``alone``: True where only the
    conditional branch runs. ``guidance``: the scale, float [B].
    """

    t: torch.Tensor
    t_next: torch.Tensor
    t_before: torch.Tensor
    sample: torch.Tensor
    previous: torch.Tensor
    alone: torch.Tensor
    guidance: torch.Tensor

    @classmethod
    def same(
        cls,
        times: tuple[float, float, float],
        sample: torch.Tensor,
        previous: torch.Tensor,
        guidance: float,
        *,
        alone: bool = False,
    ) -> Transition:
        """Of rows that all take the same step; ``times``: ``t``, ``t_next`` and ``t_before``."""

        def full(value: float) -> torch.Tensor:
            return torch.full((len(sample),), float(value), device=sample.device)

        t, t_next, t_before = map(full, times)
        return cls(t, t_next, t_before, sample, previous, full(alone).bool(), full(guidance))


class FeedbackModule(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reads the streams that leave the looped blocks; returns what is added to each looped block's input.

    The paper's form, ``IlfSettings.of({"form": "paper"})``, has one block, and one scale per looped block (and stream), which
    starts at zero, so that the untrained module changes nothing. The source states these. Everything else is our choice:

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

    ``block_settings``, ``patch_size`` (0: latents are packed, one vector a token), ``channels`` and ``width`` are the backbone's;
    its blocks are of the kind of that ``family``'s list number ``segment`` (from 0). ``settings``: the resolved
    :class:`IlfSettings`. ``solvers``: a learned solver for each step count (see :class:`SolverTable`), which replaces the
    settings' solver and power.
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
        family: str = "pixart",
        segment: int = 0,
        width: int = 0,
    ) -> None:
        super().__init__()
        chosen = self.settings = IlfSettings(**settings)
        width = self.width = width or block_settings["num_attention_heads"] * block_settings["attention_head_dim"]
        self.kind = families()[family].segments[segment]
        self.streams = self.kind.streams(block_settings)
        self.blocks = nn.ModuleList(self.kind.build(block_settings) for _ in range(chosen.depth))
        times = 3 if chosen.context else 2
        self.transition = _mlp(times * width, width) if chosen.transition_embedding else None
        if chosen.context:
            self.read = nn.Linear(2 * width, width)
            self.patches = _patches(2 * channels, width, patch_size)
            self.mode = nn.Embedding(2, width)  # both branches, or the conditional one alone
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
        """Change ``steps``, ``feedback``, ``power`` or ``start`` of the settings, in the configuration that is saved as well."""
        self.settings = replace(self.settings, **changes)
        self.register_to_config(settings=self.settings.content())

    def forward(self, left: State, null: State | None, transition: Transition, conditioning: Conditioning) -> list[State]:
        """Additions, for each looped block one to each stream that leaves the module's own, [B, tokens, width].

        ``left`` [B, tokens, width] left the looped blocks on the rows that loop, ``null`` on the null branch's (None where
        there is none); ``conditioning`` is what the last looped block was called with.
        """
        own, dtype = next(self.parameters()).dtype, left[0].dtype
        mixed = own == torch.float32 and dtype in (torch.bfloat16, torch.float16)  # in training, beside a half backbone
        with torch.autocast(left[0].device.type, dtype) if mixed else nullcontext():
            return self._additions(left, null, transition, conditioning)

    def _additions(self, left: State, null: State | None, transition: Transition, conditioning: Conditioning) -> list[State]:
        hidden = left[0]
        if self.settings.context:
            hidden = self._in_context(hidden, hidden if null is None else null[0], transition)
        where = self._where(transition).to(hidden.dtype)
        if self.transition is not None:
            hidden = hidden + self.transition(where)[:, None]
        if self.strength is not None:
            told = get_timestep_embedding(100 * transition.guidance, self.width, max_period=10000)
            hidden = hidden + self.strength(told.to(hidden.dtype))[:, None]
        state: State = (hidden, *left[1:])
        for block in self.blocks:
            state = (*self.kind.run(block, state, conditioning), *state[self.streams :])
        places = list(state[: self.streams]) * (self.fed // self.streams)
        fed = places if self.maps is None else [linear(x) for linear, x in zip(self.maps, places, strict=True)]
        gated = [(gate * x).to(left[0].dtype) for gate, x in zip(self._gates(where), fed, strict=True)]
        return [tuple(gated[i : i + self.streams]) for i in range(0, len(gated), self.streams)]

    def _in_context(self, left: torch.Tensor, null: torch.Tensor, transition: Transition) -> torch.Tensor:
        """The image's stream with the null branch's and, on the image's tokens, the latents."""
        both = [nn.functional.layer_norm(x, (self.width,)) for x in (left, null)]
        change = transition.previous - transition.sample
        if isinstance(self.patches, nn.Linear):
            seen: torch.Tensor = self.patches(torch.cat([transition.sample, change], dim=-1))
        else:
            seen = self.patches(torch.cat([transition.sample, change], dim=1)).flatten(2).transpose(1, 2)
        hidden: torch.Tensor = self.read(torch.cat(both, dim=-1))
        tokens, place = seen.shape[1], self.kind.image(seen.shape[1], hidden.shape[1])
        if tokens == hidden.shape[1]:
            hidden = hidden + seen
        else:
            hidden = torch.cat([hidden[:, : place.start], hidden[:, place] + seen, hidden[:, place.stop :]], dim=1)
        mode: torch.Tensor = self.mode(transition.alone.long())[:, None]
        return hidden + mode

    def _where(self, transition: Transition) -> torch.Tensor:
        times = [transition.t, transition.t_next + 1] + ([transition.t_before] if self.settings.context else [])
        return torch.cat([get_timestep_embedding(x, self.width, max_period=10000) for x in times], dim=1)

    def _gates(self, where: torch.Tensor) -> list[torch.Tensor]:
        if self.settings.gating == "fixed":
            return list(self.scales)
        return list(self.gates(where).view(len(where), self.fed, 1, self.width).unbind(1))

    @property
    def fed(self) -> int:
        """How many places the feedback goes to: the streams of each looped block."""
        return self.streams * max(1, self.settings.looped)


def _patches(channels: int, width: int, patch: int) -> nn.Module:
    """From latents, on a grid or packed, to tokens."""
    return nn.Conv2d(channels, width, patch, patch) if patch else nn.Linear(channels, width)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs // 2), nn.SiLU(), nn.Linear(inputs // 2, outputs))


def _zero(mlp: nn.Sequential) -> nn.Sequential:
    """Zero at the start, whatever goes in."""
    for parameter in mlp[-1].parameters():
        nn.init.zeros_(parameter)
    return mlp
