"""One named generator for each use of chance: what one part draws never shifts another."""

from __future__ import annotations

import torch

from distill.data.streams import derive_seed

__all__ = ["restore_generators", "seed_generators", "snapshot_generators"]


def seed_generators(seed: int, device: torch.device, *, rank: int = 0) -> None:
    """Seed the default generators that a step on ``device`` draws from, for dropout alone; each rank draws its own.

    Not by ``torch.manual_seed``, which seeds those of all other devices, too.
    """
    drawn = derive_seed(seed, f"dropout/{rank}")
    torch.default_generator.manual_seed(drawn)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(drawn)
    elif device.type == "mps":
        torch.mps.manual_seed(drawn)


def snapshot_generators(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of the default generators that a step on ``device`` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_generators(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Undo everything drawn since :func:`snapshot_generators`."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"].cpu())
