"""The installed scorer environments, each with small random networks in the formats that its package loads; and what a scorer's
process may print before it answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from harness.results import FloatArray
from ilf_bench.scorer_commands import SERVE, environments
from ilf_bench.trial import trial_images, trial_rows
from metrics.command.metric import CommandFactory, CommandScorer
from metrics.command.process import Command
from metrics.command.serve import digest_of

NETWORKS = Path(__file__).with_name("random_networks.py")
INSTALLED = Path(os.environ.get("SCORER_ENVIRONMENTS") or Path.home() / ".cache" / "ilf-bench" / "scorers")
KINDS = [("geneval", "geneval"), ("hpsv3", "hpsv3"), ("imscore", "vqascore"), ("imscore", "mps"), ("t2v-metrics", "vqascore_t2v")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "metric"), KINDS, ids=[metric for _, metric in KINDS])
def test_it_scores_with_random_networks(name: str, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ilf_bench.scorer_commands.cache_folder", lambda: INSTALLED)
    environment = environments()[name]
    if environment.state != "installed":
        pytest.skip(f"needs the environment: ilf-bench scorers install {name}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = subprocess.run([environment.python, NETWORKS, metric, tmp_path], capture_output=True, text=True, check=True)
    for variable, value in json.loads(made.stdout.splitlines()[-1]).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)  # where folders have the names of the hub
    rows = dict(trial_rows(CommandFactory(metric, environment.command(metric)), "a photo of a cat"))
    assert rows["weights"].startswith("sha256:") and rows["a picture"] == rows["the same again"]
    values = [float(rows[image]) for image in trial_images()]
    assert len(set(values)) > 1 or (metric == "geneval" and set(values) <= {0.0, 1.0}), "GenEval's values are 0 or 1"
    together, singly = batch_and_singles(CommandScorer(Command(metric, environment.command(metric))))
    np.testing.assert_allclose(together, singly, rtol=2e-5)
    assert metric == "geneval" or len(np.unique(singly)) == len(PROMPTS)


PROMPTS = ("a photo of a cat", "a photo of two dogs", "a photo of a red apple and a blue dog")  # GenEval takes its own only


def batch_and_singles(scorer: CommandScorer) -> tuple[FloatArray, FloatArray]:
    """Values [3, 1] of three images with prompts of different lengths: in one batch, and one by one."""
    images = torch.cat([trial_images()[name] for name in ("a picture", "noise", "black")])
    together = scorer(images, PROMPTS)
    singly = [scorer(image[None], [prompt]) for image, prompt in zip(images, PROMPTS, strict=True)]
    scorer.command.close()
    return together, np.concatenate(singly)


def test_every_metric_of_an_environment_is_tried_here_or_in_its_own_test() -> None:
    of_ours = {(environment.name, metric) for environment in environments().values() for metric in environment.about.metrics}
    assert of_ours == {*KINDS, ("brisque", "brisque")}


SCORER = """
from ilf_bench_scorer import redirect, serve
redirect()
print("Flash Attention is not installed.")  # as packages do while they are imported
import os; os.system("echo and from a C library")
serve(lambda images, prompts: [len(prompt) for prompt in prompts], name="length", weights="none")
"""


def test_what_is_printed_before_the_handshake_reaches_nobody_after_redirect(tmp_path: Path) -> None:
    (tmp_path / "ilf_bench_scorer.py").write_bytes(SERVE.read_bytes())
    for text, works in ((SCORER, True), (SCORER.replace("redirect()\n", "", 1), False)):
        (tmp_path / "scorer.py").write_text(text)
        done = subprocess.run(
            [sys.executable, tmp_path / "scorer.py"],
            input='{"batch": 1, "images": ["x.png"], "prompts": ["abc"]}\n',
            capture_output=True,
            text=True,
            check=True,
        )
        first = done.stdout.splitlines()[0]
        assert first.startswith("{") is works, "a line that is no JSON is refused as the handshake"
        assert ("Flash Attention" in done.stderr) is works
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == [[3.0]]


def test_a_digest_of_networks_is_of_names_and_values() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    assert digest_of(one) == digest_of(one) != digest_of(other)
    assert digest_of(one, other) != digest_of(other, one)
    moved = nn.Sequential(one)
    assert digest_of(moved) != digest_of(one), "the same values under other names are another network"
    half = nn.Linear(2, 3).bfloat16()
    assert digest_of(half).startswith("sha256:")
