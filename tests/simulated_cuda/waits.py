"""How often each method makes the host wait for the device, beside the plain run: measured, stated, and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.results import method_parts
from harness.sampling.pipeline import Pipeline
from tests.methods import COMPOSED, TEXTS, applies, build
from tests.simulated_cuda.device import SimulatedCuda
from tests.simulated_cuda.sampling import EVERY, images

# The most waits of a method's own. All that decide by the number of the step have none.
PER_STEP = {
    "first-block": 1,  # reads which images have changed
    "teacache": 1,
    "solver:unipc": 6,  # diffusers builds its coefficients on the device, number by number
}
PER_BLOCK = {"deediff": 1}  # reads which images leave


def allowed(text: str, pipeline: Pipeline) -> int:
    """The most waits a call that ``text`` may add to those of the plain run."""
    steps, most = pipeline.steps, 0
    for part in method_parts(text):
        name, _, option = part.partition(":")
        steps = int(option) if name == "steps" else steps
        name = part if part in PER_STEP else name
        most += PER_STEP.get(name, 0) * steps + PER_BLOCK.get(name, 0) * steps * len(pipeline.blocks)
    return most


@dataclass(frozen=True)
class Waits:
    """Of one call of one method with :data:`EVERY` image: all, the method's own beside the plain run's, and the most allowed."""

    text: str
    model: str
    all: int
    own: int
    allowed: int


def measure(device: SimulatedCuda, name: str, pipeline: Pipeline, module: Path) -> Iterator[Waits]:
    """Of every method that applies to a model. What a method waits for while it is attached is not counted."""
    plain = 0
    for text in dict.fromkeys((*TEXTS, *COMPOSED)):
        if not applies(text, pipeline):
            continue
        with build(text, module).attach(pipeline):
            device.forget()
            images(pipeline, EVERY)
            count = sum(device.waits.values())
            if text == "full":
                plain = count
            yield Waits(text, name, count, count - plain, allowed(text, pipeline))


def table(rows: list[Waits]) -> str:
    """Markdown: the plain runs, then the methods that add waits; all others add none."""
    models = list(dict.fromkeys(row.model for row in rows))
    lines = ["| method | " + " | ".join(models) + " | stated |", "|---|" + "---|" * (len(models) + 1)]
    for text in dict.fromkeys(row.text for row in rows):
        found = {row.model: row for row in rows if row.text == text}
        if text != "full" and not any(row.own for row in found.values()):
            continue
        cells = [str(found[m].all if text == "full" else found[m].own) if m in found else "–" for m in models]
        lines.append(f"| `{text}` | " + " | ".join(cells) + f" | {max(row.allowed for row in found.values()) or ''} |")
    none = sum(not row.own for row in rows if row.text != "full")
    return "\n".join(lines) + f"\n\nNone of their own: the other {none} of {len(rows)} rows.\n"
