"""Structured pruning: whole channels go, along the dependency graph of a network (DepGraph, arXiv:2301.12900).

What is cut is a smaller dense network: fewer parameters, fewer multiply-accumulates, and no sparse kernels to wish for.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import nn

from distill.devices import is_out_of_memory, unsafe_layers
from distill.errors import DistillError, MissingError, NotPrunableError
from distill.models import head_parameters
from distill.models.reuse import Projector
from distill.models.widths import widths_between
from distill.recipe.model_specs import LayerWidth
from distill.text import first_line

__all__ = ["Criterion", "PrunedNetwork", "criteria", "find_cut", "require_torch_pruning", "smallest"]

Criterion = Literal["l2", "bn", "taylor"]

_STEPS = 9  # halvings of the share of channels that go: to 0.2%
_MOST = (0.95, 0.85, 0.7, 0.5, 0.25)  # shares, of which the first that can be cut is the most that goes
_WHAT_CAN = "distill's students and timm's CNNs with batch norm can be"
_SAFE_MULTIPLE = 16  # at or above it no kernel of a CPU is known to be wrong
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class PrunedNetwork:
    """A network with fewer channels, and how a recipe states it.

    Attributes:
        module: With the surviving weights.
        widths: Every layer whose width is not its builder's.
        multiple: Widths are multiples of it where a layer had that many; of grouped convolutions whole groups stay.
    """

    module: nn.Module
    widths: tuple[LayerWidth, ...]
    multiple: int


def criteria() -> tuple[str, ...]:
    """The names of the criteria."""
    return get_args(Criterion)


def require_torch_pruning() -> ModuleType:
    """The library that knows which channels hang together.

    Raises:
        MissingError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch_pruning
    except ImportError as error:
        raise MissingError(
            "pruning needs Torch-Pruning, which is not installed", hint="pip install torch-pruning"
        ) from error
    return torch_pruning


def find_cut(
    network: nn.Module, input_size: int, *, criterion: Criterion, multiple: int, fits: Callable[[nn.Module], bool]
) -> PrunedNetwork | None:
    """The largest network that fits, with the same share of channels gone from every layer; None: none does.

    Channels are ranked in their layer: by the L2 norm of the weights that go with them (``l2``), by the scale of the
    batch norm behind them (``bn``, arXiv:1708.06519), or by the first-order Taylor expansion of the loss (``taylor``,
    arXiv:1906.10771), for which ``network`` holds gradients.

    Args:
        network: Contiguous, in eval mode, on the CPU; left as it is.
        multiple: Widths stay multiples of it. Where they would reach a kernel that is wrong on a CPU, of 16 if that can
            be had; a network that reaches one trains on contiguous images.
        fits: Whether a cut network is small or fast enough.

    Raises:
        MissingError: Torch-Pruning is not installed.
        NotPrunableError: A network whose channels cannot be cut, or whose cut a recipe cannot state.
    """
    require_torch_pruning()
    _refuse_attention(network)
    cut = _Cutter(network, input_size, criterion, multiple).search(fits)
    if cut is None or unsafe_layers(network, _CPU) or not unsafe_layers(cut.module, _CPU):
        return cut
    return _Cutter(network, input_size, criterion, _SAFE_MULTIPLE).search(fits) or cut


def smallest(network: nn.Module, input_size: int, *, criterion: Criterion, multiple: int) -> nn.Module:
    """The network with as few channels as :func:`find_cut` would ever leave."""
    return _Cutter(network, input_size, criterion, multiple).smallest()[1]


