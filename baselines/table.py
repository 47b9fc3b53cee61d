"""Every baseline by the name that presets and ``--methods`` use."""

from __future__ import annotations

from baselines.bottleneck import Bottleneck
from baselines.budcache import BudCache
from baselines.deepcache import DeepCache
from baselines.delta_dit import DeltaDiT
from baselines.encoder_propagation import EncoderPropagation
from baselines.first_block_cache import FirstBlockCache
from baselines.fora import Fora
from baselines.guidance_reuse import GuidanceReuse
from baselines.learned.bespoke import Bespoke
from baselines.learned.deediff import DeeDiff
from baselines.learned.ecad import Ecad
from baselines.learned.routers import HarmoniCa, LearningToCache
from baselines.magcache import MagCache
from baselines.pab import PAB
from baselines.quantised import Fp8, Int8
from baselines.smoothcache import SmoothCache
from baselines.step_rehash import StepRehash
from baselines.steps import Full, Solver, Spacing, Steps
from baselines.systems import Compile, CudaGraphs
from baselines.t_stitch import TStitch
from baselines.taylorseer import TaylorSeer
from baselines.teacache import TeaCache
from baselines.tgate import TGate
from baselines.third_party.cache_dit import CacheDit
from baselines.third_party.diffusers_cache import DiffusersCache
from baselines.third_party.distilled import Distilled
from harness.config.methods import MethodTable

BASELINES: MethodTable = {
    "full": Full,
    "steps": Steps,
    "solver": Solver,
    "spacing": Spacing,
    "bespoke": Bespoke,
    "deepcache": DeepCache,
    "delta-dit": DeltaDiT,
    "encoder": EncoderPropagation,
    "step-rehash": StepRehash,
    "fora": Fora,
    "taylorseer": TaylorSeer,
    "smoothcache": SmoothCache,
    "pab": PAB,
    "t-gate": TGate,
    "guidance-reuse": GuidanceReuse,
    "first-block": FirstBlockCache,
    "teacache": TeaCache,
    "magcache": MagCache,
    "budcache": BudCache,
    "learning-to-cache": LearningToCache,
    "harmonica": HarmoniCa,
    "deediff": DeeDiff,
    "ecad": Ecad,
    "t-stitch": TStitch,
    "bottleneck": Bottleneck,
    "int8": Int8,
    "fp8": Fp8,
    "compile": Compile,
    "cuda-graphs": CudaGraphs,
    "diffusers-cache": DiffusersCache,
    "cache-dit": CacheDit,
    "distilled": Distilled,
}
