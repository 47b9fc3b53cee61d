"""The CLIP-FlanT5 models of t2v-metrics alone.

The package imports two dozen other models when it is imported itself, whose dependencies cannot be installed together, and it
asks for ffmpeg. Here its folders are packages whose own ``__init__`` is not run.
"""

import importlib
import importlib.util
import os
import sys
import types

PACKAGE = "t2v_metrics"
FOLDER = f"{PACKAGE}.models.vqascore_models"


def _without_init(name, root):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [os.path.join(root, *name.split(".")[1:])]


def module(name):
    """One of the package's modules of VQAScore, for example ``clip_t5_model``."""
    if PACKAGE not in sys.modules:
        (root,) = importlib.util.find_spec(PACKAGE).submodule_search_locations
        for package in (PACKAGE, f"{PACKAGE}.models", FOLDER):
            _without_init(package, root)
    return importlib.import_module(f"{FOLDER}.{name}")
