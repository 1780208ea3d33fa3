"""Pages by hand: small ones, and ones whose every foreign word would like to be more than a word."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from distill.compression.candidate import CompressionCandidate, Int8File
from distill.evaluation.drop import DropVerdict
from distill.evaluation.statistics import Interval
from distill.report.page.content import (
    Chain,
    ClassErrors,
    Curve,
    Hard,
    Lost,
    Member,
    Opinion,
    Page,
    Pair,
    Provenance,
    Sentence,
)
from distill.results.calibration import Reliability, ReliabilityBin, RiskCoverage, Temperature
from distill.results.corruptions import CORRUPTIONS, SEVERITIES, CorruptedTop1, CorruptionResult
from distill.results.rows import Comparison, Row


def row(name: str, role: str, top1: float, **more: object) -> Row:
    values = {"test_top1_low": top1 - 0.01, "test_top1_high": top1 + 0.01, "test_images": 1000, "test_set": "abc"}
    return Row(name, role, f"runs/{name}/001", "digits", "kd", 1, test_top1=top1, **(values | more))


def curve(seed: int, epochs: int) -> Curve:
    return Curve(seed, tuple((epoch, 1 - 1 / (epoch + seed + 1)) for epoch in range(1, epochs + 1)))


def calibration(ece: float = 0.02) -> Reliability:
    bins = tuple(
        ReliabilityBin(i / 15, (i + 1) / 15, i, (i + 0.5) / 15 if i else None, (i + 0.2) / 15 if i else None)
        for i in range(15)
    )
    return Reliability(bins, ece, 0.1, 0.9, 0.88, 0.4, sum(range(15)))


def corrupted(key: str = "k") -> CorruptionResult:
    cells = tuple(
        CorruptedTop1(name, level, 0.9 - level / 10, 0.1, 0.9) for name in CORRUPTIONS for level in SEVERITIES
    )
    return CorruptionResult(100, 0.9, 0.6, 0.55, 0.65, cells, key)


def png(shade: int = 128, side: int = 8) -> bytes:
    """A grey square, without an imaging library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    lines = (b"\0" + bytes([shade]) * side) * side
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def page(word: str = "{}", *, epochs: int = 5, seeds: int = 2, students: int = 1) -> Page:
    """A page with every part; ``word`` is put around every name."""

    def named(text: str) -> str:
        return word.replace("{}", text)

    rows = [row(named("big"), "teacher", 0.95, params=900_000, size_mb=3.6, latency_b1_ms=4.0, on_front=True)]
    rows += [
        row(named(f"small{place}"), "student", 0.94 - place / 1000, params=90_000 + place, size_mb=0.36,
            latency_b1_ms=1.0 + place, on_front=place == 0, teacher=rows[0].run)
        for place in range(students)
    ]  # fmt: skip
    members = tuple(
        Member(
            row=each,
            label=each.name,
            look=place,
            shape="square" if each.role == "teacher" else "circle",
            curves={key: tuple(curve(seed, epochs) for seed in range(seeds)) for key in
                    ("val_top1", "val_loss", "train_loss", f"train_{named('ce')}", f"train_{named('kd')}")},
            parts=(f"train_{named('ce')}", f"train_{named('kd')}"),
            reliability=calibration(),
            temperature=Temperature(1.5, False, 100, 0.5, 0.4, 0.05, 0.01),
            calibrated=calibration(0.01),
            risk_coverage=RiskCoverage((0.5, 1.0), (0.01, 0.05), 0.02, 0.01, 0.5, 1.0, 100),
            corruptions=corrupted(),
            recipe=f"name: {named('recipe')}\n" + "# more\n" * 60,
            settings={named("key"): named(str(place)), "same": "1"},
            provenance=tuple(
                Provenance(named(f"run {seed}"), seed=seed, started=named("then"), seconds=12.0, device=named("cpu"),
                           weights="0" * 64, versions={named("torch"): named("2")}, command=named("distill"),
                           commit=named("c"), again=named(f"distill again {place} {seed}"))
                for seed in range(seeds)
            ),
        )
        for place, each in enumerate(rows)
    )  # fmt: skip
    candidate = CompressionCandidate(1.0, named("r"), 90_000, 0.01, DropVerdict(
        drop=Interval(0.001, -0.001, 0.003), reference=0.94, allowed=0.003, n=1000, needed=None), None, named("why"),
        3.0)  # fmt: skip
    shipped = replace(candidate, ratio=0.5, shipped=Int8File(named("f.onnx"), "0" * 64, named("s"), 0.1, 0.2))
    pair = Pair(
        teacher=members[0].label,
        student=members[1].label,
        classes=(named("cat"), named("dog")),
        difference=((-2.0, 2.0), (0.5, -0.5)),
        errors=(ClassErrors(named("cat"), 500, 0.02, 0.024), ClassErrors(named("dog"), 500, 0.08, 0.081)),
        lost=(Lost(named("cat"), named("dog"), 3.0, 5.0),),
        found=(Lost(named("dog"), named("cat"), 5.0, 4.5),),
    )
    hard = Hard(png(), 8, 7, named("cat"), 0.01, Opinion(named("dog"), 0.9, False), Opinion(named("cat"), 0.8, True),
                named("f.png"))  # fmt: skip
    comparison = Comparison(tuple(rows), named("machine"), 1, {named("python"): named("3")}, (named("note"),), 50)
    return Page(
        title=named("title"),
        made=named("today"),
        version=named("1"),
        command=named("distill report"),
        comparison=comparison,
        members=members,
        lead=named("lead"),
        sentences=(Sentence(named("said"), named("how sure")),),
        headline=members[1].label,
        pair=pair,
        hardest=(hard,),
        steps=(members[0].label, members[1].label),
        chains=(Chain(named("chain"), named("run"), named("size"), 0.003, 0.5, (candidate, shipped)),),
        differences=((named("key"), tuple(named(str(place)) for place in range(len(rows)))),),
        missing={"latency": named("not timed")},
    )


@pytest.fixture
def make_page() -> Callable[..., Page]:
    """``make_page(word, epochs=, seeds=, students=)``: a page with every part; each name is ``word`` around it."""
    return page


@pytest.fixture
def make_row() -> Callable[..., Row]:
    return row
