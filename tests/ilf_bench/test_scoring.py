"""Folders of images: who gets which prompt, what is scored by default, and paired differences to another folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.config.prompts import PromptList, load_prompts
from harness.errors import UsageError
from harness.storage.listing import Listing
from ilf_bench.cli import app
from ilf_bench.pairing import are_class_numbers, pair_prompts


def listing(*names: str) -> Listing:
    return Listing(Path("f"), tuple(Path("f") / name for name in names))


def folder_of(tmp_path: Path, n: int, shift: int = 0) -> Path:
    """``n`` images of 32 pixels, each its own texture; ``shift`` makes them a little brighter."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 200, (32, 32, 3)) + shift
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def score(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_prompts_are_paired_by_the_ids_of_the_list(tmp_path: Path) -> None:
    """MJHQ names its images after the keys of its JSON; a plain sort would give every image another's prompt."""
    file = tmp_path / "meta.json"
    file.write_text(json.dumps({"b7": {"prompt": "cat"}, "a9": {"prompt": "dog"}, "zz": {"prompt": "unused"}}))
    found = pair_prompts(listing("a9.jpg", "x/b7.jpg"), load_prompts(str(file)))
    assert found.texts == ("dog", "cat") and "by the ids" in found.how


def test_coco_files_are_paired_by_the_number_at_their_end(tmp_path: Path) -> None:
    file = tmp_path / "captions_val2014.json"
    annotations = [{"image_id": 42, "id": 1, "caption": "a bus"}, {"image_id": 7, "id": 2, "caption": "a dog"}]
    file.write_text(json.dumps({"annotations": [*annotations, {"image_id": 7, "id": 3, "caption": "the dog"}]}))
    found = pair_prompts(listing("COCO_val2014_000000000007.jpg", "COCO_val2014_000000000042.jpg"), load_prompts(str(file)))
    assert found.texts == ("a dog", "a bus") and "1 further" in found.how


def test_a_column_of_file_names_pairs(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("file_name,prompt\n10.png,ten\n2.png,two\n")
    assert pair_prompts(listing("2.png", "10.png"), load_prompts(str(file))).texts == ("two", "ten")


def test_only_some_ids_are_refused() -> None:
    listed = PromptList("p.json", ("a", "b"), ids=("1", "2"))
    with pytest.raises(UsageError, match=r"1 of 2 are, not 3\.png"):
        pair_prompts(listing("1.png", "3.png"), listed)


def test_by_position_says_so_and_says_the_order() -> None:
    listed = PromptList("p.txt", ("a", "b"))
    assert "natural order" in pair_prompts(listing("2.png", "10.png"), listed).how
    assert pair_prompts(listing("a.png", "b.png"), listed).how.endswith("files in order")


def test_blank_lines_and_wrong_counts_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("cat\n\ndog\n")
    with pytest.raises(UsageError, match="blank entries at 2"):
        pair_prompts(listing("1.png", "2.png"), load_prompts(str(file)))
    with pytest.raises(UsageError, match="3 prompts, one per image"):
        pair_prompts(listing("1.png", "2.png", "3.png"), PromptList("p", ("a", "b")))


def test_class_numbers_are_no_captions() -> None:
    assert are_class_numbers(("207", "3")) and not are_class_numbers(("207", "golden retriever"))


def test_by_default_it_scores_what_the_folder_allows(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", 3)
    code, said = score(folder, "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv")
    content = json.loads((tmp_path / "s.json").read_text())
    names = {one["metric"] for one in content["scores"]}
    assert code == 0 and "clip_iqa" in names and not names & {"clip_score", "image_reward", "psnr", "fid"}, said
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png"]
    iqa = next(one for one in content["scores"] if one["metric"] == "clip_iqa")
    assert [float(row["clip_iqa"]) for row in rows] == iqa["per_image"]
    assert np.mean(iqa["per_image"]) == pytest.approx(iqa["value"])


def test_a_metric_that_needs_prompts_says_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", 2)
    code, said = score(folder, "--metrics", "clip_score,psnr")
    assert code == 4 and "needs the prompts: --prompts FILE" in said and "--against FOLDER" in said
    (tmp_path / "numbers.txt").write_text("1\n2\n")
    code, said = score(folder, "--metrics", "clip_score", "--prompts", tmp_path / "numbers.txt")
    assert code == 4 and "class numbers are no captions" in said


def test_against_gives_paired_differences(tmp_path: Path) -> None:
    ours, theirs = folder_of(tmp_path / "a", 4), folder_of(tmp_path / "b", 4, shift=20)
    code, said = score(ours, "--metrics", "clip_iqa,psnr", "--against", theirs, "--json", tmp_path / "s.json")
    scores = {one["metric"]: one for one in json.loads((tmp_path / "s.json").read_text())["scores"]}
    assert code == 0 and scores["psnr"]["value"] == pytest.approx(20 * np.log10(255 / 20), abs=1e-3), said
    alone = score(theirs, "--metrics", "clip_iqa", "--json", tmp_path / "t.json")
    other = json.loads((tmp_path / "t.json").read_text())["scores"][0]
    difference = scores["clip_iqa"]["difference"]
    assert alone[0] == 0 and difference["value"] == pytest.approx(scores["clip_iqa"]["value"] - other["value"], abs=1e-9)
    assert difference["low"] <= difference["value"] <= difference["high"]


def test_folders_with_other_names_are_not_compared(tmp_path: Path) -> None:
    ours, theirs = folder_of(tmp_path / "a", 3), folder_of(tmp_path / "b", 2)
    code, said = score(ours, "--metrics", "clip_iqa", "--against", theirs)
    assert code != 0 and isinstance(said, str)


def test_a_number_that_counts_something_else_is_no_id() -> None:
    """``5_seed0`` is an image of prompt 5, and not of prompt 0."""
    listed = PromptList("p.json", ("a", "b"), ids=("0", "1"))
    with pytest.raises(UsageError, match=r"5_seed0\.png, 6_seed0\.png, which all end on 0"):
        pair_prompts(listing("5_seed0.png", "6_seed0.png"), listed)
    paired = pair_prompts(listing("a/0.png", "b/0.png"), listed)
    assert paired.texts == ("a", "a")
    assert "1 of 2 ids have no image: 1" in paired.how and "1 images share the id of another" in paired.how


def test_prompts_that_a_metric_cuts_and_what_is_left_out_of_the_reference_are_named(tmp_path: Path) -> None:
    folder, reference = folder_of(tmp_path / "a", 2), folder_of(tmp_path / "b", 3)
    (reference / "notes.txt").write_text("x")
    (tmp_path / "p.txt").write_text("a red bird\n" + "a red bird and " * 9 + "\n")
    code, said = score(
        folder, "--metrics", "clip_score", "--prompts", tmp_path / "p.txt", "--reference", reference, "--json", tmp_path / "s"
    )
    assert code == 0 and "1 of 2 prompts is cut at 12 tokens by the tiny CLIP" in said
    assert "notes.txt (another suffix than an image's)" in said
    assert json.loads((tmp_path / "s").read_text())["scores"][0]["note"].startswith("1 of 2 prompts")


def test_an_id_without_an_image_is_named() -> None:
    listed = PromptList("p.json", ("a", "b", "c"), ids=("1", "2", "10"))
    assert pair_prompts(listing("1.png"), listed).how == "paired by the ids in p.json; 2 of 3 ids have no image: 2, 10"
