"""What a network costs: parameters, multiply-accumulates, size; counted layer by layer on the meta device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from distill.models import meta_model
from distill.models.check import needs_values
from distill.recipe.model_specs import ModelSpec
from distill.results.figures import Figures, LayerCost

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "model_cost", "spec_cost"]


@dataclass(frozen=True)
class Cost:
    """What a network costs for one image.

    Attributes:
        params: Parameters, shared ones once.
        macs: Multiply-accumulates of convolutions, linear layers and matrix products (attention's among them);
            norms, activations and pooling are not counted. Divide by 1e9 for GMACs.
        layers: In the order in which they run.
        size_mb: Millions of bytes of parameters and buffers, each floating-point value in float32.
    """

    params: int
    macs: int
    layers: tuple[LayerCost, ...]
    size_mb: float

    @property
    def figures(self) -> Figures:
        """As tables and files have it."""
        return Figures(params=self.params, gmacs=self.macs / 1e9, size_mb=self.size_mb)


def model_cost(module: nn.Module, input_size: int, *, in_channels: int = 3) -> Cost:
    """Count by a pass of one image through a twin on the meta device: nothing is computed, ``module`` is untouched.

    A network that looks at the values of its tensors is counted on the CPU, for a black image; one that cannot be
    copied is counted itself, where it is.
    """
    try:
        twin = _meta_twin(module)
    except Exception:  # it holds a lock, a file, or a tensor with a gradient
        return _counted_itself(module, torch.zeros(1, in_channels, input_size, input_size))
    try:
        return _counted(module, twin, torch.empty(1, in_channels, input_size, input_size, device="meta"))
    except Exception as error:  # a network's own code can raise nearly anything
        if not needs_values(error):
            raise
    return _counted(module, _cpu_twin(module), torch.zeros(1, in_channels, input_size, input_size))


def _counted_itself(module: nn.Module, image: Tensor) -> Cost:
    modes = {each: each.training for each in module.modules()}
    device = next((tensor.device for tensor in module.parameters()), image.device)
    try:
        return _counted(module, module, image.to(device))
    finally:
        for each, training in modes.items():
            each.training = training


def _counted(module: nn.Module, twin: nn.Module, image: Tensor) -> Cost:
    """What ``module`` costs, by what its twin does to an image ``(1, C, S, S)``."""
    twin.eval()
    names = {m: name for name, m in twin.named_modules()}
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [m.register_forward_hook(lambda m, _, out: shapes.__setitem__(names[m], _shape(out))) for m in names]
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            twin(image)
    finally:  # it may be the network itself
        for hook in hooks:
            hook.remove()
    macs = _macs_by_name(counter, names[twin], type(twin).__name__)
    layers = _layers(twin, shapes, macs)
    tensors = [*module.parameters(), *module.buffers()]
    size = sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in tensors)
    return Cost(
        params=sum(p.numel() for p in module.parameters()),
        macs=counter.get_total_flops() // 2,  # the counter counts a multiply-accumulate as two operations
        layers=layers,
        size_mb=size / 1e6,
    )


def spec_cost(spec: ModelSpec, num_classes: int) -> Cost:
    """The cost of the network that a recipe names, for one image of its ``input_size``; no weights are fetched."""
    return model_cost(meta_model(spec, num_classes), spec.input_size)


def _meta_twin(module: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes but no storage; copying a memo of them copies no weights."""
    memo: dict[int, object] = {}
    for p in module.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
    for b in module.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return copy.deepcopy(module, memo)


def _cpu_twin(module: nn.Module) -> nn.Module:
    """A copy on the CPU; of parameters that have no storage the values are 0."""
    twin = copy.deepcopy(module)
    if not any(tensor.is_meta for tensor in (*twin.parameters(), *twin.buffers())):
        return twin.cpu()
    twin = twin.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()
    return twin


def _shape(output: object) -> tuple[int, ...]:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return tuple(output.shape) if isinstance(output, Tensor) else ()


def _macs_by_name(counter: FlopCounterMode, root: str, kind: str) -> dict[str, int]:
    """Multiply-accumulates of each module with its children; the counter's names start with the network's class."""
    counts = {name.removeprefix(f"{kind}."): sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    return counts | {root: counts.get(kind, 0)}


def _layers(twin: nn.Module, shapes: dict[str, tuple[int, ...]], macs: dict[str, int]) -> tuple[LayerCost, ...]:
    modules, layers = dict(twin.named_modules()), []
    seen: set[int] = set()
    for name in [*shapes, *(n for n in modules if n not in shapes)]:
        module = modules[name]
        fresh = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in seen}
        seen |= fresh.keys()
        within = sum(macs.get(f"{name}.{child}".lstrip("."), 0) for child, _ in module.named_children())
        own, called = macs.get(name, 0) - within, name in shapes
        leaf = called and not list(module.children()) and not isinstance(module, nn.Identity)
        if leaf or fresh or own:
            layers.append(LayerCost(name, type(module).__name__, shapes.get(name, ()), sum(fresh.values()), own))
    return tuple(layers)