@dataclass(frozen=True)
class _Cutter:
    network: nn.Module
    input_size: int
    criterion: Criterion
    multiple: int

    def search(self, fits: Callable[[nn.Module], bool]) -> PrunedNetwork | None:
        low, (high, best) = 0.0, self.smallest()
        if not fits(best):
            return None
        for _ in range(_STEPS):
            share = (low + high) / 2
            try:
                larger = self.cut(share)
            except NotPrunableError:  # with these widths alone
                low = share
                continue
            if fits(larger):
                high, best = share, larger
            else:
                low = share
        try:
            widths = widths_between(self.network, best)
        except ValueError as error:
            raise NotPrunableError(f"this network cannot be pruned: {error}", hint=_WHAT_CAN) from error
        return PrunedNetwork(best, widths, self.multiple)

    def smallest(self) -> tuple[float, nn.Module]:
        """The largest share that can be cut, of those that are tried, and what it leaves.

        Raises:
            NotPrunableError: None can be cut.
        """
        refused, (share, found) = None, (0.0, self.network)
        for each in _MOST:
            try:
                share, found = each, self.cut(each)
                break
            except NotPrunableError as error:
                refused, above = error, each
        if refused is None:
            return share, found
        if share == 0.0:
            raise refused
        for _ in range(_STEPS):  # between what can be cut and what cannot
            more = (share + above) / 2
            try:
                share, found = more, self.cut(more)
            except NotPrunableError:
                above = more
        return share, found

    def cut(self, share: float) -> nn.Module:
        """A copy with that share of each layer's channels gone.

        Raises:
            NotPrunableError: Its layers do not fit one another any more.
        """
        try:
            twin = copy.deepcopy(self.network).requires_grad_(True)  # the graph is traced through autograd
            for own, theirs in zip(twin.parameters(), self.network.parameters(), strict=True):
                own.grad = None if theirs.grad is None else theirs.grad.clone()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._remove(twin, share)
        except (DistillError, MemoryError, OSError):
            raise
        except Exception as error:  # a user's network, and the library, may raise anything
            if is_out_of_memory(error):
                raise
            raise NotPrunableError(
                "this network cannot be pruned: how its layers hang together cannot be followed "
                f"({type(error).__name__}: {first_line(error):.160})",
                hint=_WHAT_CAN,
            ) from error
        _restore_buffers(twin, self.network)
        for parameter in twin.parameters():
            parameter.grad = None
        return twin.requires_grad_(False)

    def _remove(self, twin: nn.Module, share: float) -> None:
        pruning = require_torch_pruning()
        rank: dict[str, Callable[[], Any]] = {
            "l2": lambda: pruning.importance.GroupMagnitudeImportance(p=2),
            "bn": pruning.importance.BNScaleImportance,
            "taylor": pruning.importance.GroupTaylorImportance,
        }
        images = torch.zeros(1, 3, self.input_size, self.input_size)
        pruning.pruner.BasePruner(
            twin,
            images,
            importance=rank[self.criterion](),
            pruning_ratio=0.0,
            pruning_ratio_dict={layer: ratio for layer in twin.modules() if (ratio := self._ratio(layer, share)) > 0},
            ignored_layers=_kept_whole(twin),
        ).step()
        with torch.no_grad():
            twin(images)

    def _ratio(self, layer: nn.Module, share: float) -> float:
        """Of a layer's outputs, such that a multiple stays: the library rounds such that none may be left."""
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            return 0.0
        whole = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        kept = max(round(whole * (1 - share) / self.multiple), 1) * self.multiple
        return 0.0 if kept >= whole else 1.0 - (kept + 0.5) / whole  # the library cuts the half off


def _restore_buffers(twin: nn.Module, network: nn.Module) -> None:
    """A norm's scale that is fixed, a buffer, stays one: the library makes a parameter of whatever it cuts."""
    for name, module in network.named_modules():
        cut = twin.get_submodule(name)
        for each in [name for name, _ in module.named_buffers(recurse=False) if name in cut._parameters]:
            values = cut._parameters.pop(each)
            assert values is not None
            cut.register_buffer(each, values.detach())


def _kept_whole(network: nn.Module) -> list[nn.Module]:
    """Layers that keep their outputs: the classifier's last, what a teacher's classifier reads, and the residual stream
    where skips pad with zeros.
    """
    head, owners = head_parameters(network), dict(network.named_modules())
    layers = [owners[name.rpartition(".")[0]] for name in dict.fromkeys(head)]
    last = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)][-1:]
    padded = any(type(module).__name__ == "PadSkip" for module in network.modules())
    stream = [
        layer
        for name, layer in network.named_modules()
        if padded and isinstance(layer, nn.Conv2d) and name.rpartition(".")[2] != "conv1"
    ]
    reused = [module.last for module in network.modules() if isinstance(module, Projector)]
    return [*last, *stream, *reused]


def _refuse_attention(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.MultiheadAttention) or hasattr(module, "qkv") or hasattr(module, "kv"):
            raise NotPrunableError(
                f"{type(network).__name__} cannot be pruned: {name} belongs to a transformer",
                hint="convolutional networks can; a smaller transformer is a recipe of its own",
            )
