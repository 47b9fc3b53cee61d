"""The other side of docs/scorer-commands.md: turns a function into a scorer command.

This file needs the standard library alone (Python 3.8 and newer), so that it can be copied into any environment:

    from ilf_bench_scorer import serve
    serve(lambda images, prompts: [my_score(i, p) for i, p in zip(images, prompts)], name="mine", weights="sha256:...")

Whatever a library prints to the standard output goes to the standard error instead, so that only answers reach ilf-bench: from
:func:`serve` on, and earlier where :func:`redirect` is called before libraries that print while they are imported or load.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import traceback
from importlib import metadata
from typing import Any, Callable, Sequence, TextIO  # noqa: UP035  # Python 3.8

PROTOCOL = 1
_answers: list[TextIO] = []  # the standard output that ilf-bench reads, once it is kept for answers


def redirect() -> TextIO:
    """Keep the standard output for answers: print() and C libraries write to the standard error from here on."""
    if not _answers:
        sys.stdout.flush()
        _answers.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)
    return _answers[0]


def serve(
    score: Callable[..., Any], name: str, weights: str, direction: str = "higher", packages: Sequence[str] = (), **facts: Any
) -> None:
    """Answer every batch on the standard input with ``score(images, prompts)`` until it is closed.

    ``score`` takes paths of PNG files and as many prompts (and, where ``facts`` has ``paired=True``, a third list, the paths of
    the full run's images), and returns a number or a list of numbers for each image. ``weights`` identifies them, for example
    by :func:`digest` or :func:`digest_of`; the versions of ``packages`` are looked up. ``facts``: title, unit, range, width,
    preprocessing, paired.
    """
    answers = redirect()
    hello: dict[str, Any] = {"protocol": PROTOCOL, "name": name, "weights": weights, "direction": direction}
    hello["packages"] = _versions(packages)
    hello.update(facts)
    _say(answers, hello)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            given = [asked["images"], asked["prompts"]] + ([asked["full"]] if facts.get("paired") else [])
            rows = [list(map(float, row)) if hasattr(row, "__len__") else [float(row)] for row in score(*given)]
            unmeasured = [i for i, row in enumerate(rows) if not all(map(math.isfinite, row))]
            if unmeasured:
                raise ValueError(f"no finite value for image {unmeasured[0]} of the batch")
            _say(answers, {"batch": asked["batch"], "weights": weights, "packages": _versions(packages), "rows": rows})
        except Exception as error:  # one batch fails; the next may not
            traceback.print_exc()
            _say(answers, {"batch": asked["batch"], "weights": weights, "error": f"{type(error).__name__}: {error}"})


def digest(*files: str) -> str:
    """SHA-256 over the contents of weight files, in the order given."""
    total = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            for part in iter(lambda: opened.read(1 << 20), b""):
                total.update(part)
    return "sha256:" + total.hexdigest()


def digest_of(*models: Any) -> str:
    """SHA-256 over the names and values of the weights of modules of torch, wherever they were loaded from."""
    import torch

    total = hashlib.sha256()
    for model in models:
        for name, tensor in sorted(model.state_dict().items()):
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return "sha256:" + total.hexdigest()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """What is installed now; a package may be replaced while it is in use."""
    return {package: metadata.version(package) for package in packages}


def _say(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()
