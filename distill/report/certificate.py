"""Certificates, and what measuring again found, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, key_values, stacked
from distill.text import count, counted, percent, plain

if TYPE_CHECKING:
    from distill.results.certificate import Certificate, Drop, Timing
    from distill.results.checks import Verified

__all__ = ["certificate_table", "kit_table", "verified_table"]

_STYLES = {"holds": "green", "fails": "bold red", "not judged": "", "not checked": "yellow"}
_SPLITS = {"test": "test", "val": "validation"}


def certificate_table(path: str, certificate: Certificate, width: int) -> RenderableType:
    """What was measured and promised, and which images each step read."""
    file, machine = certificate.file, certificate.machine
    affinity = "" if machine.affinity is None else f", on cores {machine.affinity}"
    threads = counted(certificate.threads, "thread")
    pairs = [
        ("certificate", path),
        ("file", f"{file.name}: {file.size_bytes / 1e6:.2f} MB, {count(file.params)} parameters, {file.sha256[:12]}"),
        ("computed by", f"{file.runtime} {certificate.versions.get('onnxruntime', '')}{_of(file.scheme)}"),
        ("machine", f"{machine.cpu}, {threads}{affinity}"),
        ("instructions", ", ".join(machine.instruction_set) or "not known"),
        *((f"batch {size}", _timing(each)) for size, each in certificate.latency.items()),
        *(
            (
                f"{_SPLITS[each.split]} top-1",
                f"{_range(each.top1, each.low, each.high)} % of {count(each.images)} images",
            )
            for each in certificate.accuracy
        ),
        *(("lost", _drop(each)) for each in certificate.drops),
        *(
            ("promised", f"{each.quantity} <= {each.limit:g}: {each.measured:.4g}{_kept(each.measured <= each.limit)}")
            for each in certificate.promises
        ),
        ("disjoint", _disjoint(certificate)),
    ]
    notes = [Text(f"note: {plain(note)}", style="yellow") for note in certificate.notes]
    return Group(key_values(pairs), Text(), _steps(certificate, width), *notes)


def _of(scheme: str) -> str:
    return f" ({scheme})" if scheme else ""


def _kept(holds: bool) -> str:
    return "" if holds else ", missed"


def _timing(timing: Timing) -> str:
    p99 = "" if timing.p99_ms is None else f", p99 {timing.p99_ms:.3f}"
    noise = f"n = {count(timing.n)}, noise {percent(timing.noise, 1)}%"
    return f"median {timing.median_ms:.3f} ms, p90 {timing.p90_ms:.3f}{p99} ({noise})"


def _range(value: float, low: float, high: float) -> str:
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def _drop(drop: Drop) -> str:
    """``0.20 [-0.10, 0.50] points against runs/x/001 (its teacher) on 5,000 validation images: ...``."""
    whose = {"run": "", "teacher": " (its teacher)", "named": ""}[drop.reference]
    text = f"{_range(drop.estimate, drop.low, drop.high)} points against {drop.run}{whose}"
    text += f" on {count(drop.images)} {_SPLITS[drop.split]} images"
    if drop.allowed is None:
        return text
    more = f": about {count(drop.needed)} images would tell" if drop.needed else ""
    return f"{text}: at most {percent(drop.allowed)} is {drop.verdict}{more}"


def _disjoint(certificate: Certificate) -> str:
    shared = [each for each in certificate.overlaps if each.images and not each.within]
    if certificate.disjoint is None:
        return "not shown: of some steps it is not known what they read"
    if not shared:
        return "no image that taught or set ranges judged; no image that did any of it is a test image"
    return "; ".join(f"{count(each.images)} of {each.one} are in {each.other}" for each in shared)


def _steps(certificate: Certificate, width: int) -> RenderableType:
    steps = certificate.steps
    columns = [
        Column("step", [each.what for each in steps], words=True, style="bold"),
        Column("of", [each.subject for each in steps], words=True),
        Column("read", [_listed(each.reads, "{1} ({0})") for each in steps], words=True),
        Column("seeds", [_listed(each.seeds, "{0} {1}") for each in steps], words=True),
    ]
    parts = certificate.parts
    sizes = [
        Column("images", [each.name for each in parts], words=True, style="bold"),
        Column("how many", [count(each.images) for each in parts]),
        Column("sha256", [each.sha256[:12] for each in parts], words=True),
    ]
    return Group(stacked(columns, width), Text(), stacked(sizes, width))


def _listed(pairs: Mapping[str, object], form: str) -> str:
    return ", ".join(form.format(name, value) for name, value in pairs.items())


def verified_table(found: Verified, width: int) -> RenderableType:
    """What was certified, what is here, and what of it holds."""
    lines = found.lines
    columns = [
        Column("", [each.what for each in lines], words=True, style="bold"),
        Column("certified", [each.certified for each in lines], words=True),
        Column("here", [each.here for each in lines], words=True),
        Column("", [each.state for each in lines], words=True),
    ]
    table = stacked(columns, width, row_styles=[_STYLES[each.state] for each in lines])
    machines = [("here", found.machine), ("certified on", found.certified_machine)]
    reasons = [Text(f"{plain(each.what)}: {plain(each.why)}", style="dim") for each in lines if each.why]
    notes = [Text(f"note: {plain(note)}", style="yellow") for note in found.notes]
    return Group(table, Text(), key_values(machines), Text(), *reasons, *notes)


def kit_table(folder: str, images: int, size_mb: float) -> RenderableType:
    """What was packed."""
    return key_values([("kit", folder), ("images", f"{count(images)} of the test set"), ("size", f"{size_mb:.2f} MB")])
