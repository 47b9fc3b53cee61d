"""What comes again with every method is computed once for all: references, texts, the full run's and the converged images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import metrics.context
import metrics.moments
from harness.contracts import Metric
from harness.execution.scorer import Scorer
from harness.execution.tasks import Task
from harness.results import BASELINE, Score
from harness.storage.samples import chunks
from metrics.bundled.tiny import ClassifierFeatures, TinyClip
from metrics.context import MetricContext
from metrics.converged import ToConverged
from metrics.lpips import LpipsDistance
from metrics.published.lpips import ALEXNET, Lpips
from metrics.reference import Reference
from metrics.table import METRICS
from tests.harness.execution.test_scorer import Few, read_scores, sample_set
from tests.metrics.test_lpips import save_backbone
from tests.published import draw_images, save_images

LABELS, CONVERGED = (BASELINE, "fast", "faster", "converged"), "converged"
PROMPTS = tuple(f"a {('cat', 'dog', 'apple')[i % 3]}" for i in range(12))


class WithConverged(Few):
    methods = dict.fromkeys(LABELS, object())
    converged = CONVERGED

    def __init__(self) -> None:
        super().__init__(PROMPTS)


def score(folder: Path, metrics: dict[str, Metric]) -> None:
    """Four methods in ranges of five, each of all methods in turn, as a run does it."""
    for seed, label in enumerate(LABELS):
        samples = sample_set(folder, label, PROMPTS)
        drawn = draw_images(len(PROMPTS), seed, side=32).numpy()
        for indices in samples.chunks():
            samples.generate(indices, lambda prompts, i, drawn=drawn: drawn[list(i)], lambda: 0)  # type: ignore[misc]
        samples.finish(label)
    scorer = Scorer(WithConverged(), folder, metrics, 5)  # type: ignore[arg-type]
    for indices in chunks(len(PROMPTS), 5):
        for label in LABELS:
            scorer.do(Task("measure", label, indices.start, indices.stop, 5))
    for label in LABELS:
        scorer.do(Task("summarise", label))
    found = read_scores(folder)
    assert all(isinstance(found[label, name], Score) for label in ("fast", "faster") for name in metrics)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, counts: Counter[str]) -> None:
    """Count the images or texts that a method of a class is given."""
    work = getattr(owner, name)

    def counting(self: Any, given: Any) -> Any:
        counts[name] += len(given)
        return work(self, given)

    monkeypatch.setattr(owner, name, counting)


def test_lpips_processes_the_full_runs_and_the_converged_images_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    counted(monkeypatch, Lpips, "rows", counts)
    network = Lpips(ALEXNET, save_backbone(ALEXNET, tmp_path / ALEXNET.file))
    score(tmp_path, {"lpips": LpipsDistance(network), "lpips_converged": ToConverged(LpipsDistance(network), 100)})
    kept, for_each_pair = 2 * len(PROMPTS), 2 * 2 * len(PROMPTS)  # full, converged; two other methods against each of them
    assert counts["rows"] == kept + for_each_pair, "not once more for every method"


def test_networks_see_each_image_and_each_text_once(
    context: MetricContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()
    for name in ("_embed_images", "_embed_texts"):
        counted(monkeypatch, TinyClip, name, counts)
    fresh = replace(context, reference_steps=100)
    counted(monkeypatch, ClassifierFeatures, "__call__", counts)
    names = ("clip_score", "clip_iqa", "kid", "feature_distance", "feature_distance_converged")
    score(tmp_path, {name: METRICS[name](fresh) for name in names})
    images = len(LABELS) * len(PROMPTS)
    assert counts["_embed_images"] == images and counts["__call__"] == images
    assert counts["_embed_texts"] == len(set(PROMPTS)) + 2, "and CLIP-IQA's two"


def test_a_reference_is_read_once_for_all_metrics_of_an_extractor(
    context: MetricContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    roots: list[float] = []
    read, power = metrics.context.load_reference, metrics.moments.spectral_power
    monkeypatch.setattr(metrics.context, "load_reference", lambda *given: reads.append("file") or read(*given))
    monkeypatch.setattr(metrics.moments, "spectral_power", lambda m, p: roots.append(p) or power(m, p))
    built = {name: METRICS[name](replace(context)) for name in ("fid", "kid")}
    assert reads == ["file"] * 2, "each context of its own reads"
    shared = replace(context)
    built = {name: METRICS[name](shared) for name in ("fid", "kid", "precision", "recall")}
    assert reads == ["file"] * 3
    references = [vars(metric)["reference"] for metric in built.values()]
    assert all(each is references[0] for each in references) and isinstance(references[0], Reference)
    images = torch.cat([draw_images(48, seed, side=32) for seed in range(2)])
    rows = built["fid"].features(images).numpy()  # type: ignore[attr-defined]
    for metric in built.values():
        metric.summarise(rows)
        metric.summarise(rows[:50])
    assert roots == [0.5], "the root of the reference's covariance does not depend on the method"


def test_a_folder_of_references_is_identified_once_for_all_extractors(
    context: MetricContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    identified: list[Path] = []
    identify = metrics.context.folder_images
    monkeypatch.setattr(metrics.context, "folder_images", lambda path: identified.append(path) or identify(path))
    counts: Counter[str] = Counter()
    counted(monkeypatch, ClassifierFeatures, "__call__", counts)
    counted(monkeypatch, TinyClip, "_embed_images", counts)
    of_folder = replace(context, reference=save_images(draw_images(30, side=32), tmp_path / "real"))
    for extractor in (of_folder.networks.frechet_features, of_folder.networks.fidelity_features):
        assert of_folder.features_for(extractor) is of_folder.features_for(extractor)
    assert identified == [tmp_path / "real"] and counts == {"__call__": 30, "_embed_images": 30}
