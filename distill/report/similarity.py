"""How alike two networks are: a table for the terminal, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from distill.report.layout import Column, key_values, stacked
from distill.results.similarity import Similarity
from distill.text import MISSING, count, cut, fixed, percent, plain, shorten

__all__ = ["plot_similarity", "similarities_table", "similarity_table"]

_MAX_NUMBERS = 14  # stages: a larger matrix has no room for digits
_MAX_LABELS = 40


def similarity_table(found: Similarity, width: int) -> RenderableType:
    """How often and how exactly both answer alike, then their stages."""
    pairs = [
        ("run", found.run),
        ("held against", found.other),
        ("split", f"{found.split}, {count(found.n)} images"),
        ("agreement", f"{percent(found.agreement)} %"),
        ("KL of their classes", f"{fixed(found.divergence, 4)} nats"),
        ("class correlations", f"{fixed(found.correlation_difference, 4)} apart"),
    ]
    columns = [Column("", found.stages, words=True, style="bold")]
    for place, name in enumerate(found.other_stages):
        columns.append(Column(name, [_number(row[place]) for row in found.cka]))
    head = f"CKA of {count(found.images)} images: {found.name} down, {found.other_name} across"
    parts: list[RenderableType] = [key_values(pairs), Text(), Text(cut(plain(head), width), style="bold"), Text()]
    parts.append(stacked(columns, width))
    return Group(*parts, *(Text(f"note: {plain(note)}", style="yellow") for note in found.notes))


def similarities_table(found: Sequence[Similarity], width: int) -> RenderableType:
    """A line for each run; of the stages, what enters the classifiers, where both networks have that."""
    columns = [
        Column("run", [each.name for each in found], words=True, style="bold"),
        Column("held against", [each.other_name for each in found], words=True),
        Column("images", [count(each.n) for each in found]),
        Column("agreement\n%", [percent(each.agreement) for each in found]),
        Column("KL of classes\nnats", [fixed(each.divergence, 4) for each in found]),
        Column("class correlations\napart", [fixed(each.correlation_difference, 4) for each in found]),
        Column("CKA\nof pooled", [_number(_pooled(each)) for each in found]),
    ]
    notes = dict.fromkeys(note for each in found for note in each.notes)
    return Group(stacked(columns, width), *(Text(f"note: {plain(note)}", style="yellow") for note in notes))


def _pooled(found: Similarity) -> float | None:
    if "pooled" not in found.stages or "pooled" not in found.other_stages:
        return None
    return found.cka[found.stages.index("pooled")][found.other_stages.index("pooled")]


def _number(value: float | None) -> str:
    return MISSING if value is None else fixed(value, 2)


def plot_similarity(found: Similarity, correlations: Sequence[np.ndarray], classes: Sequence[str], path: Path) -> Path:
    """Draw both networks' stages by CKA, and by how much the correlations of their classes differ.

    Args:
        correlations: ``(C, C)`` of the run's classes, and of the other's.
        classes: Their names.
    """
    from matplotlib.figure import Figure

    from distill.report.figure import drawing, label, save

    cka = np.array([[np.nan if each is None else each for each in row] for row in found.cka])
    ours, theirs = correlations
    names = [shorten(plain(each), 32) for each in (found.name, found.other_name)]
    with drawing():
        figure = Figure(figsize=(10.5, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        image = left.imshow(cka, cmap="cividis", vmin=0.0, vmax=1.0)
        left.set_xticks(range(len(found.other_stages)), found.other_stages, rotation=45, ha="right")
        left.set_yticks(range(len(found.stages)), found.stages)
        if max(cka.shape) <= _MAX_NUMBERS:
            for (row, column), value in np.ndenumerate(cka):
                if np.isfinite(value):
                    color = "black" if value > 0.5 else "white"
                    left.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
        label(left, "CKA of stages", x=names[1], y=names[0])
        figure.colorbar(image, ax=left, shrink=0.8)
        image = right.imshow(np.abs(ours - theirs), cmap="cividis", vmin=0.0)
        if len(classes) <= _MAX_LABELS:
            labels = [shorten(plain(each), 16) for each in classes]
            right.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
            right.set_yticks(range(len(labels)), labels)
            right.tick_params(labelsize=8)
        title = f"Difference of class correlations, mean {found.correlation_difference:.3f}"
        label(right, title, x="", y="")
        figure.colorbar(image, ax=right, shrink=0.8)
        for axes in (left, right):
            axes.grid(False)
        return save(figure, path)
