"""From a recipe's ``optim`` section to a torch optimiser, with a learning rate for each depth of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from distill.models.depth import stage_of
from distill.recipe.optimization import Lookahead, OptimSpec

__all__ = ["OPTIMIZERS", "build_optimizer", "parameter_groups", "set_lookahead", "sync_lookahead"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "nadam": torch.optim.NAdam,
    "adamax": torch.optim.Adamax,
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)
_FUSED_ON_CUDA = ("sgd", "adam", "adamw", "adagrad")
_OURS = {
    "name", "lr", "weight_decay", "decay_norm_and_bias", "backbone_lr_scale", "layer_decay", "lookahead",
    "groups", "decoupled_decay",
}  # fmt: skip


def build_optimizer(
    module: nn.Module,
    spec: OptimSpec,
    *,
    head: Iterable[str],
    stages: Sequence[tuple[str, ...]],
    device: torch.device,
    fused: bool = True,
    more: Sequence[nn.Parameter] = (),
) -> Optimizer:
    """The optimiser over all of ``module``'s parameters.

    Args:
        head: Names of the classifier's parameters: they learn at ``spec.lr``.
        stages: The parameters of each stage in depth order, the classifier last, for ``spec.layer_decay``; without one
            (1.0) they are not read.
        fused: Allow torch's one-kernel step on CUDA. It takes the gradient scaler's factor out by itself, so
            gradients that are scaled cannot be clipped before it.
        more: Parameters beside the network's: they learn at ``spec.lr``, with its weight decay; of vectors and scalars
            as of the network's.
    """
    options = {key: value for key, value in spec.model_dump(exclude=_OURS).items()}
    if fused and device.type == "cuda" and spec.name in _FUSED_ON_CUDA:
        options["fused"] = True
    if spec.name == "sgd" and spec.momentum == 0.0:
        options["nesterov"] = False  # torch refuses Nesterov without momentum; without momentum it has no meaning
    groups = parameter_groups(module, spec, head=head, stages=stages)
    by_decay: dict[float, list[nn.Parameter]] = {}
    for parameter in more:
        by_decay.setdefault(_stated_decay(spec, parameter, spec.lr), []).append(parameter)
    groups += [{"params": params, "lr": spec.lr, "weight_decay": decay} for decay, params in by_decay.items()]
    optimizer = OPTIMIZERS[spec.name](groups, lr=spec.lr, weight_decay=spec.weight_decay, **options)
    if spec.lookahead is None:
        return optimizer
    from distill.train.lookahead import ManyLookahead  # timm takes seconds to import

    return ManyLookahead(optimizer, alpha=spec.lookahead.alpha, k=spec.lookahead.k)


def set_lookahead(optimizer: Optimizer, spec: Lookahead | None, progress: float) -> None:
    """Set Lookahead's alpha for a step, where it changes over the run.

    Args:
        progress: Share of the run's steps that will be done after this one.
    """
    if spec is not None and spec.alpha_end is not None:
        for group in optimizer.param_groups:
            group["lookahead_alpha"] = spec.alpha + (spec.alpha_end - spec.alpha) * progress**3


def sync_lookahead(optimizer: Optimizer) -> None:
    """Bring Lookahead's fast weights home to its slow ones, as at the end of each of its cycles.

    The slow weights are what Lookahead found (arXiv:1907.08610); in mid-cycle the network holds the fast ones. Other
    optimisers have none.
    """
    base = getattr(optimizer, "_base_optimizer", None)
    if base is not None:
        from distill.train.lookahead import pull_to_slow

        # Not timm's sync_lookahead: that one skips parameters without a gradient, and after a step none has any.
        for group in optimizer.param_groups:
            pairs = [(fast, base.state.get(fast, {}).get("lookahead_slow_buff")) for fast in group["params"]]
            found = [(fast, slow) for fast, slow in pairs if slow is not None]  # else no cycle has ended yet
            pull_to_slow([fast for fast, _ in found], [slow for _, slow in found], alpha=group["lookahead_alpha"])


def parameter_groups(
    module: nn.Module, spec: OptimSpec, *, head: Iterable[str], stages: Sequence[tuple[str, ...]]
) -> list[dict[str, object]]:
    """Parameters by learning rate and weight decay, in the module's order.

    A backbone parameter of stage s learns at ``lr * backbone_lr_scale * layer_decay ** (S - s)``, the classifier being
    stage S; ``groups`` multiply that. With ``decay_norm_and_bias: false``, vectors and scalars have no weight decay.
    Optimisers take ``lr * weight_decay`` off the weights: a decoupled decay is divided by the group's rate first, so
    that it follows the schedule alone.
    """
    head_names, kinds = frozenset(head), _kinds(module) if spec.groups else {}
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        scale = 1.0
        if name not in head_names:
            scale = spec.backbone_lr_scale
            if spec.layer_decay != 1.0:
                scale *= spec.layer_decay ** (len(stages) - 1 - stage_of(name, stages))
        own = next((group.lr_scale for group in spec.groups if group.of in kinds[name]), 1.0)
        lr = spec.lr * scale * own
        groups.setdefault((lr, _stated_decay(spec, parameter, lr), own), []).append(parameter)
    return [
        {"params": params, "lr": lr, "weight_decay": decay} | ({} if own == 1.0 else {"lr_scale": own})
        for (lr, decay, own), params in groups.items()
    ]


def _stated_decay(spec: OptimSpec, parameter: nn.Parameter, lr: float) -> float:
    """What torch is told, which takes ``lr`` times that off the weights: nothing where they stand still."""
    decay = spec.weight_decay if parameter.ndim > 1 or spec.decay_norm_and_bias else 0.0
    if not spec.decoupled_decay:
        return decay
    return decay / lr if lr > 0 else 0.0


def _kinds(module: nn.Module) -> dict[str, set[str]]:
    """What each parameter is, in the words of ``optim.groups``."""
    kinds: dict[str, set[str]] = {name: set() for name, _ in module.named_parameters()}
    for place, layer in module.named_modules():
        is_norm = isinstance(layer, _NORMS) or "norm" in type(layer).__name__.lower()
        for own, _ in layer.named_parameters(recurse=False):
            is_bias = own.endswith("bias")
            found = {"norm": is_norm, "bias": is_bias, "norm_bias": is_norm and is_bias}
            name = f"{place}.{own}" if place else own
            if name in kinds:  # a shared parameter has one name here
                kinds[name] |= {kind for kind, fits in found.items() if fits}
    return kinds
