"""In 16 bits the classifier answers in float32, and what is timed has its weights in 16 bits already."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distill.devices import autocast
from distill.evaluation.latency import batch_sizes_on
from distill.models.stage_names import classifier_of
from distill.models.trained import Trained, _Cast, load_trained
from distill.pipeline import RunResult
from distill.runs import RunFolder

CPU = torch.device("cpu")


@pytest.fixture
def trained(teacher_run: RunResult) -> Trained:
    return load_trained(RunFolder(teacher_run.run), device=CPU, precision="bf16")


@pytest.fixture
def images(trained: Trained) -> Tensor:
    side = trained.normalize.input_size
    return torch.randn(32, 3, side, side, generator=torch.Generator().manual_seed(0))


def _features(trained: Trained, images: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the classifier, and the logits."""
    head = classifier_of(trained.module)
    entered: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _head, inputs: entered.append(inputs[0]))
    with torch.no_grad():
        logits = trained.network(images)
    handle.remove()
    return entered[0], logits


def test_the_classifier_answers_in_float32(trained: Trained, images: Tensor) -> None:
    features, logits = _features(trained, images)
    assert features.dtype == torch.bfloat16  # the rest is autocast's
    head = classifier_of(trained.module)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, features.float() @ head.weight.T + head.bias)
    assert not torch.equal(logits, logits.bfloat16().float())  # it has more than bf16 can tell apart


def test_in_float32_nothing_is_changed(teacher_run: RunResult, trained: Trained) -> None:
    plain = load_trained(RunFolder(teacher_run.run), device=CPU, precision="fp32")
    assert "forward" not in vars(classifier_of(plain.module))
    assert plain.module.state_dict().keys() == trained.module.state_dict().keys()
    assert plain.sha256 == trained.sha256


class Casts(TorchDispatchMode):
    """Counts tensors that change their dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ == "_to_copy"
        return func(*args, **(kwargs or {}))


def test_what_is_timed_casts_no_weights_and_answers_the_same(trained: Trained, images: Tensor) -> None:
    cast = _Cast(deepcopy(trained.module), torch.bfloat16)
    with torch.no_grad(), Casts() as ours:
        logits = cast(images)
    with torch.no_grad(), Casts() as autocasts:
        expected = trained.network(images)
    assert ours.count == 2  # images to bf16, features to float32
    assert autocasts.count > 3
    torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.05)
    assert {each.dtype for each in trained.module.parameters()} == {torch.float32}  # the copy's own classifier, too
    assert classifier_of(cast.module).weight.dtype == torch.float32


def test_which_batches_are_timed(trained: Trained) -> None:
    assert (batch_sizes_on(CPU), batch_sizes_on(torch.device("cuda", 0))) == ((1, 32), (1, 32, 256))
    assert type(trained.to_time()) is type(trained.network)  # on a CPU as it is asked


def test_autocast_alone_would_not_tell_close_logits_apart(trained: Trained, images: Tensor) -> None:
    head = classifier_of(trained.module)
    del head.forward
    with torch.no_grad(), autocast(CPU, "bf16"):
        logits = trained.module(images)
    assert logits.dtype == torch.bfloat16
