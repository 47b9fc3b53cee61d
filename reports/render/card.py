"""Cards for the Hugging Face hub: the README of a pushed run, of its Space, and of a pushed feedback module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from harness.storage.records import Run
from reports.analysis.overview import overview
from reports.analysis.select import has_tiny_scorers
from reports.render.escape import markdown_text
from reports.render.markdown import escaped_table
from reports.render.overview import chips, rows, sentence, subtitle, title

TINY = (
    "> **The scorers of this run are tiny.** Its FID, CLIP score, CLIP-IQA and ImageReward come from small networks trained on"
    " the bundled data. They compare methods within this run, and must never be compared with published numbers."
)
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TASKS = {"text": "text-to-image", "class": "unconditional-image-generation"}
HEAD = ("method", "speed-up over the full run", "better than fewer steps?", "peak memory", "training")
SHOWN = ("steps", "loop", "depth", "feedback", "power", "guidance_distilled")  # settings of a module


def dataset_card(run: Run, identity: str, licence: str, digest: str) -> str:
    """The README of a data set that holds the bundle, the images and the report of ``run``.

    ``identity`` is the tag by which a later push knows its own repository, ``digest`` that of the bundle.
    """
    images = len(run.spec["method_labels"]) * int(run.spec["samples"])
    front = {
        "license": licence,
        "pretty_name": title(run),
        "tags": ["ilf-bench", identity, "diffusion", "acceleration", "benchmark"],
        "task_categories": [TASKS[run.spec["task"]]],
        "size_categories": [next((name for most, name in SIZES if images < most), "n>1M")],
        "configs": [{"config_name": "images", "data_dir": "samples", "drop_labels": True}],
    }
    parts = [
        _front(front),
        f"# {markdown_text(title(run))}",
        "A benchmark of diffusion accelerators against fewer steps, measured with ilf-bench.",
        *_result(run),
        "## Files\n\n"
        + escaped_table(
            ("file", "content"),
            [
                ("bundle.zip", "all records of the run; ilf-bench verify bundle.zip says whether one was altered"),
                ("report/index.html", "the report; download the folder together with samples/ to open it"),
                ("samples/", "the images, a folder per method; samples/metadata.csv has method, index and prompt of each"),
            ],
        ),
        f"The digest of the bundle is `{digest}`. It detects accidents, and is no signature. Command line, sources of plugins and"
        " absolute paths were left out before the bundle was made.",
        f"Licence: {_licence(licence)} The licences of the model and of the prompts apply to the images as well.",
    ]
    return "\n\n".join(parts) + "\n"


def space_card(run: Run, identity: str, licence: str) -> str:
    """The README of a static Space that shows the report."""
    front = {
        "title": title(run)[:60],
        "sdk": "static",
        "app_file": "report/index.html",
        "license": licence,
        "tags": ["ilf-bench", identity],
        "pinned": False,
    }
    return f"{_front(front)}\n\nThe report of a benchmark of diffusion accelerators, measured with ilf-bench.\n"


def model_card(name: str, settings: Mapping[str, Any], identity: str, licence: str, run: Run | None) -> str:
    """The README of a feedback module: how to use it, and its quality and cost as ``run`` measured them, if one is given."""
    front = {"license": licence, "tags": ["ilf-bench", identity, "inner-loop-feedback", "diffusion", "acceleration"]}
    use = (
        "```python\nfrom diffusers import DiffusionPipeline\n\nimport ilf_bench\n\n"
        'pipe = DiffusionPipeline.from_pretrained("BASE_MODEL")  # the model that the module was trained for\n'
        f'applied = ilf_bench.apply(pipe, "{name}")\n'
        f"images = pipe(..., num_inference_steps={settings['steps']}).images\n```"
    )
    shown = [(key, str(value)) for key, value in settings.items() if key in SHOWN]
    nothing = "**Not measured.** No run was given when this module was pushed; its quality and cost are unknown."
    measured = _result(run) if run else [nothing]
    parts = [
        _front(front),
        f"# {name.rpartition('/')[2]}: an Inner Loop Feedback module",
        "A small module that lets a diffusion transformer take fewer steps: it feeds features of its last blocks back into them"
        " (Gwilliam et al. 2025, arXiv 2501.13107; an independent implementation).",
        f"## Use\n\n{use}",
        f"## Settings\n\n{escaped_table(('setting', 'value'), shown)}",
        "## Quality and cost",
        *measured,
        f"Licence: {_licence(licence)} The licence of the model that it was trained for applies, too.",
    ]
    return "\n\n".join(parts) + "\n"


def _front(fields: Mapping[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=1000)}---"


def _licence(licence: str) -> str:
    return "not stated." if licence == "unknown" else f"`{licence}`."


def _result(run: Run) -> list[str]:
    """What was measured on what, the answer in words, and a row per method."""
    found = overview(run)
    marks = [f"- {markdown_text(f'{mark.text}: {mark.why}')}" for mark in chips(run, found)]
    return [
        "\n".join(f"- {markdown_text(fact)}" for fact in (*subtitle(run), f"pipeline: {run.spec['pipeline']}")),
        *([TINY] if has_tiny_scorers(run) else []),
        f"**{markdown_text(sentence(run, found))}**",
        *(["\n".join(marks)] if marks else []),
        escaped_table(
            HEAD, [(row.label, row.speed_up.text, row.verdict or "–", row.memory, row.training) for row in rows(run, found)]
        ),
    ]
