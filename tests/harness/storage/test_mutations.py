"""Mutated inputs: no crash without a message, no hang, and no success on nonsense.

About fifty of each of the six kinds, always the same; ``ILF_BENCH_MUTATIONS=1000`` tries a thousand others.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.config.prompts import LIMIT, load_prompts
from harness.errors import ArtifactError, HarnessError
from harness.history.store import run_id
from harness.models.checksums import write_sums
from harness.models.loading import load_pipeline
from harness.storage.files import digest
from harness.storage.images import decode_image, encode_png
from harness.storage.records import read_run
from ilf_bench import experiment as app
from ilf_bench import outcome
from ilf_bench.cli import main
from tests.conftest import PROMPTS
from tests.reports.conftest import Fake, write_fake

TOTAL = int(os.environ.get("ILF_BENCH_MUTATIONS", "300"))
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": TOTAL <= 300}
mutated = settings(max_examples=max(1, TOTAL // 6), **COMMON)  # type: ignore[arg-type]
CODES = {0, 1, 2, 3, 4, 64, 65, 74}
LIMIT_S = 10.0


@contextmanager
def in_time() -> Iterator[None]:
    """Fail after :data:`LIMIT_S` seconds of this process's own work; the machine may be busy."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"no answer within {LIMIT_S} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


MORSELS = [b"\x00", b"\xff\xfe", b"{", b"[" * 2000, b"null", b"-1", b"NaN", b"1e999", b"!!python/object/apply:os.abort []"]


