"""A comparison as bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distill.report.figure import TRAIN_COLOR, drawing, label, save
from distill.results.roles import look_of

__all__ = ["draw_comparison"]


def draw_comparison(document: dict[str, Any], path: Path) -> Path:
    """Images per CPU-second of everyone, with the least and the most of all rounds."""
    rows = document["rows"][::-1]
    middle = [row["images_per_cpu_s"] for row in rows]
    below = [row["images_per_cpu_s"] - row["images_per_cpu_s_min"] for row in rows]
    above = [row["images_per_cpu_s_max"] - row["images_per_cpu_s"] for row in rows]
    colors = [TRAIN_COLOR if row["name"].startswith("distill") else look_of("baseline").color for row in rows]
    with drawing():
        figure = Figure(figsize=(6.8, 0.7 + 0.45 * len(rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(rows))
        axes.barh(places, middle, color=colors, height=0.62, xerr=(below, above), ecolor="#222222")
        axes.set_yticks(places, [_name(row) for row in rows])
        axes.grid(visible=False, axis="y")
        for place, row in zip(places, rows, strict=True):
            axes.text(0.0, place, f" {row['images_per_cpu_s']:.3g}", va="center", color="white")
        title = document["setting"]["pair"].replace("-", " to ")
        label(axes, title, x="images per CPU-second of all processes, one thread", y="")
        return save(figure, path)


def _name(row: dict[str, Any]) -> str:
    how = {"distill": "bank", "distill, live": "live"}.get(row["name"])
    return f"distill, {how}" if how else f"{row['name']} {row['version']}"
