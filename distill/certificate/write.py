"""``distill certify``: a file measured, its promises judged, its steps read, and all of that written beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.certificate.images import Images, are_disjoint
from distill.certificate.lineage import check_same_task, is_all_known, original, source_of, steps_of, teacher_of
from distill.certificate.measure import Measured, accuracy_of, drop_against, here, measured_quantities, time_file
from distill.certificate.promises import drop_holds, promises_of, verdict_of_drop
from distill.certificate.sealed import place_for, write_certificate
from distill.devices import library_versions, resolve_device
from distill.errors import GateMissedError, UsageError
from distill.evaluation.assess import DatasetCache
from distill.models.onnx_open import OnnxClassifier, open_onnx
from distill.pipeline.context import Options
from distill.pipeline.quantize import check_drop
from distill.references import run_of
from distill.report.verdict import drop_sentence
from distill.results.certificate import Certificate, Drop, FileFacts, Promise
from distill.runs import RunFolder, open_run, utc_now
from distill.team.watch import watching

__all__ = ["Certified", "certify"]


@dataclass(frozen=True)
class Certified:
    """A certificate that was written.

    Attributes:
        path: Where it is; ``file`` is what it is of.
    """

    path: Path
    file: Path
    certificate: Certificate

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill certify --json`` prints."""
        return {"path": str(self.path), "file": str(self.file), "certificate": self.certificate.to_json()}


@watching()
def certify(
    reference: Any,
    *,
    run: Any = None,
    against: Any = None,
    max_drop: float | None = None,
    prove: bool = False,
    budgets: Mapping[str, float] | None = None,
    seconds: float = 8.0,
    out: str | Path | None = None,
    overwrite: bool = False,
    require: bool = True,
    commands: Sequence[str] = (),
    chosen: Sequence[str] = (),
    made: Mapping[str, Any] | None = None,
    options: Options | None = None,
) -> Certified:
    """Measure an exported file, and write the results and the provenance of the file beside it.

    Its latency is timed on this machine, on ``options.timing_threads`` threads (by default 1). Its accuracy is
    measured on the test images and on the validation images. The latter decide about ``max_drop``; the test images
    must not refute it.

    Args:
        reference: The file, or the result of the call that wrote it.
        run: The run it was made from; None looks for it below ``options.runs_dir``.
        against: The run that ``max_drop`` is relative to; None: the one it was made from, before cuts and rounding.
        max_drop: The most top-1 that may be lost, a fraction; None promises nothing.
        prove: Judge by the upper end of the interval instead of the estimate.
        budgets: Upper limits on what is measured, by quantity: params, gmacs, size_mb, latency_b1_ms, latency_b32_ms.
        seconds: Time spent on timing.
        out: The certificate; None: ``<file>.certificate.json`` beside the file.
        overwrite: Replace another kind of file there; a certificate is always replaced.
        require: Write no certificate if a promise does not hold. False: write the results anyway.
        commands: Commands to record before those that make the file again and verify it.
        chosen: What chose its run among others, on validation images, such as the folder of a search.
        made: Further details of how the file was made, recorded unchanged.

    Raises:
        UsageError: ``prove`` without ``max_drop``, or a number out of range.
        GateMissedError: A promise does not hold: no certificate was written.
        RunError: The images are no longer those that the run was trained on.
        DistillError: The file, the run or the images are missing or cannot be used.

    Example:
        >>> done = certify("exports/quickstart_student.onnx", budgets={"size_mb": 1.0}, seconds=0.5)
        >>> done.path.name
        'quickstart_student.certificate.json'
    """
    options = options or Options()
    _check(max_drop, prove, seconds)
    threads = options.timing_threads or 1
    file = open_onnx(run_of(reference), threads=threads)
    path = place_for(file.path, out, overwrite=overwrite)
    source = source_of(file, run, options.runs_dir)
    references = _references(source, against, options.runs_dir)
    for each in references.values():
        check_same_task(file, each)
    images = Images(source, options.tell)
    steps = steps_of(source, file, images, options.runs_dir, chosen=chosen)
    latency = time_file(file, threads=threads, seconds=seconds / 3, tell=options.tell)
    promises = promises_of(budgets or {}, measured_quantities(file, latency))
    measured, drops, notes = _answers(file, references, max_drop, prove, options)
    if require:
        _require(file, promises, drops)
    overlaps = images.overlaps()
    certificate = Certificate(
        file=_facts(file),
        machine=here(),
        threads=threads,
        versions=library_versions("onnxruntime", "onnx"),
        latency=latency,
        accuracy=tuple(each.accuracy for each in measured),
        drops=drops,
        promises=promises,
        parts=images.parts(),
        overlaps=overlaps,
        disjoint=are_disjoint(overlaps, all_known=is_all_known(steps)),
        steps=steps,
        commands=(*commands, *_commands(file, options)),
        notes=tuple(notes),
        made=dict(made or {}),
        written=utc_now(),
    )
    write_certificate(certificate, path)
    return Certified(path, file.path, certificate)


