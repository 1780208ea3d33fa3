"""The mean of the weights of runs that began alike (model soups, arXiv:2203.05482), asked about the test set once.

    python -m benchmarks.soup runs/lite2_cifar10/001 runs/lite2_cifar10_cutmix/001

Every run counts as much as another: nothing is chosen, so no images are needed to choose by. The first one's recipe
says how large the images are that it is asked about.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distill.data.splits import load_splits
from distill.errors import DistillError, UsageError
from distill.evaluation.assess import assess_classifier
from distill.models.trained import load_trained
from distill.runs import open_run

__all__ = ["mean_of", "soup"]


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor, worked out in float64; of counters, as batch norm has them, the first network's.

    Raises:
        UsageError: The networks differ.
    """
    shapes = [{name: each.shape for name, each in state.items()} for state in states]
    if any(each != shapes[0] for each in shapes[1:]):
        raise UsageError("these runs are of different networks: their weights have no mean")
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def soup(places: Sequence[str]) -> dict[str, object]:
    """Test top-1 of the mean of these runs' weights."""
    networks = [load_trained(open_run(each), device=torch.device("cpu"), precision="fp32") for each in places]
    first = networks[0]
    first.module.load_state_dict(mean_of([each.module.state_dict() for each in networks]))
    found = assess_classifier(first, load_splits(first.recipe.data), first.recipe.data).result
    names = [each.recipe.name for each in networks]
    return {
        "mean_of_weights": names,
        "test_top1": found.top1,
        "test_nll": found.nll,
        "input_size": first.normalize.input_size,
    }


def main(args: Sequence[str] | None = None) -> int:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soup", description=__doc__.split("\n")[0])
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run folder or a name; the first one's recipe is asked"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    asked = parser.parse_args(args)
    torch.set_num_threads(asked.threads)
    try:
        print(json.dumps(soup(asked.runs)))
    except DistillError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
