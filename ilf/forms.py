"""The forms of ILF that ``ilf-bench train`` knows, on a backbone of any depth."""

from __future__ import annotations

from dataclasses import replace

from harness.config.spec import TrainingSpec
from harness.errors import UsageError
from ilf.train import IlfSettings, paper_form

ROUND_BYTES = 1e9  # of hidden states in one round; four are remembered


def middle(depth: int) -> tuple[int, int]:
    """The middle 12 of 28 blocks, in proportion: 1-based first and last (9 and 20 of 28)."""
    looped = max(1, round(depth * 12 / 28))
    first = (depth - looped) // 2 + 1
    return first, first + looped - 1


def settings_for(training: TrainingSpec, depth: int, state_bytes: int) -> IlfSettings:
    """A preset's training on ``depth`` blocks, whose hidden states of one image are ``state_bytes``.

    A round runs as many trajectories as keep its hidden states (three a step) within :data:`ROUND_BYTES`. Raises
    :class:`UsageError` on a loop that the model has not got.
    """
    first, last = training.loop or ((middle(depth)) if training.form == "paper" else (depth, depth))
    if not 1 <= first <= last <= depth:
        raise UsageError(expected=f"1 <= first <= last <= {depth}", got=f"{first} and {last}", remedy="edit the loop")
    counts = (*training.grids, *training.whole_grids)
    steps = min(max(training.steps, min(counts)), max(counts))  # within what it is trained for
    fitting = int(ROUND_BYTES / (3 * state_bytes * sum(training.grids)))
    runs = max(1, min(256, training.trajectories, fitting))
    if training.form == "paper":
        settings = paper_form((first, last), training.grids, steps)
    else:
        settings = IlfSettings(
            (first, last),
            training.grids,
            steps,
            inner_pass=training.form == "ours",
            folded=training.folded,
            feedback=training.feedback,
            power=training.power,
            rounds=min(training.rounds, training.optimiser_steps),
        )
    return replace(
        settings,
        batch=training.batch,
        runs=runs,
        gradient_checkpointing=training.gradient_checkpointing,
        whole_runs=training.whole_runs,
        whole_batch=training.whole_batch,
        whole_grids=training.whole_grids,
        image_runs=training.image_runs,
        image_targets=training.image_targets,
        recombined=training.recombined,
    )
