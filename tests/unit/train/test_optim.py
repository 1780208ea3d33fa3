"""Optimisers by torch's names, and a learning rate for each depth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.models import head_parameters, stages
from distill.recipe.optimization import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Group,
    Lookahead,
    NAdam,
    RAdam,
    RMSprop,
)
from distill.train.optim import OPTIMIZERS, build_optimizer, parameter_groups, set_lookahead

CPU = torch.device("cpu")
SPECS = [
    SGD(),
    SGD(momentum=0.0),
    Adam(name="adam"),
    AdamW(name="adamw"),
    RAdam(name="radam"),
    NAdam(name="nadam"),
    Adamax(name="adamax"),
    Adadelta(name="adadelta"),
    Adagrad(name="adagrad"),
    RMSprop(name="rmsprop"),
    SGD(lookahead=Lookahead(k=2, alpha=0.5)),
]


def _module() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


STAGES = [("0.",), ("1.",), ("2.",)]
HEAD = {"2.weight", "2.bias"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_optimizer_takes_a_step_that_lowers_the_loss(spec) -> None:
    torch.manual_seed(0)
    module = _module()
    optimizer = build_optimizer(module, spec, head=HEAD, stages=STAGES, device=CPU)
    inputs, labels = torch.randn(16, 2), torch.randint(0, 2, (16,))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_all_names_are_covered() -> None:
    assert {spec.name for spec in SPECS} == set(OPTIMIZERS)


def test_each_stage_learns_slower_than_the_next_and_the_head_at_full_rate() -> None:
    module = _module()
    spec = SGD(lr=1.0, layer_decay=0.5, backbone_lr_scale=0.1)
    groups = parameter_groups(module, spec, head=HEAD, stages=STAGES)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in module.named_parameters()}
    assert by_name["0.weight"] == pytest.approx(0.1 * 0.25)
    assert by_name["1.weight"] == pytest.approx(0.1 * 0.5)
    assert by_name["2.weight"] == 1.0


def test_vectors_can_be_spared_weight_decay() -> None:
    module = _module()
    groups = parameter_groups(module, SGD(weight_decay=0.1, decay_norm_and_bias=False), head=HEAD, stages=STAGES)
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}


def test_lookahead_goes_half_way_every_second_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    module = nn.ParameterList([weight])
    spec = SGD(lr=0.1, momentum=0.0, weight_decay=0.0, lookahead=Lookahead(k=2, alpha=0.5))
    optimizer = build_optimizer(module, spec, head=set(), stages=[("0",)], device=CPU)
    seen = []
    for _ in range(4):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        seen.append(round(weight.item(), 6))
    # timm's slow weights start where the first two steps end, at 0.8; then half way from there to 0.6
    assert seen == [0.9, 0.8, 0.7, 0.7]


def test_without_layer_decay_no_stages_are_needed() -> None:
    """Some networks have none to tell apart."""
    groups = parameter_groups(_module(), SGD(lr=1.0, backbone_lr_scale=0.1), head=HEAD, stages=())
    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.1, 4), (1.0, 2)]


def test_groups_learn_at_their_own_rate_and_the_first_that_fits_counts() -> None:
    spec = SGD(lr=0.1, groups=(Group(of="norm_bias", lr_scale=8.0), Group(of="bias", lr_scale=2.0)))
    module = _module()
    groups = parameter_groups(module, spec, head=HEAD, stages=())
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    by_name = {name: rates[id(parameter)] for name, parameter in module.named_parameters()}
    assert by_name == pytest.approx(
        {"0.weight": 0.1, "0.bias": 0.2, "1.weight": 0.1, "1.bias": 0.8, "2.weight": 0.1, "2.bias": 0.2}
    )


def test_a_decoupled_decay_leaves_alone_what_stands_still() -> None:
    """A backbone that does not learn at all; the classifier loses 1% a step."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    spec = SGD(lr=0.1, momentum=0.0, weight_decay=0.01, decoupled_decay=True, backbone_lr_scale=0.0)
    optimizer = build_optimizer(module, spec, head={"1.weight", "1.bias"}, stages=(), device=CPU)
    for parameter in module.parameters():
        parameter.data.fill_(2.0)
        parameter.grad = torch.ones_like(parameter) if parameter is module[0].weight else torch.zeros_like(parameter)
    optimizer.step()
    assert [parameter.unique().item() for parameter in module.parameters()] == pytest.approx([2.0, 2.0, 1.98, 1.98])


@pytest.mark.parametrize("spared", [True, False])
def test_an_objectives_own_norms_and_biases_decay_as_the_networks_do(spared: bool) -> None:
    spec = SGD(lr=0.1, weight_decay=0.01, decay_norm_and_bias=not spared)
    own = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    optimizer = build_optimizer(nn.Linear(2, 2), spec, head=set(), stages=(), device=CPU, more=list(own.parameters()))
    decay = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    rest = 0.0 if spared else 0.01
    assert [decay[id(each)] for each in own.parameters()] == [0.01, rest, rest, rest]


def test_a_decoupled_decay_takes_its_share_whatever_the_rate() -> None:
    module = nn.BatchNorm1d(1)
    spec = SGD(
        lr=0.1, momentum=0.0, weight_decay=0.01, decoupled_decay=True, groups=(Group(of="norm_bias", lr_scale=50.0),)
    )
    optimizer = build_optimizer(module, spec, head=set(), stages=(), device=CPU)
    with torch.no_grad():
        module.bias.fill_(2.0)
        module.weight.fill_(2.0)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert [module.weight.item(), module.bias.item()] == pytest.approx([1.98, 1.98])  # 1% each, at rates 0.1 and 5


def test_lookaheads_alpha_moves_with_the_cube_of_progress() -> None:
    lookahead = Lookahead(k=1, alpha=1.0, alpha_end=0.2)
    optimizer = build_optimizer(_module(), SGD(lookahead=lookahead), head=HEAD, stages=(), device=CPU)
    for progress, alpha in ((0.0, 1.0), (0.5, 0.9), (1.0, 0.2)):
        set_lookahead(optimizer, lookahead, progress)
        assert [group["lookahead_alpha"] for group in optimizer.param_groups] == [pytest.approx(alpha)]
    set_lookahead(optimizer, Lookahead(alpha=0.5), 1.0)
    assert optimizer.param_groups[0]["lookahead_alpha"] == pytest.approx(0.2)  # constant alphas are left alone


class _Alike(nn.Module):
    """A parameter whose name another layer's begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(3))
        self.body, self.cls_mix, self.fc = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)


def test_a_layer_learns_at_the_rate_of_its_own_depth_whatever_its_name_begins_with() -> None:
    module = _Alike()
    groups = parameter_groups(module, SGD(lr=0.8, layer_decay=0.5), head=head_parameters(module), stages=stages(module))
    rates = {id(each): group["lr"] for group in groups for each in group["params"]}
    found = [rates[id(each)] for each in (module.cls, module.body.bias, module.cls_mix.bias, module.fc.bias)]
    assert found == [0.1, 0.2, 0.4, 0.8]
