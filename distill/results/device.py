"""What a kit's script wrote on another machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distill.results.certificate import Machine, Timing, Tree

__all__ = ["DeviceReport", "Found", "Packed"]


class Packed(Tree):
    """What the kit says of its file and images."""

    kit: Literal[1]
    file: str
    sha256: str
    images_sha256: str
    runtime: str
    role: str
    recipe: str
    dataset: str
    test_images: int
    classes: tuple[str, ...]
    params: int
    gmacs: float
    size_mb: float
    version: str


class Found(Tree):
    """How many of the kit's test images were answered right, and how many as where the kit was made."""

    images: int = Field(ge=1)
    right: int = Field(ge=0)
    same_answers: int = Field(ge=0)


class DeviceReport(Tree):
    """``device.json``. ``name`` is what its user calls the machine; ``written`` is that machine's clock, in UTC."""

    device: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")
    kit: Packed
    accuracy: Found
    latency: dict[str, Timing]
    threads: int = Field(ge=1)
    machine: Machine
    versions: dict[str, str]
    written: str