@st.composite
def edits(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """One to four cuts, flips, insertions and repetitions."""
    seed, count = draw(st.integers(0, 2**32)), draw(st.integers(1, 4))
    inserted = draw(st.binary(max_size=12) | st.sampled_from(MORSELS))

    def edit(content: bytes) -> bytes:
        rng = random.Random(seed)
        for _ in range(count):
            place = rng.randrange(len(content) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                content = content[:place]
            elif kind == 1 and place < len(content):
                content = content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
            elif kind == 2:
                content = content[:place] + inserted + content[place:]
            else:
                content = content[:place] + content[max(0, place - 20) : place] + content[place:]
        return content

    return edit


def explained(error: HarnessError) -> bool:
    """Whether a refusal has its three parts."""
    return bool(error.expected and error.got and error.remedy)


@pytest.fixture(scope="module")
def preset(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The fields of a valid preset."""
    prompts = tmp_path_factory.mktemp("preset") / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    return {
        "name": "toy",
        "task": "class",
        "pipeline": str(folders["dit"]),
        "steps": 3,
        "guidance": 2.0,
        "samples": 4,
        "batch": 2,
        "seed": 1000,
        "precision": "fp32",
        "device": "cpu",
        "prompts": str(prompts),
        "methods": ["full", "steps:2"],
        "metrics": ["psnr"],
        "timing": {"rounds": 1, "batch": 2, "warmup": 0},
    }


def check_preset(path: Path) -> None:
    """Refused with an explanation, or a preset that makes sense."""
    with in_time():
        try:
            prepared = app.prepare(str(path), {}, [])
        except HarnessError as error:
            assert explained(error)
            return
    spec = prepared.experiment.spec
    assert 1 <= spec.steps <= 1000 and spec.samples == len(prepared.experiment.prompts) >= 1 and spec.batch >= 1
    assert "full" in prepared.experiment.methods and all(prompt.strip() for prompt in prepared.experiment.prompts)
    assert spec.name.replace("-", "").replace("_", "").replace(".", "").isalnum() and spec.name.strip(".")


@mutated
@given(edit=edits())
def test_presets(preset: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, edit: Callable[[bytes], bytes]) -> None:
    path = tmp_path_factory.mktemp("p") / "preset.yaml"
    path.write_bytes(edit(yaml.safe_dump(preset).encode()))
    check_preset(path)


NONSENSE = st.one_of(
    st.none(),
    st.just(float("nan")),
    st.just(float("-inf")),
    st.just(-1),
    st.just(10**30),
    st.just(""),
    st.just("\x00"),
    st.just("../../etc"),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just({"a": {}}),
    st.just("x" * 5000),
    st.just(True),
    st.text(max_size=8),
)


@mutated
@given(value=NONSENSE, data=st.data())
def test_presets_with_nonsense_in_a_field(
    preset: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, value: object, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(preset)))
    path = tmp_path_factory.mktemp("p") / "preset.yaml"
    path.write_text(yaml.safe_dump(preset | {field: value}))
    check_preset(path)


@pytest.mark.parametrize("field", ["pipeline", "prompts"])
@pytest.mark.parametrize("value", ["x" * 5000, "a\x00b"])
def test_a_path_that_no_file_can_have(preset: dict[str, Any], tmp_path: Path, field: str, value: str) -> None:
    """Found by the mutations: these crashed."""
    with pytest.raises(HarnessError):
        app.prepare(yaml_file(tmp_path, preset | {field: value}), {}, [])


@pytest.mark.parametrize("field", ["samples", "batch", "seed"])
def test_a_count_that_nobody_can_mean(preset: dict[str, Any], tmp_path: Path, field: str) -> None:
    """Found by the mutations: 1e30 samples were listed, one by one."""
    with in_time(), pytest.raises(HarnessError, match=field):
        app.prepare(yaml_file(tmp_path, preset | {field: 10**30}), {}, [])


def test_a_preset_of_brackets(tmp_path: Path) -> None:
    """Found by the mutations: eight thousand of them took ten seconds, and fewer ended in a RecursionError."""
    for depth in (250, 1_000, 8_000):
        (tmp_path / "preset.yaml").write_text("name: a\nmethods: " + "[" * depth)
        with in_time(), pytest.raises(HarnessError, match="valid YAML"):
            app.prepare(str(tmp_path / "preset.yaml"), {}, [])


LISTS = {
    ".txt": b"red cat\nblue dog\n",
    ".csv": b'id,prompt\n1,red cat\n2,"blue, dog"\n',
    ".tsv": b"prompt\tid\nred cat\t1\n",
    ".json": b'[{"prompt": "red cat"}, {"prompt": "blue dog"}]',
    ".jsonl": b'{"text": "red cat"}\n{"text": "blue dog"}\n',
}


@mutated
@given(suffix=st.sampled_from(sorted(LISTS)), edit=edits())
def test_prompt_files(tmp_path_factory: pytest.TempPathFactory, suffix: str, edit: Callable[[bytes], bytes]) -> None:
    path = tmp_path_factory.mktemp("l") / f"list{suffix}"
    path.write_bytes(edit(LISTS[suffix]))
    with in_time():
        try:
            listed = load_prompts(str(path))
        except HarnessError as error:
            assert explained(error) and path.name in str(error)
            return
    assert listed.texts and all(text.strip() and len(text) <= LIMIT and "\x00" not in text for text in listed.texts)


@mutated
@given(edit=edits())
def test_images(tmp_path_factory: pytest.TempPathFactory, edit: Callable[[bytes], bytes]) -> None:
    content = encode_png(np.arange(3 * 16 * 16).astype(np.uint8).reshape(3, 16, 16))
    path = tmp_path_factory.mktemp("i") / "image.png"
    path.write_bytes(changed := edit(content))
    with in_time():
        try:
            image = decode_image(path)
            assert image.dtype == np.uint8 and image.shape[0] == 3 and min(image.shape) > 0
        except ArtifactError as error:
            assert explained(error)
        if changed != content:
            with pytest.raises(ArtifactError):
                decode_image(path, digest(content))


@mutated
@given(edit=edits(), sealed=st.booleans())
@example(edit=lambda content: struct.pack("<Q", 2**63) + content[8:], sealed=False)
@example(edit=lambda content: struct.pack("<Q", 2) + b"{}" + content[10:], sealed=False)
def test_safetensors_headers(
    preset: dict[str, Any],
    folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    edit: Callable[[bytes], bytes],
    sealed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("w") / "dit"
    shutil.copytree(folders["dit"], folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    if sealed:
        write_sums(weights.parent)
    weights.write_bytes(changed := edit(content[:header]) + content[header:])
    spec = app.prepare(yaml_file(folder.parent, preset | {"pipeline": str(folder)}), {}, []).experiment.spec
    with in_time():
        try:
            pipeline = load_pipeline(spec)
        except ArtifactError as error:
            assert explained(error)
        else:
            assert changed == content or not sealed, "altered weights were used"
            assert all(p.dtype == torch.float32 for p in pipeline.transformer.parameters())
    shutil.rmtree(folder)


def yaml_file(folder: Path, content: dict[str, Any]) -> str:
    """Write a preset; returns its path."""
    (folder / "preset.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "preset.yaml")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("fake") / "run"
    write_fake(folder, Fake(n=8, rounds=2))
    return folder


@mutated
@given(data=st.data(), edit=edits())
def test_record_files(fake: Path, data: st.DataObject, edit: Callable[[bytes], bytes]) -> None:
    """A mutated record is refused by name, or says the same as before (a changed space, a lost note of completeness)."""
    before = run_id(read_run(fake))
    files = sorted([*fake.glob("*.json"), *fake.glob("*/*.json"), *fake.glob("scores/*/*")])
    files.remove(fake / "run.json")  # nothing in it is read
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    path.write_bytes(edit(content))
    try:
        with in_time():
            try:
                assert run_id(read_run(fake)) == before
            except ArtifactError as error:
                assert explained(error)
                assert main(["report", str(fake)]) == 65
    finally:
        path.write_bytes(content)


WORDS = [
    "run", "report", "list", "doctor", "score", "history", "gate", "--methods", "--metrics", "--steps", "--samples",
    "--seed", "--device", "--precision", "--pipeline", "--prompts", "--plugin", "--out", "--dry-run", "--against", "--task",
    "--engine", "--workers", "--help", "tiny-text", "full,steps:2", "steps:-1", "full+full", "full:", ":", "+", ",", "-1",
    "0", "1e9", "../..", "/dev/null", "/nonexistent", "s3://", "://", "memory://x", "cpu", "fp32", "presets", "text", "",
    "\x00", "é\u202e",
]  # fmt: skip
ARGUMENTS = st.sampled_from(WORDS) | st.text(max_size=6)


@mutated
@given(words=st.lists(ARGUMENTS, max_size=7))
@example(words=["report", "\x00"])
@example(words=["run", "--out", "://"])
@example(words=["run", "--prompts", "\x00"])
def test_command_lines(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    reached: list[app.Prepared] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("c"))
        patch.setattr(app, "execute", lambda prepared, *_, **__: reached.append(prepared) or SimpleNamespace(failures=[]))
        patch.setattr(app, "dry_run", lambda prepared, *_: reached.append(prepared))
        patch.setattr(outcome, "print_executed", lambda *_: None)
        patch.setattr(outcome, "print_dry_run", lambda *_: None)
        patch.setattr("ilf_bench.doctor.diagnose", lambda: [])
        with in_time():
            assert main(words) in CODES
    for prepared in reached:
        assert prepared.experiment.spec.samples >= 1 and "full" in prepared.experiment.methods
