"""What networks cost, kept below the cache folder: to count it anew takes torch, and seconds for a list of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from distill.data.array_cache import cache_folder
from distill.errors import DistillError
from distill.files import json_sha256, read_json, write_json
from distill.recipe.model_specs import ModelSpec

__all__ = ["Counts", "counts_of"]

_HOME = Path(__file__).resolve().parents[2]
_CODE = ("distill/models/build.py", "distill/evaluation/cost.py", "students/*.py", "teachers/*.py")
_SAME_SHAPES = {"normalize", "max_params", "weights"}  # what a recipe says of a network that changes no shape of it


@dataclass(frozen=True)
class Counts:
    """Exact parameters, and multiply-accumulates for one image."""

    params: int
    macs: int


def counts_of(networks: Sequence[tuple[ModelSpec, int]]) -> list[Counts]:
    """The counts of networks, each with its number of classes; those that were never counted here are counted now.

    What is kept is of one version of torch, timm and the code here: others count again, and so does a damaged file.

    Raises:
        UsageError: No such network, or options that do not go together.
    """
    made_with = _made_with()
    keys = [_key(spec, classes) for spec, classes in networks]
    kept = _read(made_with)
    missing = {key: network for key, network in zip(keys, networks, strict=True) if key not in kept}
    if missing:
        kept |= {key: _count(*network) for key, network in missing.items()}
        _write(made_with, kept)
    return [kept[key] for key in keys]


def _count(spec: ModelSpec, classes: int) -> Counts:
    from distill.evaluation.cost import spec_cost

    cost = spec_cost(spec, classes)
    return Counts(cost.params, cost.macs)


def _key(spec: ModelSpec, classes: int) -> str:
    return json_sha256([spec.model_dump(mode="json", exclude=_SAME_SHAPES), classes])


def _made_with() -> dict[str, str]:
    files = sorted(path for pattern in _CODE for path in _HOME.glob(pattern))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return {"torch": version("torch"), "timm": version("timm"), "code": code}


def _file() -> Path:
    return cache_folder() / "networks.json"


def _read(made_with: Mapping[str, str]) -> dict[str, Counts]:
    try:
        document = read_json(_file())
        if document["made_with"] != made_with or document["sha256"] != json_sha256(document["counts"]):
            return {}
        return {key: Counts(*pair) for key, pair in document["counts"].items()}
    except (DistillError, KeyError, TypeError, AttributeError):
        return {}


def _write(made_with: Mapping[str, str], kept: Mapping[str, Counts]) -> None:
    counts = {key: [each.params, each.macs] for key, each in kept.items()}
    with contextlib.suppress(DistillError):  # it only saves time
        write_json(_file(), {"made_with": made_with, "counts": counts, "sha256": json_sha256(counts)})
