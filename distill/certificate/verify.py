"""``distill verify``: a certified file measured again, here, and each thing that was certified held against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.certificate.measure import accuracy_of, here, measured_quantities, right_of, time_file
from distill.certificate.promises import drop_holds, judged_again
from distill.certificate.sealed import certificate_of, read_certificate
from distill.devices import library_versions
from distill.errors import DistillError, GateMissedError, RunError, UsageError
from distill.evaluation.assess import DatasetCache
from distill.evaluation.statistics import compare_images, share_interval
from distill.files import sha256_file
from distill.models.onnx_open import OnnxClassifier, open_onnx
from distill.pipeline.context import Options
from distill.references import run_of
from distill.report.verdict import drop_sentence
from distill.results.certificate import Accuracy, Certificate, Machine, Timing
from distill.results.checks import GateCheck, State, Verified
from distill.team.watch import watching
from distill.text import counted, percent

__all__ = ["verify_file"]


@watching()
def verify_file(
    reference: Any,
    *,
    certificate: str | Path | None = None,
    latency: bool = True,
    slack: float = 0.1,
    seconds: float = 8.0,
    options: Options | None = None,
) -> Verified:
    """Measure a certified file again and report what holds.

    What cannot change (the file, its size, its predictions on the same images) must be as it was. A loss is judged anew
    with the reference's predictions, which the certificate holds. Budgets are checked on this machine, whichever it is.
    Other latencies are checked against the certificate on the machine it was made on, and shown beside it on another.

    Args:
        certificate: None: ``<file>.certificate.json`` or ``certificate.json`` beside the file.
        latency: Also time the file.
        slack: How much slower than certified still passes, as a share, beyond the noise of both measurements and beyond
            the slowdown of the machine, as shown by a fixed graph timed in turn with the file then and now.

    Raises:
        UsageError: There is no certificate.
        GateMissedError: The certificate was edited, or belongs to another file: it says nothing about this one.
        RunError: The certificate or the file is damaged.

    Example:
        >>> verify_file("exports/quickstart_student.onnx", latency=False).fails
        ()
    """
    options = options or Options()
    if not 0 <= slack <= 10:
        raise UsageError(f"--slack {slack:g} is a share of the time", hint="a tenth: 0.1")
    path = Path(run_of(reference))
    if not path.is_file():
        raise UsageError(f"{path}: no such file", hint="distill export RUN makes one, distill certify FILE proves it")
    place = certificate_of(path) if certificate is None else Path(certificate)
    certified = read_certificate(place)
    _require_file(path, place, certified)
    threads = options.timing_threads or certified.threads
    file, now = open_onnx(path, threads=threads), here()
    runtime = library_versions("onnxruntime").get("onnxruntime", "")
    same = _is_same(certified, now, runtime, threads)
    lines = [GateCheck("file, sha256", certified.file.sha256[:12], file.sha256[:12], "holds")]
    timed: dict[str, Timing] = {}
    if latency:
        timed = time_file(file, threads=threads, seconds=seconds / 3, tell=options.tell)
    lines += _latency_lines(certified, timed, slack, same)
    lines += _budget_lines(certified, measured_quantities(file, timed))
    lines += _answer_lines(certified, file, options)
    return Verified(
        file=str(path),
        certificate=str(place),
        machine=_called(now, threads, runtime),
        certified_machine=_called(certified.machine, certified.threads, certified.versions.get("onnxruntime", "")),
        same_machine=same,
        threads=threads,
        lines=tuple(lines),
        notes=_notes(certified),
    )


def _require_file(path: Path, place: Path, certified: Certificate) -> None:
    found = sha256_file(path)
    if found != certified.file.sha256:
        raise GateMissedError(
            f"{path} is not the file that {place} is of: sha256 {found[:12]}, certified {certified.file.sha256[:12]}",
            hint=f"name its own certificate, or certify what is there: distill certify {path}",
        )


def _is_same(certified: Certificate, now: Machine, runtime: str, threads: int) -> bool:
    then = certified.machine
    return (then.cpu, then.instruction_set, certified.versions.get("onnxruntime"), certified.threads) == (
        now.cpu,
        now.instruction_set,
        runtime,
        threads,
    )


def _called(machine: Machine, threads: int, runtime: str) -> str:
    affinity = "" if machine.affinity is None else f" (cores {machine.affinity})"
    return f"{machine.cpu}, {counted(threads, 'thread')}{affinity}, onnxruntime {runtime}"


def _notes(certified: Certificate) -> tuple[str, ...]:
    if certified.disjoint is None:
        return ("of some steps to this file it is not known which images they read",)
    shared = [each for each in certified.overlaps if each.images and not each.within]
    return tuple(f"{each.one} and {each.other} share {counted(each.images, 'image')}" for each in shared)


def _latency_lines(
    certified: Certificate, timed: Mapping[str, Timing], slack: float, same: bool
) -> Iterator[GateCheck]:
    for size, was in certified.latency.items():
        what, text = f"median ms at batch {size}", f"{was.median_ms:.3f}"
        now = timed.get(size)
        if now is None:
            continue
        pace = max(1.0, now.pace_ms / was.pace_ms) if was.pace_ms and now.pace_ms else 1.0
        most = was.median_ms * pace * (1 + slack + was.noise + now.noise)
        if not same:
            why = "another machine, runtime or number of threads"
            yield GateCheck(what, text, f"{now.median_ms:.3f}", "not judged", why, is_timed=True)
        else:
            why = f"at most {most:.3f}; noise {percent(was.noise, 1)}% then, {percent(now.noise, 1)}% now"
            why += f"; a fixed graph takes {pace:.2f} times as long as then" if pace > 1 else ""
            state: State = "holds" if now.median_ms <= most else "fails"
            yield GateCheck(what, text, f"{now.median_ms:.3f}", state, why, is_timed=True)


def _budget_lines(certified: Certificate, measured: Mapping[str, float]) -> Iterator[GateCheck]:
    for each in certified.promises:
        found = measured.get(each.quantity)
        what, limit = f"budget {each.quantity}", f"<= {each.limit:g}"
        if found is None:
            yield GateCheck(what, limit, "", "not checked", "not timed: --no-latency")
        else:
            state: State = "holds" if found <= each.limit else "fails"
            yield GateCheck(what, limit, f"{found:.4g}", state, is_timed=each.quantity.startswith("latency_"))


# Answers


def _answer_lines(certified: Certificate, file: OnnxClassifier, options: Options) -> Iterator[GateCheck]:
    data = DatasetCache()
    decided = {id(each) for each in [each for each in certified.drops if each.allowed is not None][:1]}
    for was in certified.accuracy:
        drops = [each for each in certified.drops if each.split == was.split]
        what = f"{'test' if was.split == 'test' else 'validation'} top-1, %"
        text = f"{percent(was.top1)} [{percent(was.low)}, {percent(was.high)}]"
        try:
            measured = accuracy_of(file, was.split, data, options.tell, again=True)
        except DistillError as error:
            yield GateCheck(what, text, "", "not checked", error.message)
            continue
        if measured is None or measured.accuracy.content != was.content:
            yield GateCheck(what, text, "", "not checked", "the images here are not those that it was measured on")
            continue
        if {was.images, *(each.images for each in drops)} != {len(measured.right)}:
            raise RunError("the certificate is damaged: its numbers of images differ", hint="write it again")
        yield _accuracy_line(what, text, was, measured.right)
        for drop in drops:
            if drop.content == was.content:
                verdict = judged_again(drop, measured.right)
                holds = drop_holds(drop, verdict, decides=id(drop) in decided)
                allowed = "" if drop.allowed is None else f"<= {percent(drop.allowed)}"
                certified_ = f"{percent(drop.estimate)} [{percent(drop.low)}, {percent(drop.high)}]"
                yield GateCheck(
                    f"points lost on {drop.split}, against {Path(drop.run)}",
                    f"{certified_} {allowed}".strip(),
                    f"{percent(verdict.drop.estimate)} [{percent(verdict.drop.low)}, {percent(verdict.drop.high)}]",
                    ("holds" if holds else "fails") if drop.allowed is not None else "not judged",
                    drop_sentence(verdict) if drop.allowed is not None else "",
                )


def _accuracy_line(what: str, text: str, was: Accuracy, right: np.ndarray) -> GateCheck:
    """The same images right, or others that are not shown to be worse by a paired test on the same images."""
    before = right_of(was.right, was.images)
    now = share_interval(int(right.sum()), len(right))
    found = f"{percent(now.estimate)} [{percent(now.low)}, {percent(now.high)}]"
    changed = int((before != right).sum())
    if not changed:
        return GateCheck(what, text, found, "holds", f"the same {was.images:,} images, each right or wrong as it was")
    test = compare_images(right, before)
    why = f"{changed:,} of {was.images:,} images are right or wrong where they were not: {test.verdict}"
    return GateCheck(what, text, found, "fails" if test.verdict == "worse" else "holds", why)
