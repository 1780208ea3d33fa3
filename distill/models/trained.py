"""From a run folder back to the network it trained."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from types import MethodType

import torch
from torch import Tensor, nn

from distill.devices import DTYPES, PrecisionName, autocast, channels_last, keep_freed_memory, resolve_precision
from distill.errors import RunError
from distill.fingerprint import state_sha256
from distill.models import Normalize, build_model, build_normalize, without_weights
from distill.models.build import initial_seed
from distill.models.fixed_batch import ask
from distill.models.own_answers import require_own_answers
from distill.models.stage_names import classifier_of
from distill.recipe import Recipe
from distill.recipe.model_specs import PythonModel
from distill.runs import RunFolder
from distill.runs.checkpoints import Checkpoint, best_checkpoint, load_checkpoint
from distill.team.watch import beat

__all__ = ["Trained", "asked_precision", "classify_in_full", "load_trained", "shipped_checkpoint"]


@dataclass(frozen=True)
class Trained:
    """A trained network, frozen, in eval mode, with what it expects of its input.

    Attributes:
        run: The run folder it came from.
        sha256: Of its weights and buffers.
        precision: ``fp32``, ``bf16`` or ``fp16``: what its forward pass runs in on its device.
    """

    run: RunFolder
    recipe: Recipe
    module: nn.Module
    normalize: Normalize
    classes: tuple[str, ...]
    sha256: str
    device: torch.device
    precision: PrecisionName

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits ``(B, C)`` float32 of pixels ``(B, 3, S, S)``, uint8 or float in 0..255."""
        beat()
        return self.network(self.normalize(pixels).contiguous(memory_format=torch.channels_last)).float()

    def logits(self, pixels: Tensor) -> Tensor:
        """The same in one fixed batch size: an image's answer does not depend on its neighbours."""
        return ask(self, pixels.to(self.device))

    @property
    def place(self) -> str:
        """The run's folder."""
        return str(self.run.path)

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.recipe.name

    @property
    def image_size(self) -> int:
        """Side of the pixels it takes."""
        return self.recipe.data.side

    @property
    def runtime(self) -> str:
        """``torch fp32``, ``torch bf16`` or ``torch fp16``."""
        return f"torch {self.precision}"

    def to_time(self) -> nn.Module:
        """The network as a program would ship it, for inputs that are normalised already: what is timed.

        On a GPU its weights are in its precision already: autocast would cast them anew at each call.
        """
        if self.device.type != "cuda" or self.precision == "fp32":
            return self.network
        side = self.normalize.input_size
        try:
            cast = _Cast(deepcopy(self.module), DTYPES[self.precision])
            with torch.inference_mode():
                cast(torch.zeros(1, 3, side, side, device=self.device))
        except Exception:  # it cannot be copied, or has float32 numbers of its own, which autocast brings along
            return self.network
        return cast

    @property
    def network(self) -> nn.Module:
        """The network alone, in its precision, for inputs that are normalised already."""
        return self.module if self.precision == "fp32" else _Autocast(self.module, self.device, self.precision)


class _Cast(nn.Module):
    """A network whose weights are in another dtype, those of its classifier in float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self._dtype = module.to(dtype), dtype
        if (head := classifier_of(self.module)) is not None:
            head.float()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.module(inputs.to(self._dtype))
        return logits


class _Autocast(nn.Module):
    def __init__(self, module: nn.Module, device: torch.device, precision: PrecisionName) -> None:
        super().__init__()
        self.module, self._device, self._precision = module, device, precision

    def forward(self, inputs: Tensor) -> Tensor:
        with autocast(self._device, self._precision):
            return self.module(inputs)


def shipped_checkpoint(run: RunFolder) -> Checkpoint:
    """The checkpoint a run ships: its best epoch by validation, its last where nothing was validated.

    Raises:
        RunError: There is none, or it is damaged.
    """
    return load_checkpoint(best_checkpoint(run.checkpoints))


def load_trained(run: RunFolder, *, device: torch.device, precision: str = "auto") -> Trained:
    """Load the best checkpoint of a run (the last one where nothing was validated).

    Args:
        precision: Which it answers in; see :func:`asked_precision`.

    Raises:
        RunError: The folder has no whole checkpoint, or it does not fit the recipe beside it; or a network of the
            user's own answers otherwise than when it was trained.
    """
    keep_freed_memory(device)
    recipe = run.recipe()
    checkpoint = shipped_checkpoint(run)
    classes = run.classes
    # The weights come from the checkpoint: a pretrained download is not repeated.
    spec = without_weights(recipe.model)
    module = build_model(spec, num_classes=len(classes), seed=initial_seed(recipe))
    try:
        module.load_state_dict(checkpoint.model_state)
    except RuntimeError as error:
        raise RunError(
            f"{checkpoint.path}: the weights do not fit the recipe beside them",
            hint=f"was {run.path / 'recipe.yaml'} edited? ({str(error).splitlines()[-1].strip()})",
        ) from error
    module.eval().requires_grad_(False)
    if isinstance(spec, PythonModel):
        require_own_answers(run, module, spec)
    answered = asked_precision(recipe, device, precision)
    if answered != "fp32":
        classify_in_full(module)
    normalize = build_normalize(spec, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Trained(
        run=run,
        recipe=recipe,
        module=channels_last(module.to(device)),
        normalize=normalize,
        classes=classes,
        sha256=state_sha256(checkpoint.model_state),
        device=device,
        precision=answered,
    )


def classify_in_full(module: nn.Module) -> None:
    """Have the classifier answer in float32 whatever the rest runs in: of two close logits in bf16 many are equal.

    It is a thousandth of the work.
    """
    head = classifier_of(module)
    if head is not None:  # a method, and not a function: a copy of the network has its own classifier
        head.forward = MethodType(_outside_autocast, head)


def _outside_autocast(head: nn.Module, features: Tensor) -> Tensor:
    # the meta device, on which layers are counted, has no autocast to leave
    with nullcontext() if features.is_meta else torch.autocast(features.device.type, enabled=False):
        logits: Tensor = type(head).forward(head, features.float())
    return logits


def asked_precision(recipe: Recipe, device: torch.device, wanted: str = "auto") -> PrecisionName:
    """The precision a trained network answers in.

    Args:
        recipe: Its own.
        wanted: ``auto``: on a GPU what it was trained in, where the device has that; on a CPU fp32.

    Raises:
        UsageError: fp16 on a CPU.
    """
    if wanted != "auto":
        return resolve_precision(wanted, device, key="teacher.precision").name
    recorded = recipe.train.precision if device.type == "cuda" else "auto"
    resolved = resolve_precision(recorded, device)
    return resolved.name if resolved.warning is None else resolve_precision("auto", device).name
