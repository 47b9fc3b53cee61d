"""What made an image belongs to its run's identity: whatever has changed is made again, and nothing else is."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from baselines.steps import Full
from harness.config.methods import parse_method
from harness.config.spec import load_spec
from harness.cost.guidance import Guidance
from harness.cost.plan import Backbone, Plan
from harness.execution import identity
from harness.execution.code import DECIDING, OURS, ROOTS, code_digest, sources
from harness.execution.identity import NO_SETTINGS, changes, describe_changes, known_identity
from harness.history.bundle import extract_bundle, write_bundle
from harness.history.store import History
from harness.history.verify import verify_run
from harness.models.identity import component_paths, folder_digest, memory_digest
from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from harness.storage.layout import slug
from harness.storage.records import read_json, read_run, write_json
from harness.storage.samples import SampleSet
from ilf_bench.cli import main
from ilf_bench.registry import BUILT_IN
from tests.harness.execution.test_runner import write_preset
from tests.records import method_record

MINE = """
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from NEIGHBOUR import steps_of
from harness.sampling.grids import power_grid

WEIGHTS = "weights.txt"

@dataclass(frozen=True)
class Mine:
    label = "mine"
    def plan(self, plan):
        return plan.with_timesteps(power_grid(len(plan.steps), 1.5))
    @contextmanager
    def attach(self, pipeline):
        power = float((Path(__file__).parent / WEIGHTS).read_text())
        with pipeline.sampling(timesteps=power_grid(steps_of(pipeline), power)):
            yield

METHODS = {"mine": Mine}
"""
HELPER = "def steps_of(pipeline):\n    return pipeline.steps\n"


@dataclass
class Bench:
    """A preset on a pipeline of its own, with a plugin, a helper beside it, and a file that it reads."""

    folder: Path
    preset: Path
    plugin: Path
    helper: Path
    out: Path
    sampled: list[str]
    say: Callable[[], str]

    def run(self, *options: str, code: int = 0) -> list[str]:
        """Run; returns the folders of the methods that were sampled, in order."""
        self.sampled.clear()
        assert main(["run", str(self.preset), "--out", str(self.out), "--plugin", str(self.plugin), *options]) == code
        return list(dict.fromkeys(self.sampled))

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.out.glob("*/spec.json"))


FULL, MINE_SLUG, TWO = slug("full"), slug("mine"), slug("2 steps")


@pytest.fixture
def bench(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    folder = Path(shutil.copytree(folders["dit"], tmp_path / "dit"))
    plugin = tmp_path / "plugins" / "mine.py"
    plugin.parent.mkdir()
    helper = plugin.with_name(f"helper_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}.py")  # one name in a process
    plugin.write_text(MINE.replace("NEIGHBOUR", helper.stem))
    helper.write_text(HELPER)
    plugin.with_name("weights.txt").write_text("1.5")
    timing = {"rounds": 1, "batch": 2, "warmup": 0}
    methods = ["full", "mine", "steps:2"]
    preset = write_preset(tmp_path, folder, methods=methods, samples=4, timing=timing, metrics=["psnr"])
    sampled: list[str] = []
    begin = SampleSet.begin
    monkeypatch.setattr(SampleSet, "begin", lambda self, *a, **k: sampled.append(self.folder.name) or begin(self, *a, **k))
    return Bench(folder, preset, plugin, helper, tmp_path / "runs", sampled, lambda: " ".join(capsys.readouterr().out.split()))


def images(run: Path, name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run / "samples" / name).glob("*.png"))]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda bench: edit(bench.plugin, "float((", "0.8 * float(("), "plugin mine.py"),
        (lambda bench: edit(bench.helper, "pipeline.steps", "pipeline.steps - 1"), "plugin mine.py"),
        (lambda bench: bench.plugin.with_name("weights.txt").write_text("2.5"), "a file that it reads"),
    ],
    ids=["its own text", "a helper beside it", "a file that it names"],
)
def test_an_edited_plugin_is_made_again_under_its_own_row(bench: Bench, change: Callable[[Bench], None], what: str) -> None:
    """README's loop: edit, same command. The old row came back in silence."""
    assert bench.run() == [FULL, MINE_SLUG, TWO]
    (run,) = bench.runs
    created, before, others = read_json(run / "environment.json")["created"], images(run, MINE_SLUG), images(run, TWO)
    timed = read_json(run / "timing" / "000.json")
    bench.say()
    change(bench)
    assert bench.run() == [MINE_SLUG] and bench.runs == [run]
    assert f"mine: {what} changed since {created}: made again" in bench.say()
    assert images(run, MINE_SLUG) != before and images(run, TWO) == others
    assert read_json(run / "timing" / "000.json") != timed
    assert verify_run(run, read_run(run)).findings == () and read_run(run).complete
    assert len(History(bench.out / "history.sqlite").runs()) == 2
    assert bench.run() == []


