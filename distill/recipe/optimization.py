"""How a recipe names an optimiser and a learning-rate schedule. Names and options are torch's own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill.recipe.base import Fraction, Monitor, NonNegative, Positive, PositiveInt, Spec

__all__ = ["Group", "Lookahead", "OptimSpec", "ScheduleSpec"]

Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]
Betas = tuple[Momentum, Momentum]


class Lookahead(Spec):
    """Lookahead around any optimiser (arXiv:1907.08610)."""

    k: PositiveInt = Field(5, description="fast steps between two slow ones")
    alpha: Fraction = Field(0.5, description="how far the slow weights move towards the fast ones")
    alpha_end: Fraction | None = Field(
        None, description="what alpha goes to by the end, with the cube of the run's progress; null: it stays"
    )

    @model_validator(mode="after")
    def _slow_weights_move(self) -> Lookahead:
        if self.alpha == 0 and not self.alpha_end:
            raise ValueError("alpha 0 takes back whatever is learned: every k steps the weights are those of the start")
        return self


class Group(Spec):
    """Parameters that learn at another rate than the rest."""

    of: Literal["norm_bias", "norm", "bias"] = Field(
        description="norm_bias: biases of norms; norm: all of theirs; bias: biases of all layers"
    )
    lr_scale: Positive = Field(description="their learning rate, in multiples of what it would be")


class _Optimizer(Spec):
    lr: Positive = Field(description="base learning rate")
    weight_decay: NonNegative = 0.0
    decay_norm_and_bias: bool = Field(True, description="false: no weight decay on norms' weights and on biases")
    backbone_lr_scale: Fraction = Field(1.0, description="learning rate of all but the classifier, as a share of lr")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="each earlier stage of the backbone learns this much slower than the next"
    )
    groups: tuple[Group, ...] = Field((), description="the first that fits a parameter counts")
    decoupled_decay: bool = Field(
        False,
        description="true: weight_decay is what a step takes of the weights, whatever their learning rate; sgd's "
        "momentum makes it 1 / (1 - momentum) times as much",
    )
    lookahead: Lookahead | None = None

    @model_validator(mode="after")
    def _decay_can_be_decoupled(self) -> _Optimizer:
        name = getattr(self, "name", None)
        if self.decoupled_decay and name not in ("sgd", "adamw"):
            raise ValueError(f"decoupled_decay is for sgd and adamw; {name} scales the decay with the gradients")
        return self


class SGD(_Optimizer):
    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4


class _AdamLike(_Optimizer):
    name: str
    lr: Positive = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8


class Adam(_AdamLike):
    name: Literal["adam"]


class AdamW(_AdamLike):
    name: Literal["adamw"]
    weight_decay: NonNegative = 1e-2


class RAdam(_AdamLike):
    name: Literal["radam"]


class NAdam(_AdamLike):
    name: Literal["nadam"]
    lr: Positive = 2e-3


class Adamax(_AdamLike):
    name: Literal["adamax"]
    lr: Positive = 2e-3


class Adadelta(_Optimizer):
    name: Literal["adadelta"]
    lr: Positive = 1.0
    rho: Fraction = 0.9
    eps: Positive = 1e-6


class Adagrad(_Optimizer):
    name: Literal["adagrad"]
    lr: Positive = 1e-2
    lr_decay: NonNegative = 0.0
    eps: Positive = 1e-10


class RMSprop(_Optimizer):
    name: Literal["rmsprop"]
    lr: Positive = 1e-2
    alpha: Fraction = 0.99
    momentum: Fraction = 0.0
    eps: Positive = 1e-8


OptimSpec = Annotated[
    SGD | Adam | AdamW | RAdam | NAdam | Adamax | Adadelta | Adagrad | RMSprop, Field(discriminator="name")
]


class _Schedule(Spec):
    def stretched(self, factor: float) -> Self:
        """For a run of ``factor`` times the epochs: what is counted in epochs becomes as many times as long."""
        return self


class _Warmup(_Schedule):
    warmup_epochs: NonNegative = Field(0.0, description="linear rise from zero; longer than the run is shortened to it")

    def stretched(self, factor: float) -> Self:
        return self.model_copy(update={"warmup_epochs": round(self.warmup_epochs * factor, 3)})


class Constant(_Warmup):
    kind: Literal["constant"] = "constant"


class MultiStep(_Warmup):
    kind: Literal["multistep"]
    milestones: tuple[PositiveInt, ...] = Field(
        min_length=1, description="epochs after which lr is multiplied by gamma"
    )
    gamma: Positive = 0.1

    def stretched(self, factor: float) -> Self:
        milestones = tuple(max(1, round(each * factor)) for each in self.milestones)
        return super().stretched(factor).model_copy(update={"milestones": milestones})


class Exponential(_Warmup):
    kind: Literal["exponential"]
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.95, description="factor an epoch")

    def stretched(self, factor: float) -> Self:
        return super().stretched(factor).model_copy(update={"gamma": max(self.gamma ** (1 / factor), 1e-6)})


class Cosine(_Warmup):
    kind: Literal["cosine"]
    min_lr: NonNegative = 0.0


class WarmRestarts(_Warmup):
    """Cosine annealing with warm restarts (SGDR, arXiv:1608.03983)."""

    kind: Literal["warm_restarts"]
    first_cycle_epochs: PositiveInt = 10
    cycle_factor: PositiveInt = Field(2, description="each cycle is this many times as long as the one before")
    min_lr: NonNegative = 0.0

    def stretched(self, factor: float) -> Self:
        cycle = max(1, round(self.first_cycle_epochs * factor))
        return super().stretched(factor).model_copy(update={"first_cycle_epochs": cycle})


class OneCycle(_Schedule):
    """One cycle (arXiv:1708.07120): optim.lr is the peak."""

    kind: Literal["one_cycle"]
    warmup_fraction: Fraction = 0.3
    initial_divisor: Positive = 25.0
    final_divisor: Positive = 1e4
    cycle_momentum: bool = Field(
        False, description="true: momentum, or Adam's first beta, goes from max_momentum to base_momentum and back"
    )
    base_momentum: Momentum = Field(0.85, description="at the peak of the learning rate, where cycle_momentum is on")
    max_momentum: Momentum = Field(0.95, description="at both ends, where cycle_momentum is on")

    @model_validator(mode="after")
    def _momentum_has_a_range(self) -> OneCycle:
        if self.base_momentum > self.max_momentum:
            raise ValueError(f"base_momentum {self.base_momentum:g} is above max_momentum {self.max_momentum:g}")
        return self


class Triangular(_Schedule):
    """A linear rise to optim.lr and a linear fall, one value a step."""

    kind: Literal["triangular"]
    start: Fraction = Field(0.2, description="share of optim.lr at the first step")
    peak: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.23, description="share of the run at which lr is reached")
    end: Fraction = Field(0.07, description="share of optim.lr at the last step")


class Plateau(_Warmup):
    kind: Literal["plateau"]
    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    patience: PositiveInt = Field(10, description="epochs without improvement before lr is multiplied by factor")
    min_lr: NonNegative = 0.0

    def stretched(self, factor: float) -> Self:
        patience = max(1, round(self.patience * factor))
        return super().stretched(factor).model_copy(update={"patience": patience})


ScheduleSpec = Annotated[
    Constant | MultiStep | Exponential | Cosine | WarmRestarts | OneCycle | Triangular | Plateau,
    Field(discriminator="kind"),
]
