"""What is known of a model, wherever it is written: what it costs, how fast it is, how right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Figures", "Latency", "LayerCost"]


@dataclass(frozen=True)
class Latency:
    """Wall time of one forward pass, from images on the device to logits.

    Attributes:
        n: How many passes were timed.
        p99_ms: None where too few were timed to say where it is.
    """

    batch_size: int
    median_ms: float
    p90_ms: float
    n: int
    p99_ms: float | None = None

    @property
    def images_per_s(self) -> float:
        """This batch size over the median; a model's throughput is that of its largest batch."""
        return 1000.0 * self.batch_size / self.median_ms if self.median_ms > 0 else math.inf


@dataclass(frozen=True)
class LayerCost:
    """One module's own share of the cost, without its children's.

    Attributes:
        name: Its dotted name in the network.
        kind: Its class.
        output_shape: Of its last output for a batch of one; empty where it was not called.
        params: Parameters of its own.
        macs: Multiply-accumulates of its own, for one image.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class Figures:
    """A model in numbers; None is what was not measured.

    Attributes:
        gmacs: Billions of multiply-accumulates for one image.
        size_mb: Millions of bytes of parameters and buffers in float32.
        latency_ms: By batch size; measured on ``latency_device``, which is called ``hardware``, with ``threads``.
        test_top1: On ``test_images`` test images, a fraction.
        test_ece: Expected calibration error there.
        test_balanced_accuracy: Mean recall of the classes there; ``test_macro_f1`` the mean F1.
        test_content: Hex sha256 of those images, their labels and class names.
        val_top1: Of the shipped epoch, on ``val_images`` validation images, a fraction.
    """

    params: int | None = None
    gmacs: float | None = None
    size_mb: float | None = None
    latency_ms: Mapping[int, Latency] = field(default_factory=dict)
    latency_device: str | None = None
    hardware: str | None = None
    threads: int | None = None
    test_top1: float | None = None
    test_ece: float | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_images: int | None = None
    test_content: str | None = None
    val_top1: float | None = None
    val_images: int | None = None

    def to_json(self) -> dict[str, Any]:
        """What was measured, for a JSON document."""
        tree = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        if self.latency_ms:
            tree["latency_ms"] = {
                str(size): {"median_ms": each.median_ms, "p90_ms": each.p90_ms, "n": each.n}
                for size, each in self.latency_ms.items()
            }
        return tree

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Figures:
        """What a document holds of them; other keys are none of theirs.

        Raises:
            ValueError: A value of them is damaged.
        """
        values = {name: tree[name] for name in _NAMES if tree.get(name) is not None}
        for name, value in values.items():
            if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
                raise ValueError(f"{name} should be {_WORDS[_KINDS[name]]}, got {value!r:.60}")
        try:
            latency = {int(size): _latency(int(size), each) for size, each in tree.get("latency_ms", {}).items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"latency_ms is damaged: {error}") from error
        return cls(**values, latency_ms=latency)


_TEXTS = ("latency_device", "hardware", "test_content")
_COUNTS = ("params", "threads", "test_images", "val_images")
_NAMES = tuple(each.name for each in fields(Figures) if each.name != "latency_ms")
_KINDS: dict[str, type | tuple[type, ...]] = {
    name: str if name in _TEXTS else int if name in _COUNTS else (int, float) for name in _NAMES
}
_WORDS: dict[type | tuple[type, ...], str] = {str: "text", int: "a whole number", (int, float): "a number"}


def _latency(size: int, tree: Mapping[str, Any]) -> Latency:
    return Latency(size, float(tree["median_ms"]), float(tree["p90_ms"]), int(tree["n"]))