def test_a_plugins_sources_are_in_the_run_and_in_the_bundle(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    (run,) = bench.runs
    record = read_run(run).records["mine"]
    kept = run / "plugins" / record.parts[0].plugin_digest[:16]
    assert (kept / "mine.py").read_text() == bench.plugin.read_text() and (kept / bench.helper.name).read_text() == HELPER
    edit(bench.plugin, "float((", "0.8 * float((")
    bench.run()
    (now,) = (run / "plugins").iterdir()
    assert now != kept and "0.8 * float" in (now / "mine.py").read_text()
    write_bundle(run, tmp_path / "b.zip")
    extract_bundle(tmp_path / "b.zip", tmp_path / "there")
    assert (tmp_path / "there" / "plugins" / now.name / bench.helper.name).read_text() == HELPER
    loaded = History(bench.out / "history.sqlite").runs()[-1]
    assert HELPER in History(bench.out / "history.sqlite").load(loaded.run_id).plugins.values()


def test_a_finished_run_says_so_and_stays_as_it_is(bench: Bench) -> None:
    bench.run()
    (run,) = bench.runs
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "report" not in path.parts}
    finished = read_json(run / "run.json")
    bench.say()
    assert bench.run() == []
    said = bench.say()
    assert f"complete since {finished['finished']} at {str(finished['commit'])[:12]}, nothing measured" in said
    assert {path: path.read_bytes() for path in before} == before and len(History(bench.out / "history.sqlite").runs()) == 1


def test_again_is_a_new_repeat_beside_it(bench: Bench) -> None:
    bench.run()
    assert bench.run("--again") == [FULL, MINE_SLUG, TWO]
    assert bench.run("--again") == [FULL, MINE_SLUG, TWO]
    first, second, third = bench.runs
    assert (second.name, third.name) == (f"{first.name}-2", f"{first.name}-3")
    assert images(first, TWO) == images(second, TWO) and read_run(first).complete
    assert len({entry.run_id for entry in History(bench.out / "history.sqlite").runs()}) == 3
    assert bench.run() == [] and len(bench.runs) == 3


def other_code(monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    """As if a source that these methods need (all of them, where none is named) had been edited."""
    monkeypatch.setattr(identity, "code_digest", lambda modules: "other" if not methods or {*modules} & {*methods} else "same")


def test_at_other_code_a_finished_run_stays_and_another_is_made_beside_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()
    (run,) = bench.runs
    before, key = images(run, FULL), read_json(run / "run.json")
    bench.say()
    other_code(monkeypatch, "nothing")  # of no method: but another digest than before
    assert bench.run() == [FULL, MINE_SLUG, TWO]
    assert (
        f"{run.name} is finished, and the code of ilf-bench has changed since: measured once more in {run.name}-2" in bench.say()
    )
    assert [path.name for path in bench.runs] == [run.name, f"{run.name}-2"]
    assert images(run, FULL) == before and read_json(run / "run.json") == key
    assert bench.run() == []


def test_of_an_unfinished_run_only_methods_of_the_same_code_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "code_digest", lambda modules: "same")
    bench.run()
    (run,) = bench.runs
    (run / "run.json").unlink()
    other_code(monkeypatch, "baselines.steps")
    bench.say()
    assert bench.run() == [FULL, TWO] and bench.runs == [run]
    assert "2 steps: the code of ilf-bench changed since" in bench.say()


def flip_scheduler(bench: Bench) -> None:
    edit(bench.folder / "scheduler" / "scheduler_config.json", '"beta_end": 0.02', '"beta_end": 0.019')


def test_a_changed_scheduler_of_the_checkpoint_is_other_images(bench: Bench) -> None:
    """A finished run stays; the images of an unfinished one are made again."""
    bench.run()
    (run,) = bench.runs
    before = images(run, FULL)
    flip_scheduler(bench)
    bench.say()
    assert bench.run() == [FULL, MINE_SLUG, TWO]
    assert "a file of the pipeline has changed since" in bench.say() and len(bench.runs) == 2
    assert images(run, FULL) == before != images(bench.runs[1], FULL)
    (bench.runs[1] / "run.json").unlink()
    edit(bench.folder / "scheduler" / "scheduler_config.json", '"beta_end": 0.019', '"beta_end": 0.02')
    assert bench.run() == [FULL, MINE_SLUG, TWO] and len(bench.runs) == 2
    assert images(bench.runs[1], FULL) == before


