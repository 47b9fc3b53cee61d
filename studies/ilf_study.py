"""Does ILF win, and does the loop earn its cost? Rebuilds docs/results/ilf-study.md from the bundled checkpoints.

    python -m studies.ilf_study                    # everything; resumes; about two hours of one thread a model
    python -m studies.ilf_study --samples 200      # a quick look, not written to docs/

Each model is one run of a preset (presets/ilf-study-*.yaml) on a held-out seed, and held-out captions for the text models.
The adapter of tiny-sd3 is not bundled: ``python -m zoo.recipes.build tiny-sd3/ilf-adapter --threads 1`` makes it, in 45 minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import typer
from rich.console import Console

from harness.config.spec import load_spec
from harness.paths import ROOT
from studies.reuse import run_study
from studies.study import ADAPTER, FULL20, PAPER, Study, adapters, caches, learned, modules, ours, spaced, standard
from studies.study_tables import put_sections, section

MODELS = {
    "tiny-pixart (captions never trained on)": "ilf-study-text",
    "tiny-dit": "ilf-study-class",
    "tiny-sd3 (flow matching, captions never trained on)": "ilf-study-flow",
}
DOC = ROOT / "docs" / "results" / "ilf-study.md"
UNBUNDLED = {  # rows of modules to be built
    "ilf-study-flow": tuple(f"ilf:steps={n}:checkpoint={ADAPTER}" for n in (6, 8, 10, 12))
}


def draw(study: Study, path: Path) -> None:
    """Error against cost, one line a family; the dashed line is the error of 20 steps."""
    families = {
        "steps, own timesteps": [x for x in standard(study) if study.record(x).kind == "fewer steps"],
        "steps, spaced": spaced(study),
        "learned solver alone": learned(study),
        "ilf": ours(study),
        "ilf-adapter (no loop)": adapters(study),
        "caches on 20 steps": caches(study),
        "ilf-paper": modules(study, PAPER),
    }
    colours = ("#555555", "#E69F00", "#009E73", "#0072B2", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito's, safe for all eyes
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for (name, labels), colour, marker in zip(families.items(), colours, "osD^vXP", strict=True):
        if not labels:
            continue
        points = sorted((study.cost(x), float(study.images(x, "feature_distance").mean())) for x in labels)
        line = "" if "caches" in name else "-"  # each of them is another method
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line, label=name)
    axes.axhline(float(study.images(FULL20, "feature_distance").mean()), color="black", linestyle="--", label="20 steps (480)")
    axes.set(xlabel="block evaluations per image", ylabel="feature distance to the converged sample", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def overrides(preset: str, samples: int | None, console: Console) -> dict[str, Any]:
    """What the run changes of the preset: the number of images, and the rows of modules that are not bundled but were built."""
    spec, added = load_spec(preset), UNBUNDLED.get(preset, ())
    if added and not (Path(spec.pipeline) / ADAPTER).is_dir():
        console.print(f"{spec.pipeline}/{ADAPTER} has not been built: {len(added)} rows are left out")
        added = ()
    return {"methods": (*spec.methods, *added)} | ({} if samples is None else {"samples": samples})


def main(
    samples: Annotated[int | None, typer.Option(help="Images per method; default: the preset's.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs"),
    only: Annotated[str | None, typer.Option(help="One of the presets.")] = None,
) -> None:
    """Run what is missing, then write its sections of the page."""
    console = Console()
    sections = []
    for title, preset in MODELS.items():
        if only not in (None, preset):
            continue
        study = run_study(preset, overrides(preset, samples, console), out, console)
        if samples is None:
            draw(study, DOC.parent / "images" / f"{preset}.svg")
        sections.append(section(title, study))
    if samples is None:
        put_sections(DOC, sections)
    else:
        print("\n".join(sections))


if __name__ == "__main__":
    typer.run(main)
