"""Every family at tiny size: true format, published counts, any shape of image; and every family x method keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import NotMeasured, UsageError
from harness.execution.fitting import predict, predict_methods
from harness.models.families.base import ModelCall
from harness.models.random_weights import describe
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline, without_variances
from harness.sampling.restoration import Restoration
from harness.sampling.sites import Predict, model_changed
from ilf_bench.testing import EVERY, images
from studies.families import ARCHITECTURES, CASES, EVERY_METHOD, FAST, LEARNED, WORDS, Opened, recorded, why_not

FLOW = [name for name in CASES if name not in ("DiT", "PixArt-alpha", "PixArt-Sigma")]


def forward_macs(pipeline: Pipeline) -> int:
    """Multiply-accumulates of the transformer on one image and one guidance branch, as torch counts those of its first call. The
    caption is as long as it can be."""
    counted: list[int] = []
    forward = pipeline.transformer.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            output = forward(*args, **kwargs)
        counted.append(counter.get_total_flops() // 2)
        return output

    pipeline.transformer.requires_grad_(False)  # torch's counter hooks itself to the gradients of all inputs that have one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.transformer, "forward", call)
        pipeline.generate([WORDS[0] if pipeline.is_class_conditional else " ".join(WORDS * 20)], 0, [0])
    return counted[0] // pipeline.guidance.rows


@pytest.mark.parametrize("name", CASES)
def test_multiply_accumulates_are_those_that_torch_counts(families: dict[str, Opened], name: str) -> None:
    pipeline = families[name].pipeline
    assert forward_macs(pipeline) == pipeline.geometry.forward_macs


@pytest.mark.parametrize("name", CASES)
def test_saved_in_the_true_format_it_loads_to_the_same_images(families: dict[str, Opened], name: str) -> None:
    case, loaded = CASES[name], families[name].pipeline
    built = case.tiny.build()
    built.labels = getattr(loaded.pipe, "labels", {})
    side = {"height": case.tiny.asked, "width": case.tiny.asked}
    told = {"steps": 4, "guidance": 2.0, "solver": "checkpoint", "precision": "fp32", **side, **case.settings}
    assert torch.equal(images(Pipeline(built, **told), EVERY), images(loaded, EVERY))
    made = images(loaded, EVERY).float()
    assert made.shape == (3, 3, *loaded.image_size) and made.std() > 2 and (made[0] != made[1]).any()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.family.any_size])
def test_an_image_need_not_be_square(families: dict[str, Opened], name: str) -> None:
    square = families[name].pipeline
    height, width = square.image_size[0], square.image_size[1] * 2
    wide = CASES[name].open(square.folder, height=height, width=width, steps=2)  # type: ignore[arg-type]
    assert images(wide, [0]).shape == (1, 3, height, width)
    assert forward_macs(wide) == wide.geometry.forward_macs > square.geometry.forward_macs


@pytest.mark.parametrize("name", FLOW)
@pytest.mark.parametrize("text", FAST)
def test_a_method_keeps_the_contract(families: dict[str, Opened], name: str, text: str) -> None:
    assert why_not(families[name], text) == ""


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", EVERY_METHOD)
def test_the_document_says_what_every_method_does(families: dict[str, Opened], name: str, text: str) -> None:
    assert why_not(families[name], text) == recorded()[text, name]


SKIPS = ("fora:2", "deepcache:interval=2:first=2:last=5", "first-block:9", "pab:attention=2:cross=2:low=0:high=1000")


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", SKIPS)
def test_a_cache_changes_the_images_and_runs_less(families: dict[str, Opened], name: str, text: str) -> None:
    pipeline = families[name].pipeline
    plain = images(pipeline, EVERY)
    with pipeline.counting() as counter, families[name].method(text).attach(pipeline):
        assert not torch.equal(images(pipeline, EVERY), plain)
    assert 0 < counter.rows < len(EVERY) * pipeline.plan().block_evaluations


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", LEARNED)
def test_what_is_learned_on_a_family_runs_less_and_changes_the_images(families: dict[str, Opened], name: str, text: str) -> None:
    pipeline = families[name].pipeline
    method, plain = families[name].method(text), images(pipeline, EVERY)
    with pipeline.counting() as counter, method.attach(pipeline):
        assert not torch.equal(images(pipeline, EVERY), plain)
    assert 0 < counter.rows < len(EVERY) * pipeline.plan().block_evaluations


SAME = (
    "deepcache:interval=1",
    "delta-dit:interval=1",
    "encoder:keys=4",
    "step-rehash:threshold=2",
    "fora:interval=1",
    "taylorseer:interval=1",
    "smoothcache:alpha=0",
    "pab:attention=1:cross=1",
    "first-block:0",
    "teacache:0",
    "magcache:threshold=0",
    "steps:4",
)


@pytest.mark.families
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("text", SAME)
def test_where_nothing_is_skipped_it_is_the_full_run_bit_for_bit(families: dict[str, Opened], name: str, text: str) -> None:
    pipeline = families[name].pipeline
    plain = images(pipeline, EVERY)
    with pipeline.counting() as counter, families[name].method(text).attach(pipeline):
        assert torch.equal(images(pipeline, EVERY), plain)
    assert counter.rows == pytest.approx(len(EVERY) * pipeline.plan().block_evaluations)


@pytest.mark.parametrize("name", FLOW)
def test_untrained_feedback_of_zero_scale_is_the_backbone_bit_for_bit(families: dict[str, Opened], name: str) -> None:
    from ilf.attach import feedback_attached
    from ilf.checkpoint import load_module

    pipeline = families[name].pipeline
    module = load_module(families[name].module)
    module.scales.data.zero_()
    plain = images(pipeline, EVERY)
    attached = feedback_attached(
        pipeline.transformer, pipeline.family, module, module.schedule, pipeline.clock, pipeline.guidance
    )
    with attached:
        assert torch.equal(images(pipeline, EVERY), plain)


@pytest.mark.parametrize("name", CASES)
def test_guidance_makes_of_both_branches_what_the_pipeline_gives_its_scheduler(families: dict[str, Opened], name: str) -> None:
    pipeline, given = families[name].pipeline, list[torch.Tensor]()
    answers: list[torch.Tensor] = []
    step = pipeline.pipe.scheduler.step

    def seen(output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        given.append(output)
        return step(output, *args, **kwargs)

    def heard(predict: Predict, call: ModelCall) -> torch.Tensor:
        answers.append(without_variances(predict(call), call.sample))
        return predict(call)

    with patched(pipeline.pipe.scheduler, "step", seen), model_changed(pipeline.transformer, pipeline.family, heard):
        images(pipeline, [0, 1])
    guidance, calls = pipeline.guidance, len(answers) // len(given)
    for number, output in enumerate(given):
        first, *second = answers[number * calls : (number + 1) * calls]
        conditional, null = (first, second[0]) if second else guidance.halves(first)
        guided = without_variances(output, conditional)[: len(conditional)]  # DiT's pipeline steps both halves alike
        torch.testing.assert_close(guidance.combined(conditional, null), guided)
    told = ("FLUX.1-dev", "FLUX.1-schnell", "FLUX.2-dev", "FLUX.2-klein", "Z-Image-Turbo")  # of one branch
    assert guidance.on == (name not in told) and calls == guidance.branches // guidance.rows


@pytest.mark.parametrize("text", ("steps:3", "fora:3", "first-block:9"))
def test_an_image_does_not_depend_on_how_long_its_neighbours_captions_are(families: dict[str, Opened], text: str) -> None:
    """Z-Image fills captions up to multiples of 32 tokens, and each list to its longest."""
    pipe = CASES["Z-Image"].tiny.build()
    pipe.tokenizer.model_max_length = 128
    pipeline = Pipeline(pipe, steps=4, guidance=2.0, height=16, width=16, solver="checkpoint", precision="fp32")
    prompts = ["red cat", "blue dog " * 6, "red dog " * 12]
    with families["Z-Image"].method(text).attach(pipeline):
        together = images(pipeline, EVERY, prompts)
        apart = torch.cat([images(pipeline, [i], prompts) for i in EVERY])
    assert (together - apart).abs().max() <= 1 and together.float().std() > 2


@pytest.mark.parametrize("name", CASES)
def test_memory_is_predicted_without_a_weight(families: dict[str, Opened], name: str) -> None:
    case, folder = CASES[name], families[name].pipeline.folder
    spec = case.spec(folder)  # type: ignore[arg-type]
    one, three = (predict(spec, ["red cat"] * count, count) for count in (1, 3))
    stages = ("denoise", "decode", "text")[: 2 if case.family.task == "class" else 3]
    assert all(0 < one.activations[stage] < three.activations[stage] for stage in stages)
    parts = families[name].pipeline.pipe.components.values()
    held = sum(weight.nbytes for part in parts if isinstance(part, torch.nn.Module) for weight in part.parameters())
    assert sum(one.weights.values()) >= held
    assert predict_methods(spec, ["red cat"], one, {"fora": families[name].method("fora:3")})["fora"] is not None


@pytest.mark.parametrize("name", CASES)
def test_the_first_call_of_a_pipeline_leaves_it_as_it_was(families: dict[str, Opened], name: str) -> None:
    fresh = CASES[name].open(families[name].pipeline.folder)  # type: ignore[arg-type]
    before = Restoration(fresh)
    images(fresh, [0])
    assert before.faults(100.0) == []


@pytest.mark.parametrize("name", FLOW)
def test_noise_is_keyed_by_seed_and_index(families: dict[str, Opened], name: str) -> None:
    pipeline = families[name].pipeline
    one, two = pipeline.generate(["red cat"] * 2, 5, [3, 4]), pipeline.generate(["red cat"] * 2, 5, [4, 3])
    assert (one.int() - two.flip(0).int()).abs().max() <= 1
    assert not torch.equal(one[0], one[1]) and not torch.equal(pipeline.generate(["red cat"], 6, [3])[0], one[0])


def test_every_architecture_can_be_made_tiny() -> None:
    for name, architecture in ARCHITECTURES.items():
        family, _ = describe(architecture)
        small = architecture.shrunk(family.tiny).empty("transformer")
        assert sum(weight.numel() for weight in small.parameters()) < 350_000, name  # Z-Image's time takes 270,000


@pytest.mark.families
def test_one_step_that_a_scheduler_cannot_make_is_refused(families: dict[str, Opened]) -> None:
    with families["Qwen-Image"].pipeline.sampling(steps=1), pytest.raises(UsageError, match="at least 2 steps"):
        images(families["Qwen-Image"].pipeline, [0])


def test_a_method_that_does_not_apply_says_why_before_it_runs(families: dict[str, Opened]) -> None:
    one = families["SD3"]
    for text in ("t-gate:0.5", "solver:bdia"):
        with pytest.raises(NotMeasured):
            one.method(text).plan(one.pipeline.plan())
