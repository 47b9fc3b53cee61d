"""Trials of the survival campaign in which the input is edited while a run is down: what was made before must not stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import yaml

from benchmarks.trials import Bench, Unexplained, call, check_same, command, killed, results, resume

UNFINISHED = 0.8  # of an undisturbed run's processor time: a finished run would stay beside the new one
PLUGIN = """
from contextlib import contextmanager
from dataclasses import dataclass

from settings_of_mine import STEPS

@dataclass(frozen=True)
class Mine:
    label = "mine"

    def plan(self, plan):
        return plan.with_steps(STEPS)

    @contextmanager
    def attach(self, pipeline):
        with pipeline.sampling(steps=STEPS):
            yield

METHODS = {"mine": Mine}
"""


def edit_plugin(bench: Bench, number: int) -> str:
    """A plugin, or in every second trial what it imports from beside it, is edited between two kills."""
    folder = bench.work / "plugin"
    folder.mkdir(exist_ok=True)

    def write(edited: bool) -> None:
        steps = "3" if not edited or number % 2 else "2"
        source = PLUGIN.replace("(STEPS)", "(STEPS - 1)").replace("=STEPS)", "=STEPS - 1)") if edited and number % 2 else PLUGIN
        (folder / "mine.py").write_text(source, encoding="utf-8")
        (folder / "settings_of_mine.py").write_text(f"STEPS = {steps}\n", encoding="utf-8")

    arguments = ["--plugin", str(folder / "mine.py"), "--methods", "full,steps:2,mine"]
    return _edited_between(bench, f"plugin {number % 2}", arguments, write)


SETTINGS = (  # of a component, and values that images depend on
    ("scheduler/scheduler_config.json", "beta_end", 0.03),
    ("transformer/config.json", "norm_eps", 0.1),
    ("text_encoder/config.json", "layer_norm_epsilon", 0.1),
    ("vae/config.json", "scaling_factor", 0.5),
)


def edit_settings(bench: Bench, number: int) -> str:
    """A setting of one component is another one after two kills; the weights are the same."""
    folder = bench.work / "pipeline"
    if not folder.exists():
        shutil.copytree(yaml.safe_load(bench.preset.read_text(encoding="utf-8"))["pipeline"], folder)
        for file in [folder / name for name, _, _ in SETTINGS]:  # as they are written below: a file is known by its bytes
            file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    name, key, value = SETTINGS[number % len(SETTINGS)]
    before = json.loads((folder / name).read_text(encoding="utf-8"))

    def write(edited: bool) -> None:
        (folder / name).write_text(json.dumps(before | ({key: value} if edited else {})), encoding="utf-8")

    try:
        return _edited_between(bench, f"settings {name}", ["--pipeline", str(folder)], write)
    finally:
        write(False)


def _edited_between(bench: Bench, name: str, options: list[str], write: Callable[[bool], None]) -> str:
    """Killed before the edit and after it; then to the end, and as a run that never knew another input."""
    if name not in bench.changed:
        found = []
        for edited in (False, True):
            write(edited)
            out = bench.out()
            code, said = call([*bench.run(out), *options], out)
            if code:
                raise Unexplained(f"the undisturbed call left by {code}: {said[-500:]}")
            found.append(results(out))
        if found[0] == found[1]:
            raise Unexplained(f"{name}: the edit changes nothing")
        bench.changed[name] = found[1]
    out = bench.out()
    arguments = [*bench.run(out), *options]
    for edited in (False, True):
        write(edited)
        killed(command(arguments), out / "log.txt", bench.rng.uniform(0, UNFINISHED) * bench.seconds)
    return resume(arguments, out, lambda: check_same(bench.changed[name], out))
