"""A scorer command for the tests: it measures brightness, and misbehaves as its first argument says from the second batch on.

    python fake_scorer.py FAULT FOLDER

FOLDER counts starts and batches over all processes; a FAULT that ends in "-once" passes after the first process.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from PIL import Image, ImageStat

fault, folder = sys.argv[1], Path(sys.argv[2])


def count(what):
    file = folder / what
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return number


starts = count("starts")
if fault.endswith("-once"):
    fault = fault[: -len("-once")] if starts == 1 else "none"
hello = {
    "protocol": 1,
    "name": "brightness",
    "weights": "none-1",
    "direction": "higher",
    "range": [0, 255],
    "packages": {"x": "1"},
}


def say(content):
    print(content if isinstance(content, str) else json.dumps(content), flush=True)


def bright(path):
    return ImageStat.Stat(Image.open(path).convert("L")).mean[0]


if fault == "banner":
    say("Loading model ...")
if fault == "gpu-taken":
    print("RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable", file=sys.stderr, flush=True)
    sys.exit(1)
if fault == "never-ready":
    time.sleep(60)
if fault == "another-protocol":
    hello["protocol"] = 2
if fault == "no-weights":
    del hello["weights"]
if fault == "other-after-restart" and starts > 1:
    hello["packages"] = {"x": "2"}
if fault == "features":
    hello |= {"width": 3, "range": [None, None]}
if fault == "lower":
    hello["direction"] = "lower"
if fault == "paired":
    hello |= {"paired": True, "direction": "lower"}
say(hello)
if fault == "deaf" and starts > 1:
    time.sleep(60)
for line in sys.stdin:
    asked = json.loads(line)
    rows = [bright(path) for path in asked["images"]]
    answer = {"batch": asked["batch"], "weights": "none-1", "rows": rows}
    late = count("batches") > 1  # the first batch goes well
    if fault == "features":
        answer["rows"] = [[row, row / 2, 1] for row in rows]
    elif fault == "paired":
        answer["rows"] = [abs(row - bright(other)) for row, other in zip(rows, asked["full"], strict=True)]
    elif fault == "stderr":
        print("progress 50%", file=sys.stderr)
    elif late and fault in ("too-few", "too-many"):
        answer["rows"] = rows[1:] if fault == "too-few" else [*rows, 1.0]
    elif late and fault in ("nan", "infinity", "huge", "outside", "text", "two-numbers", "nothing", "bool"):
        values = {"nan": float("nan"), "infinity": float("inf"), "huge": 10**400, "outside": 256.0, "text": "good"}
        answer["rows"][0] = {**values, "two-numbers": [1.0, 2.0], "nothing": None, "bool": True}[fault]
    elif late and fault == "other-weights":
        answer["weights"] = "none-2"
    elif fault == "packages" or (late and fault == "other-packages"):
        answer["packages"] = {"x": "2" if late and fault == "other-packages" else "1"}
    elif late and fault == "other-batch":
        answer["batch"] = 77
    elif late and fault == "no-rows":
        del answer["rows"]
    elif late and fault == "garbage":
        answer = "\x1b[32mdone\x1b[0m"
    elif late and fault == "a-list":
        answer = "[1, 2]"
    elif late and fault == "refuses" and len(rows) > 1:
        answer = {"batch": asked["batch"], "weights": "none-1", "error": "CUDA out of memory. Tried to allocate 2 GiB"}
    elif late and fault == "crash":
        raise ValueError("no such layer")
    elif late and fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif late and fault == "slow":
        time.sleep(60)
    elif late and fault == "stays-silent":
        os.close(1)
        time.sleep(60)
    say(answer)
    if fault == "deaf":
        time.sleep(60)
    if late and fault == "chatter":
        say("one more thing")
        time.sleep(0.2)
    if late and fault == "flood":
        for _ in range(64):
            say("x" * 2**20)
        count("floods")
