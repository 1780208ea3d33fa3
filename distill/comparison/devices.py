"""Rows that another machine measured: what a kit's script wrote there, told apart from what was measured here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from distill.errors import RunError, UsageError
from distill.evaluation.statistics import share_interval
from distill.files import json_sha256, read_json
from distill.models.onnx_open import OnnxClassifier
from distill.results.device import DeviceReport
from distill.results.rows import Row
from distill.text import count, counted

__all__ = ["check_files", "device_rows", "placed", "read_reports"]

_HINT = "run the kit there again: python measure.py; distill kit FILE.onnx OUT makes one"
_DIGITS = 12


def read_reports(paths: Sequence[str | Path]) -> list[tuple[Path, DeviceReport]]:
    """Read what kits wrote.

    Raises:
        UsageError: There is no such file.
        RunError: One is damaged, edited, or is something else.
    """
    return [(Path(path), _read(Path(path))) for path in paths]


def _read(path: Path) -> DeviceReport:
    if not path.exists():
        raise UsageError(f"--measured {path}: no such file", hint=_HINT)
    tree = read_json(path, hint=_HINT)
    if "device" not in tree or "kit" not in tree:
        raise RunError(f"{path} is not what a kit wrote", hint=_HINT)
    if tree.pop("seal", None) != json_sha256(tree):
        raise RunError(f"{path} was edited after it was written: its content does not give its seal", hint=_HINT)
    try:
        report = DeviceReport.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{path}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}", hint=_HINT) from error
    if max(report.accuracy.right, report.accuracy.same_answers) > report.accuracy.images or "1" not in report.latency:
        raise RunError(f"{path}: damaged: more right answers than images, or no latency", hint=_HINT)
    return report


def check_files(reports: Sequence[tuple[Path, DeviceReport]], files: Sequence[OnnxClassifier]) -> None:
    """Refuse a report of an earlier file beside the file that has its name now: one would pass for the other.

    Raises:
        UsageError: There is one, or one that states other costs than its file has.
    """
    for path, report in reports:
        named = [file for file in files if file.path.name == report.kit.file]
        if named and all(file.sha256 != report.kit.sha256 for file in named):
            was, now = (sha256[:_DIGITS] for sha256 in (report.kit.sha256, named[0].sha256))
            raise UsageError(
                f"{path} was measured of another {report.kit.file} (sha256 {was}; {named[0].path} has {now})",
                hint=f"pack this one and measure it there: distill kit {named[0].path} OUT",
            )
        for file in named:
            costs = (file.about.params, file.about.gmacs, file.size_bytes / 1e6)
            if file.sha256 == report.kit.sha256 and costs != (report.kit.params, report.kit.gmacs, report.kit.size_mb):
                raise UsageError(
                    f"{path} states other parameters, GMACs or size than {file.path} has",
                    hint=f"its kit was edited; make it again: distill kit {file.path} OUT",
                )


def device_rows(reports: Sequence[tuple[Path, DeviceReport]], rows: Sequence[Row]) -> dict[Row, DeviceReport]:
    """A row of each report.

    Args:
        rows: Those that were measured here.

    Raises:
        UsageError: Two would be called alike.
    """
    made = {_row(path, report): report for path, report in reports}
    names = [row.name for row in [*rows, *made]]
    if alike := next((row.name for row in made if names.count(row.name) > 1), None):
        raise UsageError(f"two rows would be called {alike}", hint="name the machine there: measure.py --name board")
    return made


def placed(
    elsewhere: Mapping[Row, DeviceReport], rows: Sequence[Row], files: Mapping[str, str], notes: list[str]
) -> list[Row]:
    """All rows, each of a report below the row of its file, or at the end.

    They stand on no front, beside no teacher and against no baseline: nothing of them was measured here, and their
    images are some of the test images.

    Args:
        elsewhere: As :func:`device_rows` gives them.
        files: By the ``run`` of a file's row its sha256.
    """
    ordered = list(rows)
    for row, report in elsewhere.items():
        of_file = {run for run, sha256 in files.items() if sha256 == report.kit.sha256}
        of_file |= {other.run for other, its in elsewhere.items() if its.kit.sha256 == report.kit.sha256}
        places = [at for at, each in enumerate(ordered) if each.run in of_file]
        ordered.insert(places[-1] + 1 if places else len(ordered), row)
        notes.append(_note(row, report))
    return ordered


def _row(path: Path, report: DeviceReport) -> Row:
    kit, found = report.kit, report.accuracy
    interval = share_interval(found.right, found.images)
    one, many = report.latency["1"], report.latency.get("32")
    return Row(
        name=f"{Path(kit.file).stem}-{report.name}",
        role=kit.role,
        run=str(path),
        dataset=kit.dataset,
        objective="",
        seeds=1,
        test_top1=interval.estimate,
        test_top1_low=interval.low,
        test_top1_high=interval.high,
        test_images=found.images,
        test_set=kit.images_sha256[:_DIGITS],
        params=kit.params,
        gmacs=kit.gmacs,
        size_mb=kit.size_mb,
        latency_b1_ms=one.median_ms,
        latency_b1_p90_ms=one.p90_ms,
        latency_b1_calls=one.n,
        latency_b32_ms=None if many is None else many.median_ms,
        images_per_s=None if many is None else 32_000.0 / many.median_ms,
        throughput_batch=None if many is None else 32,
        runtime=kit.runtime,
        measured_on=f"{report.machine.cpu}, {counted(report.threads, 'thread')}",
    )


def _note(row: Row, report: DeviceReport) -> str:
    kit, found = report.kit, report.accuracy
    runtime = report.versions.get("onnxruntime", "")
    return (
        f"{row.name} was not measured here, nor in turn with other rows, but on {row.measured_on}, onnxruntime "
        f"{runtime}, at {report.written}, by a kit of {kit.sha256[:_DIGITS]}: {count(found.images)} of "
        f"{count(kit.test_images)} test images, {count(found.same_answers)} answered as where the kit was made"
    )
