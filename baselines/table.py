"""Every baseline by the name that presets and ``--methods`` use."""

from __future__ import annotations

from baselines.deepcache import DeepCache
from baselines.delta_dit import DeltaDiT
from baselines.encoder_propagation import EncoderPropagation
from baselines.first_block_cache import FirstBlockCache
from baselines.fora import Fora
from baselines.magcache import MagCache
from baselines.pab import PAB
from baselines.smoothcache import SmoothCache
from baselines.step_rehash import StepRehash
from baselines.steps import Full, Solver, Steps
from baselines.taylorseer import TaylorSeer
from baselines.teacache import TeaCache
from baselines.tgate import TGate
from harness.methods import MethodTable

BASELINES: MethodTable = {
    "full": Full,
    "steps": Steps,
    "solver": Solver,
    "deepcache": DeepCache,
    "delta-dit": DeltaDiT,
    "encoder": EncoderPropagation,
    "step-rehash": StepRehash,
    "fora": Fora,
    "taylorseer": TaylorSeer,
    "smoothcache": SmoothCache,
    "pab": PAB,
    "t-gate": TGate,
    "first-block": FirstBlockCache,
    "teacache": TeaCache,
    "magcache": MagCache,
}
