"""Hostile files by the hundred: each begins as one of ours, and is changed in one place of its format, with fitting digests.

``make(number)`` is a function of the number alone (and of :data:`SEED`), so that any file can be made again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.history.bundle import MANIFEST, write_bundle
from harness.history.export import export_history
from harness.history.store import History
from harness.paths import ROOT
from harness.storage.files import digest
from harness.storage.records import read_json, write_json
from tests.reports.conftest import Fake, write_fake
from tests.security.crafted import PICKLE, POSTSCRIPT, encoded, npy, png, text_array, zipped
from tests.security.poison import REASON, texts

SEED = 17
HOST = "http://203.0.113.1"
SECRET = "s3cr3t-of-another-folder"
VALUES: list[Any] = [
    *(None, True, "", [], {}, 0, -1, 1.5, 1e308, -1e308, 10**30, 2**63, "1", "../../../outside/secret.json", "/etc/hostname"),
    *(
        "x" * 100_000,
        "\x00",
        "\ud83d",
        [[[[]]]],
        {"a": {"b": [1]}},
        [1] * 1000,
        REASON,
        f"s3://{HOST}/x",
        float("nan"),
        float("inf"),
    ),
    *texts(HOST),
]


@dataclass(frozen=True)
class Bases:
    """Files of ours, made once: every hostile one is a changed copy."""

    run: Path
    bundle: Path
    history: Path
    export: Path
    pipeline: Path

    @classmethod
    def build(cls, folder: Path, pipeline: Path) -> Bases:
        """Into a new folder."""
        run = write_fake(folder / "run", Fake(n=8, rounds=3))
        write_bundle(run.path, folder / "run.zip", images=True)
        history = History(folder / "history.sqlite")
        history.append(run)
        history.append(write_fake(folder / "other", Fake(n=8, rounds=3, slowdown=1.5)))
        export_history(history, folder / "export.json")
        return cls(run.path, folder / "run.zip", history.path, folder / "export.json", pipeline)


@dataclass(frozen=True)
class Case:
    """One hostile file and what is done with it: commands of ``ilf-bench``, or names of other work of test_campaign.py."""

    kind: str
    commands: tuple[tuple[str, ...], ...]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items):
        yield value, key
        yield from places(part)


def mutate(rng: random.Random, content: Any) -> Any:
    """``content`` with one place gone, doubled, or something else."""
    changed = json.loads(json.dumps(content))
    container, key = rng.choice(list(places(changed)) or [({"x": 0}, "x")])
    how = rng.randrange(4)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, list):
        container.append(container[key])
    else:
        container[key] = rng.choice(VALUES)
    return changed


def dumped(content: Any) -> bytes:
    """JSON as anybody writes it: NaN and halves of letters too."""
    return json.dumps(content).encode()


def sealed(path: Path, content: Any) -> None:
    """As our own writer does where it can, else as anybody does, with a digest that fits."""
    try:
        write_json(path, content)
    except ValueError:
        path.write_bytes(dumped(content))


def blob(rng: random.Random) -> bytes:
    """Bytes that are something else than what they are called."""
    array = npy(f"({rng.choice([8, 10**12, -1])},)", rng.choice(["<f8", "|O", "<U9", "|V8"]), bytes(64))
    some = [b"", b"\x00" * 100, PICKLE, POSTSCRIPT, encoded("GIF"), encoded("TIFF"), png(2**15, 2**15, b""), b"[" * 9999, array]
    return rng.choice([*some, rng.randbytes(300)])


def damage(rng: random.Random, content: bytes) -> bytes:
    """Cut, flipped or overwritten bytes, headers preferred."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 4, 32])):
        place = rng.randrange(min(len(data), rng.choice([16, 256, 10**9]))) if data else 0
        data[place : place + rng.choice([1, 4, 8])] = rng.choice(
            [b"\xff\xff\xff\xff", b"\x00", rng.randbytes(4), struct.pack("<Q", 2**62)]
        )
    return bytes(data[: rng.randrange(1, len(data) + 1)]) if rng.random() < 0.3 else bytes(data)


