"""The gallery's data: whose image lies where, and what each image scored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.results import Score
from harness.storage.layout import slug
from harness.storage.records import Run
from reports.render.gallery import gallery_page
from reports.render.grid import sample_sheet, stored_samples
from reports.render.html import INLINE_BYTES, html_report
from reports.render.plots import speed_plots, stage_plot
from reports.render.tables import comparison_table
from tests.reports.synthetic import synthetic_run, synthetic_samples

Make = Callable[..., Run]


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)


def test_addresses_lead_to_the_images_and_values_to_their_scores(make_run: Make) -> None:
    run = make_run(n=4)
    folder = run.path / "report"
    data = data_of(gallery_page(run, stored_samples(run), folder))
    assert [method["label"] for method in data["methods"]] == list(run.spec["method_labels"])
    for method in data["methods"]:
        for index in data["indices"]:
            assert (folder / data["root"] / method["folder"] / f"{index:06d}.png").resolve().exists()
    assert data["prompts"] == ["red apple", "<b>x</b>", "cat | face", "hot dog"] and data["pair"] == [0, 3]
    good, far = data["metrics"]
    assert (good["key"], good["higher"], far["higher"]) == ("good", True, False)
    score = run.scores["8 steps", "good"]
    assert isinstance(score, Score) and good["values"][2] == pytest.approx(score.influence.tolist(), rel=1e-4)


def test_what_says_nothing_of_a_single_image_is_not_shown(make_run: Make) -> None:
    """FID's influence values are no FIDs of images; a PSNR that is infinite is none, and no number."""
    run = make_run(n=4)
    scores = dict(run.scores)
    for label in run.records:
        good, far = scores[label, "good"], scores[label, "far"]
        assert isinstance(good, Score) and isinstance(far, Score)
        own = np.array([np.inf, 30.0, 40.0, 50.0])
        scores[label, "good"], scores[label, "far"] = replace(good, per_image=own), replace(far, per_image=None)
    (shown,) = data_of(gallery_page(replace(run, scores=scores), stored_samples(run), run.path / "report"))["metrics"]
    assert shown["key"] == "good" and shown["values"][2] == [None, 30.0, 40.0, 50.0]


def test_scores_of_other_images_are_left_out(make_run: Make) -> None:
    run = make_run(n=64)  # of which the run kept four
    assert data_of(gallery_page(run, stored_samples(run), run.path / "report"))["metrics"] == []


def test_a_lost_image_is_not_offered(make_run: Make) -> None:
    run = make_run(n=4)
    (run.path / "samples" / slug("8 steps") / "000002.png").unlink()
    data = data_of(gallery_page(run, stored_samples(run), run.path / "report"))
    assert data["methods"][2]["files"] == ["000000.png", "000001.png", "", "000003.png"] and data["methods"][0]["files"] is None


def test_markup_cannot_leave_the_data(make_run: Make) -> None:
    run = make_run(n=4, methods={"full": (20, 480, 1.0, 10.0), "</script><script>alert(1)</script>": (8, 192, 0.4, 8.0)})
    page = gallery_page(run, stored_samples(run), run.path / "report")
    assert page.count("<script") == page.count("</script>") == 2 and "<script>alert" not in page
    assert data_of(page)["methods"][1]["label"].startswith("</script>")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """50 methods x 2,000 images, of which one file stands for all."""
    folder = tmp_path_factory.mktemp("large")
    Image.effect_noise((256, 256), 80).convert("RGB").save(folder / "000000.png")
    return synthetic_run(folder, 50, 2000, rounds=4), folder


def test_fifty_methods_with_two_thousand_images_stay_small(large: tuple[Run, Path]) -> None:
    run, folder = large
    stored = synthetic_samples(run, folder / "000000.png")
    page = gallery_page(run, stored, folder / "report")
    assert len(data_of(page)["metrics"][0]["values"]) == 50 and len(page) < 20e6 / 3  # nine metrics would still fit


def test_heavy_thumbnails_lie_beside_the_page(large: tuple[Run, Path]) -> None:
    run, folder = large
    samples = {label: dict(list(row.items())[:8]) for label, row in synthetic_samples(run, folder / "000000.png").items()}
    stored = dict(list(samples.items())[:3])
    sheet, table = sample_sheet(stored), comparison_table(run)
    assert sheet is not None and not sheet.small and sheet.size < INLINE_BYTES
    page = html_report(run, table, speed_plots(run, table), stage_plot(table), stored, sheet)
    assert page.count("data:image/webp") == 24 + 6 and len(page) < 20e6
