"""The table of ``distill doctor --recipe``."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from distill.devices.layer_error import LayerTestResult
from distill.report.kernel_rows import KernelCheck, KernelRow
from distill.report.layout import Column, stacked
from distill.text import counted, duration, plain

__all__ = ["kernels_table"]

_STYLES = {"right": "", "wrong": "bold red", "crashes": "bold red", "hangs": "bold red"}


def kernels_table(check: KernelCheck, width: int) -> RenderableType:
    """Each distinct layer: as the run would compute it, otherwise, and what to set."""
    rows = check.layers
    columns = [
        Column("layer", [_names(row) for row in rows], words=True, style="bold"),
        Column("shape", [row.layer for row in rows], words=True),
        Column("this run", [_outcome(row) for row in rows], words=True),
        Column("tried otherwise", [_others(row) for row in rows], words=True),
        Column("set", [row.set or "" for row in rows], words=True),
    ]
    styles = [_STYLES[row.outcome] for row in rows]
    return Group(stacked(columns, width, row_styles=styles), Text(), Text(plain(_what(check)), style="dim"))


def _names(row: KernelRow) -> str:
    more = len(row.names) - 1
    return row.names[0] + (f" +{more}" if more else "")


def _outcome(row: KernelRow) -> str:
    """What the run would meet, with the measure of it."""
    if row.outcome == "right":
        return "right, kept contiguous" if row.kept_contiguous else "right"
    trial = next(trial for trial in row.trials if trial.used and trial.result.outcome == row.outcome)
    return _told(trial.result)


def _told(result: LayerTestResult) -> str:
    if result.outcome == "wrong":
        off = "not finite" if result.error is None or result.error == float("inf") else f"off by {result.error:.1e}"
        return f"wrong ({result.tensor} {off})"
    return result.outcome + (f" ({result.detail})" if result.detail else "")


def _others(row: KernelRow) -> str:
    others = [trial for trial in row.trials if not trial.used]
    lines = [f"{_told(trial.result)}: {trial.setting}" for trial in others if trial.result.outcome != "right"]
    return "; ".join(lines) if lines else "right"


def _what(check: KernelCheck) -> str:
    layout = "channels-last" if check.channels_last else "contiguous"
    threads = counted(check.threads, "thread")
    heap = "glibc's heap check on" if check.heap_check else "without a heap check"
    return (
        f"{check.recipe} on {check.device}: {len(check.layers)} distinct layers, "
        f"{layout}, {threads}, {check.precision}; against float64, {heap}; {duration(check.seconds)}"
    )
