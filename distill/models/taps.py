"""What a network knows on its way to its logits: its stages by name, the same names for every network.

``stem``, ``stage1`` to ``stageN`` in order of depth, and ``pooled``, what enters the classifier. Of a stage that ends
in an activation ``stage1.preact`` is what enters that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.models.build import build_model, meta_model
from distill.models.stage_names import classifier_of, stage_modules
from distill.models.weights import without_weights
from distill.recipe.feature_terms import PREACT
from distill.recipe.model_specs import ModelSpec

__all__ = ["POOLED", "Tapped", "Taps", "stage_modules", "stage_shapes"]

POOLED = "pooled"


class Taps:
    """Keeps the features of named stages from one forward pass until they are taken; hooks are there while it is.

    Args:
        names: Stages of ``module``.
        proves: Keep what enters an activation only where that one's answer is the stage's, as is seen in evaluation
            mode; while it trains dropout may stand between the two.
    """

    def __init__(self, module: nn.Module, names: Sequence[str], *, proves: bool = False) -> None:
        self.names = tuple(names)
        self._proves = proves
        self.active = True
        self._module = module
        self._found: dict[str, Tensor] = {}
        self._lasts: list[_LastActivation] = []
        places, known = stage_modules(module), dict(module.named_modules())
        self._handles = [self._tap(name, places, known) for name in self.names]

    def _tap(self, name: str, places: dict[str, str], known: dict[str, nn.Module]) -> Any:
        if name == POOLED:
            head = classifier_of(self._module)
            assert head is not None, "seen to by stage_shapes"

            def entered(_head: nn.Module, inputs: tuple[Any, ...]) -> None:
                if self.active:
                    self._found[name] = inputs[0].flatten(1)

            return head.register_forward_pre_hook(entered)

        place = places[name.removesuffix(PREACT)]
        last = _LastActivation(known[place], lambda: self.active) if name.endswith(PREACT) else None
        self._lasts += [] if last is None else [last]

        def left(_stage: nn.Module, _inputs: Any, output: Any) -> None:
            if not self.active:
                return
            feature = output if last is None else last.entered(output, proves=self._proves)
            if feature is not None:
                self._found[name] = self._as_map(feature)

        return known[place].register_forward_hook(left)

    def _as_map(self, output: Any) -> Tensor:
        """``(B, C, H, W)``, whatever the network's own layout; tokens that are no square of patches stay tokens."""
        x: Tensor = output[0] if isinstance(output, tuple | list) else output
        if x.ndim == 4 and getattr(self._module, "output_fmt", "NCHW") == "NHWC":
            return x.permute(0, 3, 1, 2)
        if x.ndim == 3:
            x = x[:, int(getattr(self._module, "num_prefix_tokens", 0)) :]
            side = math.isqrt(x.shape[1])
            return x.transpose(1, 2).unflatten(2, (side, side)) if side**2 == x.shape[1] else x
        return x

    def take(self) -> tuple[Tensor, ...]:
        """The features of the last pass, in the order of ``names``; they are kept no longer.

        Raises:
            KeyError: A stage ends in no activation, and what enters that was asked for.
        """
        found = self.taken()
        return tuple(found[name] for name in self.names)

    def taken(self) -> dict[str, Tensor]:
        """The same by name, without those of stages that end in no activation."""
        found, self._found = self._found, {}
        return {name: found[name] for name in self.names if name in found}

    def remove(self) -> None:
        """Leave the network as it was."""
        for each in (*self._handles, *self._lasts):
            each.remove()


class _LastActivation:
    """What entered the activation whose answer is a stage's own.

    Activations mostly work in place: their input is copied before.

    Args:
        is_watched: Whether a pass is one whose features are kept.
    """

    def __init__(self, stage: nn.Module, is_watched: Callable[[], bool]) -> None:
        self._is_watched = is_watched
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._handles = {each: self._watch(each) for each in stage.modules() if _is_activation(each)}

    def _watch(self, activation: nn.Module) -> tuple[Any, Any]:
        in_place = bool(getattr(activation, "inplace", False))

        def enters(_activation: nn.Module, inputs: tuple[Any, ...]) -> None:
            if self._is_watched():
                self._input = inputs[0].clone() if in_place else inputs[0]

        def leaves(_activation: nn.Module, _inputs: Any, output: Any) -> None:
            if self._is_watched():
                self._output = output

        return activation.register_forward_pre_hook(enters), activation.register_forward_hook(leaves)

    def entered(self, output: Any, *, proves: bool) -> Tensor | None:
        """What entered the last activation; None where it is to be proven and ``output`` is not that one's answer."""
        found = self._input if output is self._output or not proves else None
        self._input = self._output = None
        return found

    def remove(self) -> None:
        for handles in self._handles.values():
            for each in handles:
                each.remove()


def _is_activation(module: nn.Module) -> bool:
    """Whether a module is a function of each number by itself, torch's or timm's."""
    home = type(module).__module__
    return home in ("torch.nn.modules.activation", "timm.layers.activations") and not any(module.children())


class Tapped(nn.Module):
    """A network that answers ``(logits, *features)``; it owns no parameters but the network's.

    Passes of the network itself, as in validation, keep nothing.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self._taps = Taps(network, names)
        self._taps.active = False

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._taps.active = True
        logits = self.network(x)
        self._taps.active = False
        return (logits, *self._taps.take())


def stage_shapes(spec: ModelSpec, num_classes: int, *, preact: bool = False) -> dict[str, tuple[int, ...]]:
    """Each stage that ``spec``'s network has, with the shape of its features without the batch; nothing is computed.

    Args:
        preact: Those that end in an activation under a second name, too: for what enters it.

    Raises:
        UsageError: No such network, or options that do not go together.
    """
    try:
        return _shapes(meta_model(spec, num_classes), spec.input_size, device="meta", preact=preact)
    except (NotImplementedError, RuntimeError):  # an operation without a meta kernel, or one that reads values
        module = build_model(without_weights(spec), num_classes=num_classes).eval()
        return _shapes(module, spec.input_size, device="cpu", preact=preact)


def _shapes(module: nn.Module, side: int, *, device: str, preact: bool) -> dict[str, tuple[int, ...]]:
    stages = [*stage_modules(module)]
    names = [each for name in stages for each in ((name, name + PREACT) if preact else (name,))]
    names += [POOLED] if classifier_of(module) is not None else []
    taps = Taps(module, names, proves=True)
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, side, side, device=device))
        return {name: tuple(found.shape[1:]) for name, found in taps.taken().items()}
    finally:
        taps.remove()
