"""One distillation step in distill and in other frameworks, measured in turn.

``python -m benchmarks.peers [--json] [--pair resnet56-resnet20|resnet152-r18_small] [--data DIR]``
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported: idle contestants must not spin
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import sys
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.augment import environment
from benchmarks.peers.contestant import serve
from benchmarks.peers.document import build_document, ratios, render
from benchmarks.peers.picture import draw_comparison
from benchmarks.peers.setting import PAIRS, Setting
from benchmarks.peers.turns import NAMES, take_turns
from distill.devices import resolve_precision


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    defaults = Setting()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument(
        "--pair", choices=PAIRS, default=defaults.pair, help="teacher and student (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=defaults.images, help="images a round (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="images a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="measured rounds (default: %(default)s)")
    parser.add_argument(
        "--workers",
        type=int,
        default=defaults.workers,
        help="processes of each peer's DataLoader (default: %(default)s)",
    )
    parser.add_argument("--data", help="folder with cifar-10-batches-py (default: synthetic images of that shape)")
    parser.add_argument("--device", default=defaults.device, help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--peers-channels-last", action="store_true", help="give the peers the memory layout that distill picks"
    )
    parser.add_argument(
        "--peers-every-switch",
        action="store_true",
        help="the second table: the peers have the memory layout and bf16, and distill's precision is auto, too",
    )
    parser.add_argument(
        "--asked-in",
        choices=("fp32", "bf16"),
        default=defaults.asked_in,
        help="what distill's teacher answers in on a CPU (default: %(default)s, whose answers are exact)",
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of: {'; '.join(NAMES)}")
    parser.add_argument("--out", type=Path, help="folder for peers-PAIR.json and .svg (default: none is written)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table, or one JSON document."""
    options = vars(parse(arguments))
    as_json, only, out = (options.pop(name) for name in ("json", "only", "out"))
    if options.pop("peers_every_switch"):
        if resolve_precision("bf16", torch.device(options["device"])).warning is not None:
            sys.exit("--peers-every-switch: this CPU emulates bf16, which would handicap the peers")
        options |= {"peers_channels_last": True, "peers_bf16": True}
    setting = Setting(**options)
    names = [name for name in NAMES if only is None or name in only or name == "distill"]
    torch.set_num_threads(1)
    document = build_document(setting, take_turns(setting, names, serve), environment())
    for name, why in document["missing"].items():
        print(f"{name} is left out: {why}; install it with the extra 'bench'", file=sys.stderr)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        name = f"peers-{setting.pair}" + ("-every-switch" if setting.peers_bf16 else "")
        name += "-asked-in-bf16" if setting.asked_in == "bf16" else ""
        (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        draw_comparison(document, out / f"{name}.svg")
    if as_json:
        print(json.dumps(document))
    else:
        Console().print(render(document))
        print(ratios(document))
        print(json.dumps({"bank": document["bank"]}), file=sys.stderr)


if __name__ == "__main__":
    main()
