"""Memory predicted without the device is what is then allocated on it; a card that is too small is told before loading."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import T5EncoderModel

from harness.config.spec import load_spec
from harness.cost.memory import STAGES, Footprint
from harness.errors import UsageError
from harness.execution import fitting
from harness.models.empty import empty_pipeline
from harness.models.loading import load_pipeline
from harness.results import REFERENCE, TimingSample
from harness.sampling.encoded import EncodedPrompts
from harness.sampling.pipeline import Pipeline
from harness.sampling.rehearsal import rehearse
from harness.storage.layout import Layout
from harness.storage.records import read_json, read_timings
from harness.timing.reference_workload import Workload
from harness.timing.stages import StageTimer
from ilf_bench import experiment as app
from ilf_bench.cli import main
from tests.conftest import PROMPTS, open_pipeline
from tests.harness.execution.test_runner import write_preset
from tests.methods import build
from tests.simulated_cuda.conftest import MODELS
from tests.simulated_cuda.device import SimulatedCuda

Said = pytest.CaptureFixture[str]
TOLERANCE = 0.08  # of the prediction; the allocator rounds each of these tiny tensors up to 512 bytes
BATCH = 16
HUNGRY = ("taylorseer:interval=2:order=3:warmup=1", "deepcache:interval=2", "fora")


@pytest.fixture(autouse=True)
def nothing_else(installed: SimulatedCuda) -> None:
    """On the second GPU."""
    gc.collect()


@pytest.fixture(autouse=True)
def no_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference workload takes more memory than these models, and its products would take a CPU seconds."""
    sample = TimingSample(REFERENCE, 0, 1, 1.0, 0.0, 1.0, 0.0, 0)
    monkeypatch.setattr(Workload, "__init__", lambda self, device, precision: None)
    monkeypatch.setattr(Workload, "time_once", lambda self, number, batch: replace(sample, round=number, batch=batch))


def preset(tmp_path: Path, folder: Path, **changes: object) -> Path:
    precision = "auto" if "dtype" in changes else "fp32"
    own = {"device": "cuda:1", "metrics": [], "methods": ["full", "steps:2"], "precision": precision}
    return write_preset(tmp_path, folder, **own | changes)


