"""One step, from the positions of its images to the weights it leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from distill.data.batches import Batch, Epoch, RawBatch, micro_batch_count
from distill.devices import channels_last, compile_module, force_contiguous_inputs, uncompiled
from distill.errors import UsageError
from distill.models import Normalize, head_parameters, stages
from distill.models.taps import Tapped
from distill.objectives import LossParts, NetworkOutput
from distill.recipe import Recipe
from distill.team.shares import Distributed
from distill.train.auxiliary import AuxiliaryModule, clip_gradients
from distill.train.ema import build_ema
from distill.train.epoch_sums import Tally
from distill.train.fake_quantize import fake_quantize
from distill.train.optim import build_optimizer, set_lookahead, sync_lookahead
from distill.train.schedule import build_schedule
from distill.train.sync import synchronized

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Learner", "StepOutput", "TrainingObjective", "step_loss"]

_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")  # modes in which a step's outputs lie where the next one's will


class TrainingObjective(Protocol):
    """An objective that knows whom to ask: the loop never asks whether there is a teacher."""

    @property
    def features(self) -> tuple[str, ...]:
        """The stages of the network whose features it wants to see."""
        ...

    @property
    def auxiliary(self) -> nn.Module | None:
        """What it learns or remembers besides the network: trained, saved, never shipped."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Weights may depend on how many epochs are done."""
        ...

    def __call__(self, student: NetworkOutput, batch: Batch) -> LossParts:
        """The loss of a batch."""
        ...


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass gave.

    Shapes:
        logits: ``(B, C)``; gradient flows, as it does from ``result.loss``.
        labels: ``(B,)`` int64.
    """

    result: LossParts
    logits: Tensor
    labels: Tensor


def step_loss(
    model: Callable[[Tensor], Any], normalize: Normalize, objective: TrainingObjective, epoch: Epoch, picked: RawBatch
) -> StepOutput:
    """From positions to a loss: pixels are gathered and augmented, student and teacher asked, the loss worked out.

    Tensors in, tensors out; where images and a bank's logits lie on the device, nothing here waits for it, so that all
    of it can be compiled or captured as one.
    """
    batch = epoch.show(picked)
    output = model(normalize(batch.images))
    if not objective.features:
        return StepOutput(objective(NetworkOutput(output), batch), output, batch.labels)
    logits, *found = output
    features = dict(zip(objective.features, found, strict=True))
    return StepOutput(objective(NetworkOutput(logits, features), batch), logits, batch.labels)


class Learner:
    """The network that learns, and all that changes it: optimiser, schedule, average of its weights.

    Attributes:
        raw: The network itself; ``shipped`` is what is validated and saved of it.
    """

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        *,
        normalize: Normalize,
        objective: TrainingObjective,
        fabric: Fabric,
        steps_per_epoch: int,
    ) -> None:
        self.train, self._lookahead = recipe.train, recipe.optim.lookahead
        self._steps, self._steps_per_epoch = recipe.train.epochs * steps_per_epoch, steps_per_epoch
        self._epoch_is_eager = False
        self.normalize = normalize
        self._objective = objective
        self._fabric, self._team = fabric, Distributed(fabric)
        module = self._placed(module)
        self.raw = module
        self.head = head_parameters(module)
        self._learns = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        if not (self._learns & self.head if self.train.freeze_backbone_epochs else self._learns):
            raise UsageError(
                "nothing is left to train: the network's own code keeps "
                f"{'its classifier' if self._learns else 'all of it'} from learning",
                hint="requires_grad of its parameters says what learns; see train.freeze_backbone_epochs, too",
            )
        self.auxiliary = (
            AuxiliaryModule(objective.auxiliary, self._team, device=fabric.device)
            if objective.auxiliary is not None
            else None
        )
        optimizer = build_optimizer(
            module,
            recipe.optim,
            more=() if self.auxiliary is None else self.auxiliary.parameters,
            head=self.head,
            stages=stages(module) if recipe.optim.layer_decay != 1.0 else (),  # some networks have none
            device=fabric.device,
            fused=_may_be_fused(recipe),
        )
        self.ema = build_ema(module, self.train.ema)
        if objective.features:
            module = Tapped(module, objective.features)
        if self.train.compile is not False:
            mode = "default" if self.train.compile is True else self.train.compile
            compile_module(module, fabric.device, mode=mode)
        self._model, self._optimizer = fabric.setup(module, optimizer)
        self.schedule = build_schedule(
            recipe.schedule, self._optimizer.optimizer, epochs=self.train.epochs, steps_per_epoch=steps_per_epoch
        )

    def _placed(self, module: nn.Module) -> nn.Module:
        module = module.to(self._fabric.device)
        if self.train.sync_batchnorm and self._team.world_size > 1:
            module = synchronized(module)
        if self.train.channels_last is True:
            module = channels_last(module)
        force_contiguous_inputs(module, self._fabric.device)
        if self.train.fake_quantize is not None:
            fake_quantize(module, bits=self.train.fake_quantize)
        return module

    @property
    def shipped(self) -> nn.Module:
        """The network whose weights are validated and saved: the average's, where one is kept."""
        return self.raw if self.ema is None else self.ema.module

    def buffers(self) -> list[Tensor]:
        """Batch norm's statistics and the like, of the network, of its objective and of its average."""
        auxiliary = () if self.auxiliary is None else self.auxiliary.module.buffers()
        return [*self.raw.buffers(), *auxiliary, *(() if self.ema is None else self.ema.module.buffers())]

    def eagerly(self, eager: bool = True) -> AbstractContextManager[None]:
        """A context in which the network runs as it is written, where it was compiled.

        Compiling takes minutes for a large network, and each shape of batch and each mode is compiled anew: only steps
        of whole batches on a network that learns as a whole are. Validation, the last batch of an epoch, and the
        fewer epochs with a frozen backbone are not.
        """
        return uncompiled() if eager and self.train.compile is not False else nullcontext()

    def _forward(self, *, whole: int) -> Callable[[Tensor], Any]:
        """The network, as a step of ``whole`` images runs it."""
        is_short = whole < self.train.batch_size and self._steps_per_epoch > 1  # the only step of an epoch is its usual

        def forward(images: Tensor) -> Any:
            with self.eagerly(is_short or self._epoch_is_eager):
                return self._model(images)

        return forward

    def set_mode(self, epoch: int) -> None:
        """Train mode; while the backbone is frozen, its batch norm keeps its statistics too.

        What a network's own code keeps from learning (``requires_grad``) never learns.
        """
        self._objective.begin_epoch(epoch)
        frozen = epoch < self.train.freeze_backbone_epochs
        self._epoch_is_eager = frozen and 2 * self.train.freeze_backbone_epochs <= self.train.epochs
        self._model.train()
        for name, parameter in self.raw.named_parameters():
            parameter.requires_grad_(name in self._learns and (not frozen or name in self.head))
        if frozen:
            for name, module in self.raw.named_modules():
                names = {f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)}
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and not names & self.head:
                    module.eval()

    def step(self, epoch: Epoch, picked: RawBatch, *, whole: int, tally: Tally, number: int) -> None:
        """Learn from one batch, in ``train.accumulate`` pieces.

        Args:
            picked: This process's share of it.
            whole: Images of the batch over all processes.
            number: The step's, within its epoch, from 0.
        """
        share = picked.size * self._team.world_size / whole  # ranks may differ by one image
        count = micro_batch_count(self.train.accumulate, whole=whole, world_size=self._team.world_size)
        micro_batches, forward = picked.micro_batches(count), self._forward(whole=whole)
        if self.train.compile in _CUDA_GRAPHS and self._fabric.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        for at, piece in enumerate(micro_batches):
            with self._fabric.no_backward_sync(self._model, enabled=at < len(micro_batches) - 1):
                output = step_loss(forward, self.normalize, self._objective, epoch, piece)
                tally.add(output.result, output.logits, output.labels, step=number)
                self._fabric.backward(output.result.loss * (share * piece.size / picked.size))
        if self.auxiliary is not None:
            self.auxiliary.average_gradients()
        self._clip()
        set_lookahead(self._optimizer.optimizer, self._lookahead, (self.schedule.steps + 1) / self._steps)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.schedule.step_done()
        if self.ema is not None:
            self.ema.update_parameters(self.raw)

    def end_epoch(self) -> None:
        """Before validation: what is validated and saved is what the optimiser means."""
        sync_lookahead(self._optimizer.optimizer)

    def _clip(self) -> None:
        if self.train.clip_value is None and self.train.clip_norm is None:
            return
        # not by Fabric's, which takes all that the optimiser learns together: the objective's own weights too
        self._fabric.strategy.precision.unscale_gradients(self._optimizer.optimizer)
        clip_gradients(list(self.raw.parameters()), self.train)
        if self.auxiliary is not None:
            self.auxiliary.clip(self.train)

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on besides the shipped weights."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "raw": None if self.ema is None else self.raw.state_dict(),
            "own": None if self.auxiliary is None else self.auxiliary.module.state_dict(),
            "ema_updates": None if self.ema is None else int(self.ema.n_averaged),
            "scaler": self._fabric.strategy.precision.state_dict() or None,
        }

    def load_state_dict(self, shipped: dict[str, Tensor], state: dict[str, Any], *, epoch: int, step: int) -> None:
        """Take up the shipped weights, and what :meth:`state_dict` kept beside them.

        Args:
            epoch: Whole epochs that are done, and ``step`` steps of the next: with another number of processes an epoch
                may have another number of steps.
        """
        self.shipped.load_state_dict(shipped)
        if self.ema is not None:
            self.raw.load_state_dict(state["raw"])
            self.ema.n_averaged.fill_(state["ema_updates"])
        if self.auxiliary is not None:
            self.auxiliary.module.load_state_dict(state["own"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.schedule.go_to(epoch * self._steps_per_epoch + step)
        if state["scaler"]:
            self._fabric.strategy.precision.load_state_dict(state["scaler"])


def _may_be_fused(recipe: Recipe) -> bool:
    """Whether torch's one-kernel step is right for a recipe.

    It takes a gradient scaler's factor out by itself, so that what it scales cannot be clipped before; and SGD's fails
    where some weights of a group have a momentum and others, which were frozen until now, have none yet.
    """
    train = recipe.train
    clips = train.clip_norm is not None or train.clip_value is not None
    unfreezes = recipe.optim.name == "sgd" and 0 < train.freeze_backbone_epochs < train.epochs
    return not (train.precision == "fp16" and clips) and not unfreezes