def test_other_prompts_under_the_same_name_are_other_images(bench: Bench) -> None:
    bench.run()
    text = (bench.preset.parent / "prompts.txt").read_text()
    (bench.preset.parent / "prompts.txt").write_text("\n".join(reversed(text.split("\n"))).strip() + "\n")
    bench.say()
    assert bench.run() == [FULL, MINE_SLUG, TWO] and len(bench.runs) == 2
    assert "the prompts or settings has changed since" in bench.say()


def test_another_machine_ends_an_unfinished_run_and_begins_one_beside_a_finished(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run()
    (run,) = bench.runs
    write_json(run / "environment.json", read_json(run / "environment.json") | {"machine_key": "another"})
    assert bench.run() == [FULL, MINE_SLUG, TWO] and len(bench.runs) == 2
    newest = bench.runs[1]
    write_json(newest / "environment.json", read_json(newest / "environment.json") | {"machine_key": "another"})
    (newest / "run.json").unlink()
    assert bench.run(code=65) == []
    assert "machine key: another -> " in capsys.readouterr().err


def test_a_calibration_belongs_to_its_method(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    timing = {"rounds": 0}
    write_preset(tmp_path, bench.folder, methods=["full", "magcache:0.5", "mine"], samples=4, timing=timing, metrics=[])
    magcache = slug("magcache(0.5, most=2)")
    assert bench.run()[:1] == [FULL] and bench.run() == [], "made by the first call, and no other than it was"
    (file,) = (tmp_path / "cache" / "ilf-bench" / "calibrations").glob("magcache-*.json")
    content = read_json(file)
    write_json(file, content | {"curves": {"ratios": [1.0] * len(content["curves"]["ratios"])}})
    made = bench.run()
    assert len(made) == 1 and made[0].startswith("magcache"), magcache
    assert "its calibration changed since" in bench.say() and bench.run() == []


@pytest.mark.parametrize("kind", ["dit", "pixart"])
def test_every_file_of_every_component_counts(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(folders[kind], tmp_path / kind))
    (folder / "transformer" / "weights.in.another.format").write_bytes(b"\1" * 3_000_000)
    files = [path for part in component_paths(folder) for path in ([part] if part.is_file() else sorted(part.rglob("*")))]
    assert {path.parent.name for path in files} >= {"transformer", "vae", "scheduler"} | (
        {"tokenizer"} if kind == "pixart" else set()
    )
    seen = {folder_digest(folder)}
    for file in files:
        before = file.read_bytes()
        middle = len(before) // 2
        file.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        if file.name == "model_index.json":
            file.write_bytes(before + b"\n")
        seen.add(folder_digest(folder))
        file.write_bytes(before)
    assert len(seen) == 1 + len(files) and folder_digest(folder) in seen
    (folder / "README.md").write_text("a card")
    (folder / "ilf").mkdir()
    (folder / "ilf" / "config.json").write_text("{}")
    assert folder_digest(folder) in seen, "cards decide nothing, and methods' folders only their own rows"


def test_a_transformer_in_a_repository_of_its_own_counts_in_place_of_the_bases(folders: dict[str, Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(folders["dit"], tmp_path / "base"))
    own = Path(shutil.copytree(folders["dit"] / "transformer", tmp_path / "own" / "transformer"))
    before = folder_digest(base, own)
    assert own in component_paths(base, own) and base / "transformer" not in component_paths(base, own)
    edit(own / "config.json", "{", "{ ")
    assert folder_digest(base, own) != before
    edit(own / "config.json", "{ ", "{")
    shutil.rmtree(base / "transformer")
    assert folder_digest(base, own) == before


def test_a_pipeline_in_memory_is_its_parameters_buffers_and_settings(pipeline: Pipeline) -> None:
    pipe, seen = pipeline.pipe, {memory_digest(pipeline.pipe)}
    weight = next(pipe.transformer.parameters())
    weight.data.view(-1)[7] += 1e-6
    seen.add(memory_digest(pipe))
    pipe.vae.register_buffer("mine", torch.zeros(2, dtype=torch.bfloat16))
    seen.add(memory_digest(pipe))
    pipe.vae.mine[1] = 1
    seen.add(memory_digest(pipe))
    pipe.scheduler.register_to_config(beta_end=0.019)
    seen.add(memory_digest(pipe))
    assert len(seen) == 5


def test_code_is_what_samples_solves_and_times() -> None:
    common, fora, ilf = (set(sources((*ROOTS, *more))) for more in ((), ("baselines.fora",), ("ilf.method",)))
    assert common >= {"harness.sampling.pipeline", "harness.sampling.solvers", "harness.timing.rounds", "harness.models.loading"}
    assert fora - common == {"baselines", "baselines.fora", "baselines.support", "baselines.support.caching"}
    assert {"ilf.loop", "ilf.module"} <= ilf - common and not any(name.startswith("baselines") for name in ilf)
    others = ("reports", "metrics", "ilf_bench", "harness.storage", "harness.history")
    assert not any(name.startswith(others) for name in fora | ilf)
    assert len({code_digest([f"baselines.{name}"]) for name in ("fora", "teacache", "pab", "deepcache")}) == 4
    assert all(
        (ROOT / name.replace(".", "/")).with_suffix(".py").exists() or (ROOT / name.replace(".", "/")).is_dir()
        for name in DECIDING
    )
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"} <= OURS


def test_every_method_that_reads_files_names_them(folders: dict[str, Path]) -> None:
    """Whatever lies in a pipeline's folder for a method is in that method's files, and in no other's."""
    plan = Plan.full(Backbone(6, folders["dit"]), 4, Guidance(1.5), "dpm++")
    for text in ("ecad:0.7", "harmonica", "learning-to-cache", "deediff", "bespoke:3"):
        name = text.split(":")[0]
        found = list(identity.files_of(parse_method(text, BUILT_IN), plan))
        assert found and all(name in str(path) for path in found), text
    assert list(identity.files_of(parse_method("steps:2+fora:2", BUILT_IN), plan)) == []


def test_changes_are_named() -> None:
    before = {"code": "a", "plugin": "half.py 12", "packages": "torch 1, numpy 2", "calibrations": ""}
    assert changes(before, before) == [] and changes(before, before | {"calibrations": "x"}) == []
    assert describe_changes(before, before | {"plugin": "half.py 13"}) == "plugin half.py"
    assert describe_changes(before, before | {"packages": "torch 1.1, numpy 2"}) == "torch 1 -> 1.1"
    assert describe_changes(before, before | {"packages": "torch 1, numpy 2, torchao 3"}) == "torchao none -> 3"
    assert changes({"calibrations": "x"}, {"calibrations": "y"}) == ["calibrations"]


def test_two_plugins_of_one_name_do_not_pass_for_each_other(bench: Bench, tmp_path: Path) -> None:
    edit(bench.plugin, f"from {bench.helper.stem} import steps_of", "def steps_of(pipeline): return pipeline.steps")
    bench.run()
    (run,) = bench.runs
    before = images(run, MINE_SLUG)
    other = tmp_path / "elsewhere" / "mine.py"
    shutil.copytree(bench.plugin.parent, other.parent)
    assert bench.run() == []
    edit(other, "float((", "0.8 * float((")
    bench.plugin = other
    assert bench.run() == [MINE_SLUG] and images(run, MINE_SLUG) != before


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_setting_that_decides_an_image_is_in_the_identity(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Each field of a preset either changes it, or is listed as one that decides no image of a method."""
    spec = load_spec(str(write_preset(tmp_path, folders["pixart"])), {})
    record, method = method_record("full", 480), Full()
    others: dict[str, object] = {
        **{"task": "class", "solver": "ddim", "precision": "bf16", "dtype": "float16", "offload": "text"},
        **{"decode_dtype": "float16", "negative_prompt": "grey", "compile": True, "decode_tiled": True},
    }
    unchanged = set()
    later = {"true_guidance": 1.0, "negative_prompt": "", "height": 0, "width": 0}  # left out where they are not used
    for name, value in (spec.identity() | later).items():
        other = others.get(name, value + 1 if isinstance(value, int | float) else "another")
        found = known_identity(record, method, spec.model_copy(update={name: other}), {"digest": "d"}, {})
        unchanged |= {name} if found == known_identity(record, method, spec, {"digest": "d"}, {}) else set()
    assert unchanged == NO_SETTINGS