@pytest.fixture
def wordy(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A PixArt whose text encoder is by far its largest part, as the published ones' is."""
    pipe = open_pipeline(folders["pixart"]).pipe
    width = pipe.text_encoder.config.d_model
    pipe.text_encoder = T5EncoderModel(pipe.text_encoder.config.__class__(**pipe.text_encoder.config.to_dict() | {"d_ff": 8192}))
    assert pipe.text_encoder.config.d_model == width
    pipe.save_pretrained(tmp_path / "wordy")
    return tmp_path / "wordy"


def prompts(size: int) -> list[str]:
    return (PROMPTS * size)[:size]


def measured(pipeline: Pipeline, size: int) -> dict[str, int]:
    """The most bytes on the second GPU, which nothing else is on, in each stage of a call."""
    timer = StageTimer(pipeline.device)
    with timer.timing(pipeline):
        pipeline.generate(prompts(size), 0, range(size))
    pipeline.pipe.scheduler.set_timesteps(4)  # forget what the solver keeps of the last steps
    return timer.peaks


def test_what_is_predicted_is_allocated(device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path) -> None:
    for name in MODELS:
        spec = load_spec(str(preset(tmp_path, folders[name])))
        predicted = rehearse(empty_pipeline(spec), prompts(BATCH))
        assert device.allocated(1) == 0
        pipeline = load_pipeline(spec)
        found = measured(pipeline, BATCH)
        for stage, bytes_ in predicted.stages().items():
            assert stage not in found or found[stage] == pytest.approx(bytes_, rel=TOLERANCE), (name, stage)
        assert sum(predicted.weights.values()) < predicted.peak() == pytest.approx(max(found.values()), rel=TOLERANCE)
        del pipeline
        gc.collect()


@pytest.mark.parametrize("text", HUNGRY)
def test_what_a_method_keeps_is_predicted(device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path, text: str) -> None:
    spec = load_spec(str(preset(tmp_path, folders["pixart"])))
    empty = empty_pipeline(spec)
    full = rehearse(empty, prompts(BATCH))
    predicted = rehearse(empty, prompts(BATCH), full, build(text, Path()))
    pipeline = load_pipeline(spec)
    with build(text, Path()).attach(pipeline):
        found = measured(pipeline, BATCH)
    assert predicted.activations["denoise"] > full.activations["denoise"]
    assert found["denoise"] == pytest.approx(predicted.stages()["denoise"], rel=TOLERANCE)
    assert max(found.values()) == pytest.approx(predicted.peak(), rel=TOLERANCE)


@pytest.mark.parametrize("offload", ["text", "model"])
@pytest.mark.parametrize("name", MODELS)
def test_offloading_changes_no_image_and_saves_what_is_predicted(
    device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path, name: str, offload: Any
) -> None:
    spec = load_spec(str(preset(tmp_path, folders[name])))
    predicted = rehearse(empty_pipeline(spec), prompts(BATCH))
    plain = load_pipeline(spec)
    expected = plain.generate(prompts(BATCH), 0, range(BATCH))
    del plain
    gc.collect()
    pipeline = load_pipeline(spec, offload)
    parts = (pipeline.pipe.transformer, pipeline.pipe.vae)
    parameters = {id(p): p.detach().cpu().clone() for part in parts for p in part.parameters()}
    found = measured(pipeline, BATCH)
    assert torch.equal(pipeline.generate(prompts(BATCH), 0, range(BATCH)), expected)
    stages = predicted.stages(offload)
    if offload == "model":  # the transformer is there when the clock begins, and leaves
        assert found["decode"] == pytest.approx(stages["decode"], rel=TOLERANCE)
    assert max(found.values()) <= (1 + TOLERANCE) * predicted.peak()
    pipeline.pipe.scheduler.set_timesteps(4)
    pipeline.residency.enter("denoise")
    weights = sum(predicted.weights[part] for part in (["transformer"] if offload == "model" else ["transformer", "vae"]))
    assert device.allocated(1) == pytest.approx(weights, rel=TOLERANCE)
    assert all(torch.equal(p.cpu(), parameters[id(p)]) for part in parts for p in part.parameters())
    assert pipeline.residency.host_bytes > 0


def test_weights_that_a_method_changes_on_the_device_stay_changed(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = load_pipeline(load_spec(str(preset(tmp_path, folders["pixart"]))), "model")
    for part in ("transformer", "text_encoder"):
        pipeline.residency.enter("denoise" if part == "transformer" else "text")
        weight = next(getattr(pipeline.pipe, part).parameters())
        before = weight.detach().cpu().clone()
        with torch.no_grad():
            weight.mul_(3)
        pipeline.residency.enter("decode")
        assert weight.device.type == "cpu" and torch.equal(weight, before * 3)


def test_a_small_card_sends_the_text_encoder_away(
    device: SimulatedCuda, wordy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole run, on a card with room for the denoiser and not for the text encoder beside it."""
    path = preset(tmp_path, wordy, timing={"rounds": 2, "batch": 2, "warmup": 1})
    predicted = fitting.predict(load_spec(str(path)), PROMPTS, 4)
    with device.memory(int(1.06 * predicted.peak("text")), 1):
        assert predicted.peak("none") > 1.05 * predicted.peak("text")
        assert main(["run", str(path), "--out", str(tmp_path / "small")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--offload text" in said and "images at a time would need" in said
    small, large = (next((tmp_path / "small").glob("random-*"))), tmp_path / "large"
    run = app.execute(app.prepare(str(path), {}, []), large, Console(quiet=True)).run
    ours, theirs = read_json(small / "environment.json"), read_json(run.path / "environment.json")
    assert ours["offload"] == "text" and ours["machine_key"] != theirs["machine_key"] and ours["offloaded_bytes"] > 0
    assert ours["predicted_bytes"]["denoise"] == predicted.stages("text")["denoise"]
    for image in sorted((run.path / "samples").rglob("*.png")):
        assert (small / image.relative_to(run.path)).read_bytes() == image.read_bytes()
    rows = [row for file in Layout(small).rounds() for row in read_timings(file) if row.method != REFERENCE]
    assert len({row.text_s for row in rows}) == 1 and rows[0].text_s > 0
    assert all(row.text_apart and row.latency_s > row.text_s + row.denoise_s for row in rows)
    assert not any(sample.text_apart for sample in run.timings)


def test_a_whole_run_whose_parts_come_and_go(
    device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every method's images are those of a run whose parts stay; its times and memory hold the moves and are never compared."""
    common: dict[str, Any] = {"methods": ["full", "steps:2", "fora"], "timing": {"rounds": 2, "batch": 2, "warmup": 1}}
    runs = {}
    for offload in ("none", "model"):
        path = preset(tmp_path, folders["pixart"], offload=offload, **common)
        runs[offload] = app.execute(app.prepare(str(path), {}, []), tmp_path / offload, Console(quiet=True)).run
    ours, theirs = runs["model"].path, runs["none"].path
    images = sorted(path.relative_to(theirs) for path in (theirs / "samples").rglob("*.png"))
    assert images and all((ours / image).read_bytes() == (theirs / image).read_bytes() for image in images)
    environment, plain = read_json(ours / "environment.json"), read_json(theirs / "environment.json")
    assert environment["offload"] == "model" and environment["machine_key"] != plain["machine_key"]
    pipe = load_pipeline(load_spec(str(path)), "none").pipe
    parts = (pipe.transformer, pipe.vae, pipe.text_encoder)
    assert environment["offloaded_bytes"] == sum(t.nbytes for part in parts for t in (*part.parameters(), *part.buffers()))
    rows = [row for file in Layout(ours).rounds() for row in read_timings(file) if row.method != REFERENCE]
    assert len({row.method for row in rows}) == 4 and not any(row.text_apart for row in rows)
    peaks = [max(row.peak_memory_bytes for row in run.timings if row.method == "full") for run in (runs["model"], runs["none"])]
    assert 0 < peaks[0] < peaks[1]
    capsys.readouterr()
    assert main(["compare", str(theirs), str(ours)]) == 65
    assert "different machines: offload" in " ".join(capsys.readouterr().err.split())


def test_prompts_are_encoded_ahead_so_that_the_encoder_comes_once(
    device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.sampling.residency import Residency

    entered: list[str] = []
    enter = Residency.enter

    def noted(self: Residency, stage: str) -> None:
        before = self.stage
        enter(self, stage)
        if self.stage != before:
            entered.append(self.stage)

    monkeypatch.setattr(Residency, "enter", noted)
    path = preset(tmp_path, folders["pixart"], offload="text", timing={"rounds": 0, "batch": 2, "warmup": 0})
    app.execute(app.prepare(str(path), {}, []), tmp_path / "runs", Console(quiet=True))
    assert entered == ["denoise", "text", "denoise"]


def footprint(batch: int, each: int = 10, weights: Sequence[int] = (100, 50, 200)) -> Footprint:
    names = dict(zip(("transformer", "vae", "text_encoder"), weights, strict=True))
    return Footprint(batch, names, dict(zip(STAGES, (batch, each * batch, 2 * each * batch), strict=True)))


@pytest.mark.parametrize(
    ("free", "offload", "batch"),
    [(2000, "none", 32), (1040, "none", 32), (840, "text", 32), (700, "text", 16), (400, "text", 8), (205, "text", 1)],
)
def test_what_fits_is_chosen(free: float, offload: str, batch: int) -> None:
    spec = load_spec("tiny-text", {"batch": 32})
    placed = fitting.fitted(footprint(32), lambda: footprint(1), spec, fitting.Room(int(free), 3000))
    assert (placed.offload, placed.batch) == (offload, batch)
    assert bool(placed.words) == ((offload, batch) != ("none", 32))
    for word in (["--offload text"] if offload == "text" else []) + ([f"{batch} at a time"] if batch < 32 else []):
        assert word in placed.words


def test_what_cannot_fit_is_refused_with_what_uses_the_card() -> None:
    spec = load_spec("tiny-text", {"batch": 32})
    with pytest.raises(UsageError, match=r"2 other processes on it.*decode_tiled.*--offload model.*end the other processes"):
        fitting.fitted(footprint(32), lambda: footprint(1), spec, fitting.Room(150, 3000, 2))
    spec = load_spec("tiny-text", {"batch": 32, "offload": "model"})
    assert fitting.fitted(footprint(32), lambda: footprint(1), spec, fitting.Room(205, 3000)).offload == "model"


def test_a_card_that_is_too_small_is_told_before_a_weight_is_loaded(
    device: SimulatedCuda,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = preset(tmp_path, folders["pixart"])
    monkeypatch.setattr("harness.execution.sampler.load_pipeline", lambda *a, **k: pytest.fail("loaded"))
    monkeypatch.setattr("ilf_bench.experiment.load_pipeline", lambda *a, **k: pytest.fail("loaded"))
    for more in ([], ["--dry-run"]):
        with device.memory(4096, 1):
            assert main(["run", str(path), "--out", str(tmp_path / "runs"), *more]) == 64
        said = capsys.readouterr()
        assert "of GPU memory for one image at a time" in " ".join((said.out + said.err).split())


def test_memory_that_runs_out_at_loading_is_named(
    device: SimulatedCuda,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing could be predicted, or another process was faster."""
    path = preset(tmp_path, folders["pixart"])
    monkeypatch.setattr(fitting, "rehearse", lambda *a: torch.empty(1, device="meta").item())
    with device.memory(4096, 1):
        assert main(["run", str(path), "--out", str(tmp_path / "runs")]) == 64
    said = capsys.readouterr()
    assert "memory for the model: an unknown amount" in " ".join((said.out + said.err).split())


def test_encoded_prompts_survive_that_the_encoder_leaves(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = load_pipeline(load_spec(str(preset(tmp_path, folders["pixart"]))), "text")
    kept = EncodedPrompts(pipeline.pipe)
    with pipeline.keeping_prompts(kept):
        pipeline.encode(PROMPTS[:2])
        assert pipeline.residency.stage == "text"
        pipeline.residency.enter("denoise")
        assert kept.applies
        pipeline.generate(PROMPTS[:2], 0, range(2))
    assert len(kept.kept) == 1


def test_graphs_do_not_go_with_weights_that_move(folders: dict[str, Path], tmp_path: Path) -> None:
    from harness.errors import NotMeasured

    pipeline = load_pipeline(load_spec(str(preset(tmp_path, folders["dit"]))), "model")
    with pytest.raises(NotMeasured, match="--offload none"), build("cuda-graphs", Path()).attach(pipeline):
        pass


@pytest.mark.parametrize(("dtype", "tiled"), [("float32", False), ("bfloat16", False), ("auto", True)])
def test_the_decoder_has_a_precision_of_its_own(folders: dict[str, Path], tmp_path: Path, dtype: str, tiled: bool) -> None:
    options = {"dtype": "float16", "decode_dtype": dtype, "decode_tiled": tiled}
    spec = load_spec(str(preset(tmp_path, folders["dit"], **options)))
    pipeline = load_pipeline(spec)
    seen: list[torch.dtype] = []
    decoder = pipeline.pipe.vae.decoder
    decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    assert pipeline.generate(PROMPTS[:2], 0, range(2)).dtype == torch.uint8
    assert set(seen) == {torch.float16 if dtype == "auto" else getattr(torch, dtype)}
    assert ("tiles" if tiled else dtype) in pipeline.arithmetic and pipeline.pipe.vae.use_tiling == tiled


def test_sdxls_decoder_overflows_in_float16_and_decodes_in_float32(folders: dict[str, Path], tmp_path: Path) -> None:
    from harness.sampling.images import set_decoder

    pipeline = load_pipeline(load_spec(str(preset(tmp_path, folders["dit"], dtype="float16"))))
    vae = pipeline.pipe.vae
    assert set_decoder(vae, "auto", False) == "" and vae.dtype == torch.float16
    vae.register_to_config(scaling_factor=0.13025)
    assert set_decoder(vae, "auto", False) == "float32" and vae.dtype == torch.float32
    for size in ("bfloat16", "float32"):
        vae.to(getattr(torch, size))
        assert set_decoder(vae, "auto", False) == ""


def test_what_stays_float32_is_predicted_so(folders: dict[str, Path], tmp_path: Path) -> None:
    """transformers keeps a T5's `wo` in float32 where the rest is float16, and predictions count it so."""
    spec = load_spec(str(preset(tmp_path, folders["pixart"], dtype="float16")))
    predicted, real = empty_pipeline(spec).pipe, load_pipeline(spec).pipe
    for part in ("text_encoder", "transformer", "vae"):
        theirs = {name: p.dtype for name, p in getattr(real, part).named_parameters()}
        assert {name: p.dtype for name, p in getattr(predicted, part).named_parameters()} == theirs
    kept = [name for name, p in real.text_encoder.named_parameters() if p.dtype == torch.float32]
    assert kept and all(".wo." in name for name in kept)
