"""Prompts that a text encoder cuts are counted for each encoder, and said in the record, the terminal and the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from rich.console import Console

from harness.errors import ArtifactError
from harness.results import Failure, Score
from harness.sampling.captions import caption_notes, longest_text
from harness.storage.records import read_run
from harness.text import cut_note
from ilf_bench import run
from reports.render.markdown import markdown_report
from reports.render.terminal import terminal_tables
from tests.conftest import open_pipeline
from tests.harness.models.test_components import save_sd3

TINY: dict[str, Any] = {"methods": ["full"], "steps": 2, "metrics": ["clip_score", "image_reward", "clip_iqa"]}
SHORT, LONG = "red cat", "red cat blue dog red cat blue dog"


def test_what_is_cut_is_not_read(folders: dict[str, Path]) -> None:
    """Held against the embeddings: behind the limit another word changes nothing, before it everything."""
    pipeline = open_pipeline(folders["pixart"])
    limit = longest_text(pipeline, pipeline.pipe.tokenizer, pipeline.pipe.text_encoder, [SHORT])
    assert limit == 6

    def embedded(prompt: str) -> torch.Tensor:
        with torch.no_grad():
            return pipeline.pipe.encode_prompt(prompt, False, device="cpu", max_sequence_length=limit)[0]

    words = ["red", "cat", "blue", "dog", "red", "cat"]
    for count in range(1, 7):
        kept, more = " ".join(words[:count]), " ".join([*words[:count], "blue"])
        is_cut = bool(caption_notes(pipeline, [more]))
        assert is_cut == (count >= 5)
        assert torch.equal(embedded(kept), embedded(more)) == is_cut


def test_each_encoder_counts_for_itself(tmp_path: Path) -> None:
    pipe = StableDiffusion3Pipeline.from_pretrained(save_sd3(tmp_path / "sd3"))
    pipeline: Any = SimpleNamespace(pipe=pipe, caption_tokens=0)
    pipeline.family = SimpleNamespace(
        arguments=lambda pipeline, prompts: {"max_sequence_length": 4}, written=lambda pipe, prompt: prompt
    )
    assert caption_notes(pipeline, [SHORT]) == []
    assert caption_notes(pipeline, [SHORT, LONG, LONG]) == [
        "1 of 2 prompts is cut at 16 tokens by the CLIP of text_encoder",
        "1 of 2 prompts is cut at 16 tokens by the CLIP of text_encoder_2",
        "1 of 2 prompts is cut at 4 tokens by the T5 of text_encoder_3",
    ]
    assert caption_notes(pipeline, [SHORT, "ship"]) == ["1 of 2 prompts hold words that the T5 of text_encoder_3 does not know"]


def test_a_tokenizer_that_reads_all_prompts_alike_is_refused(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["pixart"])
    with pytest.raises(ArtifactError, match=r"a tokenizer that tells prompts apart; got the same \d+ tokens for all 2 prompts"):
        caption_notes(pipeline, ["ship", "moon"])
    caption_notes(pipeline, ["moon", "Moon"])
    caption_notes(pipeline, ["moon"])


def test_a_note_is_one_sentence() -> None:
    assert cut_note([77, 78, 90], 77, "CLIP") == "2 of 3 prompts are cut at 77 tokens by CLIP"
    assert cut_note([77, 3], 77, "CLIP") == ""


def test_a_run_says_so_everywhere(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    long = " ".join(["a red bird and"] * 6)
    prompts.write_text(f"a red bird\n{long}\na blue fish\n")
    settings = TINY | {"samples": 3} | {"prompts": str(prompts), "timing": {"rounds": 1, "batch": 1, "warmup": 0}, "batch": 3}
    done = run("tiny-text", settings, out=tmp_path / "runs", console=Console(file=(tmp_path / "said").open("w")))
    found = read_run(done.path)
    note = "1 of 3 prompts is cut at 12 tokens by the T5 of text_encoder"
    assert note in found.environment["notes"]
    notes = {name: score.note for (_, name), score in found.scores.items() if isinstance(score, Score)}
    own = "1 of 3 prompts is cut at 12 tokens by the tiny CLIP"
    assert notes == {"clip_score": own, "image_reward": own, "clip_iqa": ""}
    terminal = " ".join(str(line) for line in terminal_tables(found, 80))
    page = (done.path / "report" / "index.html").read_text()
    for text in (terminal, page, markdown_report(found).replace("\\", "")):
        assert note in text and own in text


def test_class_numbers_are_no_captions(tmp_path: Path) -> None:
    """A text encoder reads the class 7 as a number; the other metrics are measured."""
    settings = TINY | {"samples": 4} | {"timing": {"rounds": 1, "batch": 1, "warmup": 0}, "batch": 4}
    done = run("tiny-class", settings | {"prompts": "classes:4"}, out=tmp_path, console=Console(quiet=True))
    failures = [score for score in done.record.scores.values() if isinstance(score, Failure)]
    refused = {failure.metric for failure in failures if "class numbers are no captions" in failure.reason}
    assert refused == {"clip_score", "image_reward"} and len(failures) == 2 and not done.record.failed_methods
    assert isinstance(done.record.scores["full", "clip_iqa"], Score)