def run_folder(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    run = Path(shutil.copytree(bases.run, folder / "run"))
    victim = rng.choice(sorted(path for path in run.rglob("*") if path.is_file()))
    how = rng.randrange(6)
    if how == 0:
        victim.unlink()
        rng.choice([lambda: victim.symlink_to(folder.parent / "outside" / "secret.json"), lambda: os.mkfifo(victim)])()
    elif how == 1:
        (run / "report").symlink_to(folder.parent / "outside", target_is_directory=True)
    elif victim.suffix == ".json" and how < 5:
        sealed(victim, mutate(rng, read_json(victim)))
    else:
        victim.write_bytes(rng.choice([blob(rng), damage(rng, victim.read_bytes())]))
    return ("report", "run"), ("history", "--add", "run", "--html", "page.html"), ("bundle", "run", "b.zip", "--images")


def bundle(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    target = folder / "b.zip"
    with zipfile.ZipFile(bases.bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    how, names = rng.randrange(5), sorted(content.keys() - {MANIFEST})
    if how == 0:
        target.write_bytes(damage(rng, bases.bundle.read_bytes()))
    elif how == 1:
        zipped(target, content | {MANIFEST: dumped(mutate(rng, json.loads(content[MANIFEST])))})
    else:
        name = rng.choice([name for name in names if name.endswith(".json")] if how < 4 else names)
        content[name] = dumped(mutate(rng, json.loads(content[name]))) if name.endswith(".json") else blob(rng)
        if how == 3:
            content[rng.choice(["../x.json", "/x.json", "scores/../../x.json", "report/x.html", "methods/\x1b.json"])] = b"{}"
        files = {name: {"sha256": digest(data), "bytes": len(data)} for name, data in content.items() if name != MANIFEST}
        manifest = json.loads(content[MANIFEST]) | {"files": files}
        method = rng.choice([zipfile.ZIP_DEFLATED] * 4 + [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        zipped(target, content | {MANIFEST: dumped(manifest)}, method)
    return ("verify", "b.zip"), ("verify", "b.zip", "--extract", "back"), ("report", "back")


def history(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    path = Path(shutil.copyfile(bases.history, folder / "history.sqlite"))
    how = rng.randrange(5)
    if how == 0:
        path.write_bytes(damage(rng, path.read_bytes()))
    elif how == 1:
        place = path.with_name(path.name + rng.choice(["", "-wal", "-shm", "-journal"]))
        place.unlink(missing_ok=True)
        place.symlink_to(folder.parent / "outside" / "secret.json")
    else:
        with sqlite3.connect(path) as database:
            kept = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {name}")
            if how == 2:
                database.execute(
                    rng.choice(["DROP TABLE tags", "CREATE VIEW v AS SELECT zeroblob(1000000000)", "CREATE TABLE t (x)"])
                )
            identity, text = database.execute("SELECT run_id, header FROM records").fetchone()
            header = mutate(rng, {key: value for key, value in json.loads(text).items() if key != "sha256"})
            text = json.dumps(header | {"sha256": digest(json.dumps(header, sort_keys=True).encode())}, sort_keys=True)
            database.execute(
                "UPDATE records SET header = ? WHERE run_id = ?",
                (text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"), identity),
            )
            for statement in kept:
                if how != 2 or "tags" not in statement:
                    database.execute(statement)
    return ("history", "--html", "page.html"), ("export", "e.json"), ("gate", "--against", "0")


def export(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    content = bases.export.read_bytes()
    (folder / "e.json").write_bytes(dumped(mutate(rng, json.loads(content))) if rng.random() < 0.8 else damage(rng, content))
    return ("import", "e.json"), ("history",)


def preset(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    content = yaml.safe_load((ROOT / "presets" / "tiny-text.yaml").read_text())
    raw = ["a: &a [*a]", "a: !!python/object/apply:os.system [id]", "- " * 9999, "a: 1:" + "59:" * 9999, "? [x]\n: y", "{" * 200]
    try:
        text = yaml.safe_dump(mutate(rng, content)) if rng.random() < 0.8 else rng.choice(raw)
    except ValueError:
        text = rng.choice(raw)
    (folder / "p.yaml").write_bytes(text.encode("utf-8", "replace") if rng.random() < 0.9 else blob(rng))
    return (("prepare", "p.yaml"),)


def prompts(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    suffix = rng.choice(["txt", "csv", "tsv", "json", "jsonl", "parquet"])
    listed = {"annotations": [{"caption": "a cat", "id": 1}, {"caption": "a dog", "id": 2}]}
    content = {
        "csv": b'prompt,x\n"a, cat",1\n"a\ndog",2\n',
        "tsv": b"prompt\tx\na cat\t1\n",
        "json": dumped(mutate(rng, listed)),
        "jsonl": dumped(mutate(rng, listed)) + b'\n"a cat"\n',
        "parquet": b"PAR1" + rng.randbytes(40) + b"PAR1",
    }.get(suffix, b"a cat\na dog\n")
    path = folder / f"list.{suffix}"
    path.write_bytes(rng.choice([content, damage(rng, content), damage(rng, content), blob(rng)]))
    return (("prompts", path.name),)


def image(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    run = Path(shutil.copytree(bases.run, folder / "run"))
    kind = rng.choice(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO", "TGA"])
    content = encoded(kind, (rng.choice([16, 33, 200]), rng.choice([16, 33, 200])))
    for path in (run / "samples").rglob("*.png"):
        path.write_bytes(rng.choice([damage(rng, content), content, blob(rng)]))
    return (("report", "run"), ("decode", "run"))


def pipeline(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    copy = Path(shutil.copytree(bases.pipeline, folder / "pixart"))
    how = rng.randrange(4)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    if how == 0:
        index = copy / "model_index.json"
        pairs = [
            ["os", "system"],
            ["builtins", "exec"],
            ["transformers", "AutoModel"],
            ["diffusers", "DiffusionPipeline"],
            "os",
            5,
            [[]],
        ]
        index.write_bytes(
            dumped(json.loads(index.read_bytes()) | {rng.choice(["scheduler", "vae", "x", "_class_name"]): rng.choice(pairs)})
        )
    elif how == 1:
        victim = rng.choice([path for path in files if path.suffix == ".json"])
        victim.write_bytes(dumped(mutate(rng, json.loads(victim.read_bytes()))))
    else:
        victim = rng.choice([path for path in files if path.suffix in (".safetensors", ".json", ".model")] if how == 2 else files)
        victim.write_bytes(damage(rng, victim.read_bytes()) if rng.random() < 0.7 else blob(rng))
    return (("load", "pixart"),)


def reference(rng: random.Random, folder: Path, bases: Bases) -> tuple[tuple[str, ...], ...]:
    body = [
        npy("(4, 3)", "<f4", bytes(48)),
        npy("(3,)", "<f8", bytes(24)),
        npy("(3, 3)", "<f8", bytes(72)),
        blob(rng),
        npy("(100000, 100000)"),
    ]
    names = ["features", "fingerprint", "mu", "sigma", "images", "data", "extractor"]
    says = [text_array('{"extractor": "e", "data": "d"}'), text_array("[" * 5000), blob(rng)]
    members = {
        f"{name}.npy": rng.choice(says if name in ("fingerprint", "data", "extractor") else body) for name in rng.sample(names, 4)
    }
    zipped(folder / "r.npz", members, rng.choice([zipfile.ZIP_DEFLATED] * 3 + [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2]))
    if rng.random() < 0.4:
        (folder / "r.npz").write_bytes(damage(rng, (folder / "r.npz").read_bytes()))
    return (("reference", "r.npz"),)


Maker = Callable[[random.Random, Path, Bases], tuple[tuple[str, ...], ...]]
MAKERS: tuple[Maker, ...] = (run_folder, bundle, history, export, preset, prompts, image, pipeline, reference, run_folder)


def make(number: int, folder: Path, bases: Bases) -> Case:
    """The hostile file of a number, in ``folder``."""
    maker = MAKERS[number % len(MAKERS)]
    return Case(maker.__name__, maker(random.Random(f"{SEED} {number}"), folder, bases))
