"""``ilf-bench train``: a feedback module for the pipeline of a preset."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from harness.errors import UsageError
from harness.loading import load_pipeline, quiet_libraries
from harness.pipeline import Pipeline
from harness.prompts import load_prompts
from harness.spec import load_spec
from harness.training import TrainRecord, TrainSettings
from ilf.train import IlfSettings, paper_form, train_module
from ilf.trajectories import record, stored, union_grid

FORMS = ("ours", "adapter", "paper")
JUMPS_BYTES = 4e9  # of hidden states that a round keeps in memory
REMEMBERED = 4


@dataclass(frozen=True)
class TrainPlan:
    """What ``ilf-bench train`` will do, from its options."""

    form: str = "ours"
    trajectories: int = 1536
    steps: int = 6000
    batch: int = 64
    lr: float = 2e-3
    rounds: int = 12
    grids: tuple[int, ...] = (5, 6, 8, 10)
    power: float = 1.5
    folded: str = "none"
    seed: int = 0
    gradient_checkpointing: bool = False


def settings_for(plan: TrainPlan, pipeline: Pipeline) -> IlfSettings:
    """The module's form on this backbone. Raises :class:`UsageError` on an unknown form.

    Ours loops over the last block; the paper's form over the middle half. A round runs as many trajectories as keep its
    hidden states within memory.
    """
    if plan.form not in FORMS:
        raise UsageError(expected=f"a form out of {', '.join(FORMS)}", got=repr(plan.form), remedy="--form ours")
    depth, config = len(pipeline.blocks), _config(pipeline)
    tokens = (config.sample_size // config.patch_size) ** 2
    width = config.num_attention_heads * config.attention_head_dim
    bytes_a_run = sum(plan.grids) * 3 * tokens * width * 2
    runs = max(1, min(256, plan.trajectories, int(JUMPS_BYTES / REMEMBERED / bytes_a_run)))
    if plan.form == "paper":
        quarter = depth // 4
        paper = paper_form((quarter + 1, depth - quarter), plan.grids, plan.grids[-1])
        return replace(paper, batch=plan.batch, runs=runs, gradient_checkpointing=plan.gradient_checkpointing)
    return IlfSettings(
        (depth, depth), plan.grids, plan.grids[-1], inner_pass=plan.form == "ours", folded=plan.folded, power=plan.power,
        batch=plan.batch, rounds=min(plan.rounds, plan.steps), runs=runs, remembered=REMEMBERED,
        gradient_checkpointing=plan.gradient_checkpointing,
    )  # fmt: skip


def train(preset: str, overrides: dict[str, Any], plan: TrainPlan, out: Path, console: Console) -> Path:
    """Record the teacher's trajectories once, train, save module and record; the same command resumes a cut training.

    Returns the module's folder. Trajectories and checkpoints lie in ``out/work`` until the module is saved.
    """
    quiet_libraries()
    spec = load_spec(preset, overrides)
    if spec.seed == plan.seed:
        raise UsageError(expected="a training seed that is not judged on", got=str(plan.seed), remedy="--seed another")
    prompts = load_prompts(spec.prompts).texts
    pipeline = load_pipeline(spec)
    settings = settings_for(plan, pipeline)
    grid = union_grid(plan.grids, settings.power, widest_gap=40)
    key = repr((spec.pipeline, spec.prompts, plan.trajectories, grid, plan.seed, pipeline.guidance))
    chosen = [prompts[i % len(prompts)] for i in range(plan.trajectories)]
    data = stored(out / "work" / "trajectories.pt", key, lambda: record(pipeline, chosen, plan.seed, grid, spec.batch))
    training = TrainSettings(
        plan.steps, plan.lr, warmup=min(100, plan.steps // 10), ema=0.998, checkpoint_every=max(1, plan.steps // 20)
    )
    started = time.perf_counter()
    module, made = train_module(pipeline, data, prompts, plan.seed, settings, training, out / "work" / f"{plan.form}.pt")
    module.save_pretrained(out)
    made.save(out / "training.json")
    console.print(summary(made, pipeline.device, time.perf_counter() - started), soft_wrap=True)
    return out


def summary(made: TrainRecord, device: str, seconds: float) -> str:
    """Steps a second, peak memory and the final loss, in one line."""
    rate = made.settings.steps / max(seconds, 1e-9)
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{made.settings.steps} steps, {rate:.3g} a second, memory {peak / 2**30:.2f} GiB, final loss {made.final_loss:.4g}"


def _config(pipeline: Pipeline) -> Any:
    return pipeline.transformer.config
