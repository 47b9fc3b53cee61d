"""Every baseline by the name that presets and ``--methods`` use."""

from __future__ import annotations

from baselines.deediff import DeeDiff
from baselines.deepcache import DeepCache
from baselines.ecad import Ecad
from baselines.quantised import Fp8, Int8
from baselines.routers import HarmoniCa, LearningToCache
from baselines.steps import Full, Solver, Steps
from baselines.systems import Compile, CudaGraphs
from baselines.t_stitch import TStitch
from harness.methods import MethodTable

BASELINES: MethodTable = {
    "full": Full,
    "steps": Steps,
    "solver": Solver,
    "deepcache": DeepCache,
    "t-stitch": TStitch,
    "learning-to-cache": LearningToCache,
    "harmonica": HarmoniCa,
    "deediff": DeeDiff,
    "ecad": Ecad,
    "int8": Int8,
    "fp8": Fp8,
    "compile": Compile,
    "cuda-graphs": CudaGraphs,
}
