"""From measured rounds to the one JSON document, and to a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks.peers.setting import CE_WEIGHT, TEMPERATURE, Setting
from benchmarks.peers.turns import Entry

__all__ = ["build_document", "ratios", "render"]


def build_document(setting: Setting, entries: Sequence[Entry], environment: dict[str, Any]) -> dict[str, Any]:
    """Every figure. Ratios are medians over rounds of ratios within a round, by images per CPU-second.

    The best peer is the one with the least of them. A bank's cost is held against the peer of the least CPU time.
    """
    present = {entry.name: entry for entry in entries if entry.missing is None}
    rows = [_row(setting, entry) for entry in present.values()]
    ratios = {name: _ratio(present["distill"], entry) for name, entry in present.items() if name != "distill"}
    peers = [name for name in present if not name.startswith("distill")]
    best = min(peers, key=lambda name: ratios[name]["median"], default=None)
    return {
        "benchmark": "peers",
        "setting": asdict(setting) | {"data": "cifar10" if setting.data else "synthetic"},
        "loss": f"{CE_WEIGHT} CE + {1 - CE_WEIGHT} T^2 KL, T = {TEMPERATURE:g}",
        **environment,
        "rows": rows,
        "missing": {entry.name: entry.missing for entry in entries if entry.missing is not None},
        "ratios": ratios,
        "ratio_by": "images per CPU-second, user and system, of all processes",
        "best_peer": best,
        "ratio_to_best_peer": ratios[best]["median"] if best else None,
        "bank": _bank(setting, present, peers),
    }


def _row(setting: Setting, entry: Entry) -> dict[str, Any]:
    cpu, wall = ([getattr(cost, key) for cost in entry.rounds] for key in ("cpu_s", "wall_s"))
    rates = [setting.images / seconds for seconds in cpu]
    return {
        "name": entry.name,
        "version": entry.about["version"],
        "images_per_cpu_s": statistics.median(rates),
        "images_per_cpu_s_min": min(rates),
        "images_per_cpu_s_max": max(rates),
        "images_per_s": statistics.median(setting.images / seconds for seconds in wall),
        "cpu_us_per_image": statistics.median(cpu) / setting.images * 1e6,
        "rounds": len(cpu),
        "cpu_s": cpu,
        "wall_s": wall,
        "first_epoch_s": entry.warmup.wall_s,
        "first_epoch_cpu_s": entry.warmup.cpu_s,
        # What the first epoch took over a later one: compiling, where the device's auto compiles, and starting workers.
        "warmup_s": max(entry.warmup.wall_s - statistics.median(wall), 0.0),
        "choices": entry.about.get("choices"),
        "loss_first": entry.warmup.loss,
        "loss_last": entry.rounds[-1].loss,
        "loss_falls": entry.rounds[-1].loss < entry.warmup.loss,
        "loss_difference": entry.about["loss_difference"],
        "differences": entry.about.get("differences"),
        **entry.checks,
    }


def _ratio(ours: Entry, other: Entry) -> dict[str, float]:
    """How many times the images per CPU-second ``ours`` does, round against round; and per wall second."""
    pairs = list(zip(ours.rounds, other.rounds, strict=True))
    by_cpu = [theirs.cpu_s / mine.cpu_s for mine, theirs in pairs]
    by_wall = [theirs.wall_s / mine.wall_s for mine, theirs in pairs]
    return {
        "median": statistics.median(by_cpu),
        "min": min(by_cpu),
        "max": max(by_cpu),
        "wall_median": statistics.median(by_wall),
    }


def _bank(setting: Setting, present: dict[str, Entry], peers: Sequence[str]) -> dict[str, Any]:
    """What one view cost, and when it is repaid: a view is asked once, and saves its teacher in every epoch."""
    cost = present["distill"].about["bank"]
    per_image = {name: _cpu_s(entry) / setting.images for name, entry in present.items()}
    view = cost.cpu_s / setting.images
    first = view + per_image["distill"]
    found = {
        "cpu_us_per_image_and_view": view * 1e6,
        "images_per_cpu_s": 1 / view,
        "view_cifar10_cpu_s": view * 50_000,
        "in_epochs_of_the_student": view / per_image["distill"],
        "all_162_views_cifar10_cpu_s": view * 50_000 * 162,
    }
    for key, others in (("live", ("distill, live",)), ("best_peer", peers)):
        if costs := [per_image[name] for name in others if name in present]:
            found[f"epochs_to_repay_a_view_against_{key}"] = view / (min(costs) - per_image["distill"])
            found[f"ratio_to_{key}_when_every_epoch_builds_its_view"] = min(costs) / first
    return found


def _cpu_s(entry: Entry) -> float:
    return statistics.median(cost.cpu_s for cost in entry.rounds)


def ratios(document: dict[str, Any]) -> str:
    """Both ratios to the best peer in a line: the bank is there, or a single student pays for each view of it."""
    best = document["best_peer"]
    if best is None:
        return "no peer is installed: there is no ratio"
    paid = document["bank"]["ratio_to_best_peer_when_every_epoch_builds_its_view"]
    ready = document["ratio_to_best_peer"]
    return (
        f"best peer: {best}; distill does {ready:.2f} times its images per CPU-second with the bank there, "
        f"and {paid:.2f} times where one student pays for every view of it"
    )


def render(document: dict[str, Any]) -> Table:
    """A row for each contestant."""
    setting = document["setting"]
    table = Table(title=f"{setting['pair']}, batches of {setting['batch']}, {setting['device']}, 1 thread")
    for column in ("", "images/CPU-s", "min - max", "images/s", "distill's ratio", "min - max", "loss"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in document["rows"]:
        ratio = document["ratios"].get(row["name"])
        table.add_row(
            f"{row['name']} {row['version']}",
            f"{row['images_per_cpu_s']:.1f}",
            f"{row['images_per_cpu_s_min']:.1f} - {row['images_per_cpu_s_max']:.1f}",
            f"{row['images_per_s']:.1f}",
            f"{ratio['median']:.2f}" if ratio else "",
            f"{ratio['min']:.2f} - {ratio['max']:.2f}" if ratio else "",
            f"{row['loss_first']:.2f} -> {row['loss_last']:.2f}",
        )
    return table
