"""What untrained networks cost: built, exported, and timed in turn with one fixed network, so that noise cancels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

import distill
from distill.compression.quantize import int8_schemes, quantizer
from distill.data.images import evenly_spaced_positions
from distill.data.splits import Splits
from distill.devices import library_versions, using_threads
from distill.devices.kit_script import machine
from distill.devices.layers import Layer, layers_of
from distill.errors import RunError
from distill.evaluation.cost import spec_cost
from distill.evaluation.latency import measure_latency
from distill.files import json_sha256, read_json, sha256_file, write_json
from distill.fingerprint import architecture_sha256
from distill.models import build_model, build_normalize, meta_model
from distill.models.deployed import Deployed
from distill.models.onnx_metadata import FileAbout
from distill.models.onnx_open import on_bytes, session
from distill.models.onnx_write import to_onnx, write_onnx
from distill.recipe import Recipe, dump_recipe
from distill.results.figures import Latency
from distill.searches.costs import LATENCIES, Costs
from distill.searches.external_timing import measure_elsewhere
from distill.searches.layers import time_layer

if TYPE_CHECKING:
    import onnx

__all__ = ["Bench", "Runtime", "Target"]

Runtime = Literal["torch", "onnxruntime", "onnxruntime-int8"]

_ROUNDS, _SECONDS, _CALIBRATION = 300, 1.5, 32
_RECIPE = 4096  # characters: a run's recipe, which its file carries, says more than the one it was made from
_Forward = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Target:
    """Where, and through what, networks are to be fast.

    Attributes:
        threads: CPU threads of one operation.
        command: What times an exported file elsewhere; None: this machine.
        latencies: Those that are wanted.
        exports: Whether a budget asks for what only a file has; else nothing is exported, and sizes are not known.
    """

    runtime: Runtime
    threads: int
    command: str | None
    latencies: tuple[str, ...]
    exports: bool = True

    def described(self) -> dict[str, Any]:
        """What its milliseconds hold for; its digest names the folder in which they are kept."""
        where: dict[str, Any] = {"command": self.command}
        if self.command is None:
            libraries = library_versions("onnxruntime")
            name = "torch" if self.runtime == "torch" else "onnxruntime"
            where = {"machine": machine(), name: libraries.get(name)}
        return {"runtime": self.runtime, "threads": self.threads} | where


@dataclass
class Bench:
    """Costs of recipes' networks, each found once.

    Attributes:
        reference: The network that every other is timed beside.
        kept: The folder in which costs are kept, of all machines and searches.
        splits: Whose images set an int8 file's ranges.
    """

    reference: Recipe
    splits: Splits
    target: Target
    kept: Path

    @cached_property
    def _folder(self) -> Path:
        told = self.target.described()
        folder = self.kept / json_sha256(told)[:16]
        if not (folder / "about.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "about.json", told)
        return folder

    # What is known at once

    def predicted(self, recipe: Recipe) -> Costs:
        """Counted, and the sum of what its layers take alone: to search with, not to believe."""
        classes = len(self.splits.dataset.classes)
        cost = spec_cost(recipe.model, classes)
        bytes_each = 1 if self.target.runtime == "onnxruntime-int8" else 4
        times = {name: 0.0 for name in self.target.latencies}
        if times:
            passes = layers_of(meta_model(recipe.model, classes), recipe.model.input_size)
            self._time_new([each.layer for each in passes])
            for each in passes:
                alone, often = self._layers[str(each.layer)], each.calls * each.per_image
                times = {name: spent + often * alone[str(LATENCIES[name])] for name, spent in times.items()}
        return Costs(cost.params, cost.macs / 1e9, cost.params * bytes_each / 1e6, **times)

    def _time_new(self, layers: Sequence[Layer]) -> None:
        """Time those that never were, and keep what they take."""
        new = {str(layer): layer for layer in layers if str(layer) not in self._layers}
        if not new:
            return
        sizes = [LATENCIES[name] for name in self.target.latencies]
        threads = self.target.threads if self.target.command is None else 1
        for name, layer in new.items():
            self._layers[name] = time_layer(layer, sizes, runtime=self.target.runtime, threads=threads)
        self._layers = _read_or(self._layers_file, {}) | self._layers  # with what another search has timed meanwhile
        write_json(self._layers_file, self._layers)

    @property
    def _layers_file(self) -> Path:
        sizes = "-".join(str(LATENCIES[name]) for name in self.target.latencies)
        return self._folder / f"layers-{sizes}.json"

    @cached_property
    def _layers(self) -> dict[str, dict[str, float]]:
        return _read_or(self._layers_file, {})

    # What is measured

    def confirmed(self, recipe: Recipe) -> Costs:
        """Of the exported file, timed in turn with the reference's; counted alone where no budget asks for a file.

        Its milliseconds are the reference's own, as measured once, times how much slower it was in the same minutes.

        Raises:
            RunError: It cannot be measured.
            UsageError: The network cannot be exported.
        """
        if not self.target.exports:
            return replace(self.predicted(recipe), size_mb=None)  # that of its weights is not the file's
        found = _costs(self._file(recipe))
        if found is None:
            found = self._measured(recipe)
            write_json(self._file(recipe), {"costs": found.to_json(), "model": recipe.model.model_dump(mode="json")})
        return found

    def of_file(self, path: Path, recipe: Recipe) -> Costs | None:
        """What a trained network's file costs, timed as candidates are; kept by its content.

        Args:
            recipe: Whose network the file holds.

        Returns:
            None where no budget asks for what only a file has, and for PyTorch, which runs no file.

        Raises:
            RunError: It cannot be measured.
        """
        if not self.target.exports or self.target.runtime == "torch":
            return None
        kept = self._folder / f"file-{json_sha256([sha256_file(path), self._reference_key])[:24]}.json"
        found = _costs(kept)
        if found is None:
            cost = spec_cost(recipe.model, len(self.splits.dataset.classes))
            times = dict[str, float]()
            if self.target.command:
                times = self._beside(path)
            elif self.target.latencies:
                _, times = self._fastest({"": self._running(path.read_bytes(), str(path))})
            found = Costs(cost.params, cost.macs / 1e9, path.stat().st_size / 1e6, **times)
            write_json(kept, {"costs": found.to_json(), "model": recipe.model.model_dump(mode="json")})
        return found

    @cached_property
    def noise(self) -> float | None:
        """How far apart two timings of the reference were, as a share; None where nothing is timed."""
        return self._base["noise"] if self.target.latencies else None

    def _file(self, recipe: Recipe) -> Path:
        told = [architecture_sha256(recipe.model), len(self.splits.dataset.classes), self._side, self._reference_key]
        return self._folder / f"{json_sha256([*told, self._wanted])[:24]}.json"

    @property
    def _wanted(self) -> list[str]:
        return [*self.target.latencies, "size_mb"]

    @cached_property
    def _reference_key(self) -> str:
        told = [architecture_sha256(self.reference.model), len(self.splits.dataset.classes), self._side]
        return json_sha256([*told, self._wanted])[:24]

    def _measured(self, recipe: Recipe) -> Costs:
        cost = spec_cost(recipe.model, len(self.splits.dataset.classes))
        if self.target.runtime == "torch":
            size, (_, times) = cost.size_mb, self._fastest(self._torch(recipe))
        else:
            files = self._graphs(recipe)
            kind, times = self._elsewhere(files) if self.target.command else self._onnx(files, recipe)
            size = files[kind].ByteSize() / 1e6
        return Costs(cost.params, cost.macs / 1e9, size, **times)

    @property
    def _side(self) -> int:
        return self.splits.train.image_size

    def _deployed(self, recipe: Recipe) -> Deployed:
        data = self.splits.dataset
        module = build_model(recipe.model, num_classes=len(data.classes)).eval()
        normalize = build_normalize(recipe.model, mean=data.mean, std=data.std)
        return Deployed(module, normalize, image_size=self._side).eval()

    def _graphs(self, recipe: Recipe) -> dict[str, onnx.ModelProto]:
        """The exported graph; in int8 one for each kind of kernel, of which the fastest is what would ship."""
        plain = to_onnx(self._deployed(recipe), self._about(recipe))
        if self.target.runtime != "onnxruntime-int8":
            return {"": plain}
        images = self.splits.train
        pixels = images.take(evenly_spaced_positions(len(images), _CALIBRATION))
        schemes = int8_schemes(enlarged=recipe.model.input_size > self._side)
        with quantizer(plain, pixels) as quantised_by:
            wanted = schemes if self.target.command is None else schemes[:1]
            return {str(scheme): quantised_by(scheme) for scheme in wanted}

    def _about(self, recipe: Recipe) -> FileAbout:
        data = self.splits.dataset
        cost = spec_cost(recipe.model, len(data.classes))
        return FileAbout(
            name=recipe.name, role=recipe.role, classes=tuple(data.classes), image_size=self._side,
            weights_sha256="0" * 64, recipe=dump_recipe(recipe).ljust(_RECIPE), version=distill.__version__,
            params=cost.params, gmacs=cost.macs / 1e9,
        )  # fmt: skip

    # Times

    @cached_property
    def _base(self) -> dict[str, Any]:
        """The reference's own milliseconds, as they were first measured here, with the noise of that minute."""
        path = self._folder / f"reference-{self._reference_key}.json"
        kept = _read_or(path, {})
        if not {"times", "noise"} <= set(kept):
            times, noise = self._reference_times()
            kept = {"times": times, "noise": noise, "model": self.reference.model.model_dump(mode="json")}
            write_json(path, kept)
        return kept

    def _reference_times(self) -> tuple[dict[str, float], float]:
        if self.target.command is not None:
            pair = [self._command(self._reference_file) for _ in range(2)]
        else:
            timings = self._in_turn({"one": self._reference_forward, "two": self._reference_forward})
            pair = [_by_name(timings[name], self.target.latencies) for name in ("one", "two")]
        times = {name: (pair[0][name] + pair[1][name]) / 2 for name in self.target.latencies}
        return times, max(abs(pair[0][name] - pair[1][name]) / times[name] for name in times)

    def _fastest(self, forward: Mapping[str, _Forward]) -> tuple[str, dict[str, float]]:
        """Which of these is the fastest, and its times, in turn with the reference; untimed, the first."""
        if not self.target.latencies:
            return next(iter(forward)), {}
        timings = self._in_turn({"reference": self._reference_forward} | dict(forward))
        reference = _by_name(timings.pop("reference"), self.target.latencies)
        first = self.target.latencies[0]
        found = {kind: _by_name(cells, self.target.latencies) for kind, cells in timings.items()}
        kind = min(found, key=lambda each: found[each][first])
        base = self._base["times"]
        return kind, {name: base[name] * spent / reference[name] for name, spent in found[kind].items()}

    def _in_turn(self, forward: Mapping[str, _Forward]) -> dict[str, dict[int, Latency]]:
        side = self._side if self.target.runtime != "torch" else self.reference.model.input_size
        with using_threads(self.target.threads):
            return measure_latency(
                forward,
                dict.fromkeys(forward, (3, side, side)),
                device=torch.device("cpu"),
                batch_sizes=[LATENCIES[name] for name in self.target.latencies],
                rounds=_ROUNDS,
                seconds_per_model=_SECONDS,
            )

    def _torch(self, recipe: Recipe) -> dict[str, _Forward]:
        return {"": self._deployed(recipe).network.to(memory_format=torch.channels_last)}

    def _onnx(self, graphs: Mapping[str, onnx.ModelProto], recipe: Recipe) -> tuple[str, dict[str, float]]:
        """Which of these graphs would ship, and its times: the fastest; where nothing is timed, the smallest."""
        if not self.target.latencies:
            return min(graphs, key=lambda kind: graphs[kind].ByteSize()), {}
        return self._fastest(
            {name: self._running(graph.SerializeToString(), recipe.name) for name, graph in graphs.items()}
        )

    def _running(self, graph: bytes, place: str) -> _Forward:
        return on_bytes(session(graph, threads=self.target.threads, place=place), self._side)

    @cached_property
    def _reference_forward(self) -> _Forward:
        if self.target.runtime == "torch":
            return next(iter(self._torch(self.reference).values()))
        graph = next(iter(self._graphs(self.reference).values()))
        return self._running(graph.SerializeToString(), self.reference.name)

    # Elsewhere

    def _elsewhere(self, graphs: Mapping[str, onnx.ModelProto]) -> tuple[str, dict[str, float]]:
        kind, graph = next(iter(graphs.items()))
        with tempfile.TemporaryDirectory(prefix="distill-") as folder:
            path = Path(folder) / "candidate.onnx"
            write_onnx(graph, path)
            return kind, self._beside(path)

    def _beside(self, path: Path) -> dict[str, float]:
        """A file's times, between two timings of the reference."""
        if not self.target.latencies:
            return {}
        base = self._base["times"]
        before, found, after = (self._command(each) for each in (self._reference_file, path, self._reference_file))
        beside = {name: (before[name] + after[name]) / 2 for name in found}
        return {name: base[name] * found[name] / beside[name] for name in found}

    @cached_property
    def _reference_file(self) -> Path:
        path = self._folder / f"reference-{self._reference_key}.onnx"
        if not path.is_file():
            write_onnx(next(iter(self._graphs(self.reference).values())), path)
        return path

    def _command(self, path: Path) -> dict[str, float]:
        assert self.target.command is not None
        return measure_elsewhere(self.target.command, path, self.target.latencies)


def _by_name(cells: Mapping[int, Latency], names: tuple[str, ...]) -> dict[str, float]:
    return {name: cells[LATENCIES[name]].median_ms for name in names}


def _costs(path: Path) -> Costs | None:
    try:
        return Costs.from_json(_read_or(path, {})["costs"])
    except (KeyError, TypeError):  # absent, or damaged: it is measured again
        return None


def _read_or(path: Path, default: dict[str, Any]) -> dict[str, Any]:
    try:
        return read_json(path) if path.is_file() else default
    except RunError:  # damaged: what it held is measured again
        return default
