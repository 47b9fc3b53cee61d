"""DBCache of the package cache-dit (vipshop, https://github.com/vipshop/cache-dit), as it is (the extra ``cache-dit``)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from baselines.support.caching import at_least
from baselines.third_party.guard import Limits, failing_as_not_measured
from harness.cost.plan import Plan
from harness.errors import NotMeasured
from harness.sampling.patching import patched

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

NAME = "cache-dit"
LIMITS = Limits(decides_together=True, scheduled=False)


@dataclass(frozen=True)
class CacheDit:
    """cache-dit's DBCache: the first ``front`` and the last ``back`` blocks always run, those between where the first changed.

    Skipped blocks give what they added last, or with ``taylorseer`` (an order from 1) a forecast of it. The first ``warmup``
    steps are full, and at most ``most`` steps in a row are cached (-1: any number). The defaults are the package's.

    It decides for all images of a call at once, so it is measured one image at a time. What runs is decided by the package, so
    the predicted cost is an upper bound and the counted one stands.
    """

    threshold: float = 0.08
    front: int = 8
    back: int = 0
    warmup: int = 8
    most: int = -1
    taylorseer: int = 0

    def __post_init__(self) -> None:
        at_least("a threshold", self.threshold, 0)
        at_least("front", self.front, 1)
        at_least("back", self.back, 0)
        at_least("a warm-up", self.warmup, 1)
        at_least("most", self.most, -1)
        at_least("taylorseer", self.taylorseer, 0)

    @property
    def label(self) -> str:
        """For example ``cache-dit(0.08, front=8, back=0, warmup=8)``."""
        most = f", most={self.most}" if self.most >= 0 else ""
        order = f", taylorseer={self.taylorseer}" if self.taylorseer else ""
        return f"cache-dit({self.threshold:g}, front={self.front}, back={self.back}, warmup={self.warmup}{most}{order})"

    @property
    def takes_one_image(self) -> bool:
        """It decides for a whole batch."""
        return LIMITS.decides_together

    def plan(self, plan: Plan) -> Plan:
        """An upper bound."""
        _package()
        return LIMITS.plan(NAME, plan)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Let the package change the pipeline inside the context, and put back everything behind it.

        Raises :class:`NotMeasured` where the package does not know the pipeline, or fails on it.
        """
        package = _package()
        LIMITS.check(NAME, pipeline)
        with _as_it_was(pipeline.pipe):
            blocks = pipeline.blocks
            forwards = [vars(block).get("forward") for block in blocks]
            with failing_as_not_measured(NAME):
                package.enable_cache(pipeline.pipe, **self._configs(package, pipeline))
            _check_forwards(pipeline, blocks, forwards)
            with _watched(pipeline):
                yield

    def _configs(self, package: Any, pipeline: Pipeline) -> dict[str, Any]:
        guidance = pipeline.guidance
        cache = package.DBCacheConfig(
            Fn_compute_blocks=self.front,
            Bn_compute_blocks=self.back,
            residual_diff_threshold=self.threshold,
            max_warmup_steps=self.warmup,
            max_continuous_cached_steps=self.most,
            num_inference_steps=pipeline.steps,
            enable_separate_cfg=guidance.on and guidance.layout == "calls",
        )
        order = package.TaylorSeerCalibratorConfig(taylorseer_order=self.taylorseer) if self.taylorseer else None
        return {"cache_config": cache, "calibrator_config": order}


def _package() -> Any:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # it writes every step of its own to standard output
    try:
        return importlib.import_module("cache_dit")
    except ImportError as error:
        raise NotMeasured(
            expected="the package cache-dit", got=str(error), remedy="pip install 'ilf-bench[cache-dit]'"
        ) from error


def _check_forwards(pipeline: Pipeline, blocks: list[nn.Module], before: list[Any]) -> None:
    """Raise :class:`NotMeasured` where the package wrote blocks' forwards anew, around which nothing counts any more."""
    if any(vars(block).get("forward") is not forward for block, forward in zip(blocks, before, strict=True)):
        raise NotMeasured(
            expected=f"a model whose blocks {NAME} calls as they are",
            got=f"a {pipeline.family.title}, whose blocks it writes anew: what runs cannot be counted",
            remedy="use another cache",
        )


@contextmanager
def _watched(pipeline: Pipeline) -> Iterator[None]:
    forward = pipeline.transformer.forward

    def call(*args: Any, **kwargs: Any) -> Any:
        LIMITS.check_images(NAME, pipeline)
        with failing_as_not_measured(NAME):
            return forward(*args, **kwargs)

    with patched(pipeline.transformer, "forward", call):
        yield


@contextmanager
def _as_it_was(pipe: Any) -> Iterator[None]:
    """Every attribute of ``pipe`` and of all modules of its transformer is what it was behind the context, and so is the class.

    The package replaces ``__call__`` of the pipeline's CLASS: inside the context this pipeline has a class of its own.
    """
    kind, modules = type(pipe), list(pipe.transformer.modules())
    held = [(one, dict(vars(one))) for one in (pipe, *modules)]
    inside = [(module, dict(module._modules)) for module in modules]
    pipe.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__})
    try:
        yield
    finally:
        pipe.__class__ = kind
        for one, attributes in held:
            vars(one).clear()
            vars(one).update(attributes)
        for module, children in inside:
            _put_back(module, children)


def _put_back(module: nn.Module, children: dict[str, nn.Module | None]) -> None:
    if module._modules != children:
        module._modules.clear()
        module._modules.update(children)
