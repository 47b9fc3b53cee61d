"""One experiment as every process of a run sees it: the spec, its methods and its prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.config.description import Plugin
from harness.config.spec import ExperimentSpec
from harness.contracts import Method, Trained, why_unscored
from harness.errors import UsageError
from harness.results import BASELINE, MethodRecord
from harness.sampling.encoded import prompts_kept
from harness.storage.layout import Layout
from harness.storage.samples import SampleSet, chunks


@dataclass(frozen=True)
class Experiment:
    """A spec with its methods (by label, the baseline among them) and prompts; small, and can be sent to another process.

    ``planned``: what each method is, before it has run. ``plugins``: where the methods' names come from that are not ours.
    ``prompt_bytes``: of one encoded prompt, nearly; 0 for classes.
    """

    spec: ExperimentSpec
    methods: Mapping[str, Method]
    planned: Mapping[str, MethodRecord]
    prompts: tuple[str, ...]
    prompt_record: Mapping[str, str | int] = field(default_factory=dict)
    plugins: Mapping[str, Plugin] = field(default_factory=dict)
    prompt_bytes: int = 0

    def folder(self, out: Path, number: int = 1) -> Path:
        """Where the run lies: its name and the digest of its spec. Further runs of it have numbers from 2 on."""
        return out / f"{self.spec.name}-{self.spec.digest()}{'' if number == 1 else f'-{number}'}"

    def number(self, out: Path) -> int:
        """The number of the newest run of this spec in ``out``, or 1 where there is none."""
        base = self.folder(out).name
        ends = [path.parent.name.removeprefix(f"{base}-") for path in out.glob(f"{base}-*/{Layout(out).spec.name}")]
        return max((int(end) for end in ends if end.isdecimal()), default=1)

    def windows(self) -> Iterator[range]:
        """Ranges of samples, each of as many whole batches as encoded prompts are kept: all methods make one before the next."""
        batches = max(1, prompts_kept(self.prompt_bytes) // self.spec.batch)
        return chunks(self.spec.samples, batches * self.spec.batch)

    @property
    def converged(self) -> str | None:
        """The label of the plain pipeline with ``reference_steps`` steps, where the spec names such a reference."""
        text = f"steps:{self.spec.reference_steps}"
        return next((label for label, record in self.planned.items() if record.spec == text), None)

    def samples(self, run: Path, label: str) -> SampleSet:
        """The images of one method: of all prompts, or of the first batch where they serve the block count alone."""
        prompts = self.prompts[: self.spec.batch] if why_unscored(self.methods[label]) else self.prompts
        return SampleSet(Layout(run).samples(label).path, prompts, self.spec.batch)


def method_labels(methods: Sequence[Method]) -> dict[str, Method]:
    """Methods by label; the baseline must be among them and no label may come twice."""
    labels = [method.label for method in methods]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(expected="each method once", got=f"{twice!r} twice", remedy="remove one of them")
    if BASELINE not in labels:
        raise UsageError(expected=f"{BASELINE!r} among the methods", got=", ".join(labels), remedy=f"add {BASELINE}")
    if taken := next((method for method in methods if method.label == BASELINE and isinstance(method, Trained)), None):
        raise UsageError(expected=f"a checkpoint of another name than {BASELINE}", got=str(taken), remedy="rename its folder")
    return dict(sorted(zip(labels, methods, strict=True), key=lambda item: item[0] != BASELINE))