def _check(max_drop: float | None, prove: bool, seconds: float) -> None:
    if max_drop is not None:
        check_drop(max_drop)
    elif prove:
        raise UsageError("--prove without --max-drop promises nothing", hint="--max-drop 0.003 --prove")
    if not 0 < seconds < 3600:
        raise UsageError(f"{seconds:g} seconds of timing", hint="some seconds do")


_Reference = Literal["run", "teacher", "named"]


def _references(source: RunFolder, against: Any, runs_dir: Path) -> dict[_Reference, RunFolder]:
    """What the file is held against: the run before cuts and rounding, its teacher, and the one that was named."""
    begun = original(source, runs_dir) if against is None else source
    found: dict[_Reference, RunFolder] = {"run": begun}
    if (teacher := teacher_of(begun, runs_dir)) is not None:
        found["teacher"] = teacher
    if against is not None:
        named = open_run(run_of(against), runs_dir=runs_dir)
        found = {kind: run for kind, run in found.items() if run.path.resolve() != named.path.resolve()}
        found["named"] = named
    return found


def _answers(
    file: OnnxClassifier,
    references: Mapping[_Reference, RunFolder],
    max_drop: float | None,
    prove: bool,
    options: Options,
) -> tuple[list[Measured], tuple[Drop, ...], list[str]]:
    """The file's answers, what they lose against each reference, and what could not be compared."""
    data, device = DatasetCache(), resolve_device(options.device)
    promised = "named" if "named" in references else "run"
    splits: tuple[Literal["val", "test"], ...] = ("val", "test")
    measured = [each for split in splits if (each := accuracy_of(file, split, data, options.tell)) is not None]
    drops, notes = list[Drop](), list[str]()
    for each in measured:
        for kind, run in references.items():
            allowed = max_drop if kind == promised else None
            drop = drop_against(each, run, kind, allowed=allowed, prove=prove, device=device, data=data)
            if isinstance(drop, Drop):
                drops.append(drop)
            elif allowed is not None and each is measured[0]:
                raise UsageError(drop, hint="--against a run that was trained on the same data")
            else:
                notes.append(drop)
    return measured, tuple(drops), notes


def _facts(file: OnnxClassifier) -> FileFacts:
    about = file.about
    return FileFacts(
        name=file.path.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        runtime=file.runtime,
        scheme=about.scheme,
        params=about.params,
        gmacs=about.gmacs,
        classes=len(about.classes),
        image_size=about.image_size,
        weights_sha256=about.weights_sha256,
    )


def _commands(file: OnnxClassifier, options: Options) -> tuple[str, ...]:
    """What was typed for this, and what measures the file again."""
    typed = (shlex.join(options.command),) if options.command else ()
    return (*typed, f"distill verify {shlex.quote(str(file.path))}")


def _require(file: OnnxClassifier, promises: Sequence[Promise], drops: Sequence[Drop]) -> None:
    missed = [
        f"{each.quantity} is {each.measured:.4g}, the budget {each.limit:g}"
        for each in promises
        if each.measured > each.limit
    ]
    judged = [each for each in drops if each.allowed is not None]
    for each in judged:
        verdict = verdict_of_drop(each)
        if not drop_holds(each, verdict, decides=each is judged[0]):
            missed.append(f"on {each.split} images against {each.run} it {drop_sentence(verdict)}")
    if missed:
        raise GateMissedError(
            f"{file.place}: no certificate was written: {'; '.join(missed)}",
            hint="promise less, or make another file: distill quantize, prune and compress look for one",
        )
