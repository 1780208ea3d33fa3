"""What a machine is, and how an exported file does on it: the one script of a kit, which runs where distill is not.

It imports nothing of distill and, to measure, numpy and onnxruntime alone. A kit holds a copy, called ``measure.py``::

    python measure.py [--threads 1] [--name board] [--out device.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from typing import Any

__all__ = ["IMAGES", "MANIFEST", "P99_LEAST", "REPORT", "cpu_model", "machine", "main", "measure"]

P99_LEAST = 662
"""Timings, at least, for a 99th percentile: of fewer, too few lie beyond it to say where it is."""

MANIFEST, IMAGES, REPORT = "kit.json", "images.npz", "device.json"
_FORMAT = 1
_ROUNDS, _WARM_UP, _MIN_ROUNDS, _BATCHES, _ASKED = 1000, 5, 5, (1, 32), 64

_X86 = (
    "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
_ARM = ("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
_APPLE = {"asimd": "AdvSIMD", "asimddp": "arm.FEAT_DotProd", "i8mm": "arm.FEAT_I8MM", "bf16": "arm.FEAT_BF16"}


# The machine


def cpu_model() -> str:
    """What the processor is called."""
    found = _sysctl("machdep.cpu.brand_string") if sys.platform == "darwin" else cpuinfo("model name")
    return found or platform.processor() or platform.machine() or "CPU"


def instruction_set() -> list[str]:
    """Which vector instructions the processor has, of those that a runtime picks its kernels by; none: not known."""
    if sys.platform == "darwin":
        text = " ".join(_sysctl(name) or "" for name in ("machdep.cpu.features", "machdep.cpu.leaf7_features"))
        flags = set(text.lower().replace(".", "_").replace("avx1_0", "avx").split())
        flags |= {name for name, key in _APPLE.items() if _sysctl(f"hw.optional.{key}") == "1"}
    else:
        flags = set((cpuinfo("flags") or cpuinfo("Features") or "").split())
    return [name for name in _X86 + _ARM if name in flags]


def affinity() -> str | None:
    """The cores that this process may run on, as ``0-3,8``; None where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    ranges: list[list[int]] = []
    for core in sorted(os.sched_getaffinity(0)):
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def machine() -> dict[str, Any]:
    """What milliseconds, and the last bits of logits, depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "instruction_set": instruction_set(),
        "cores": cores or 1,
        "affinity": affinity(),
        "system": " ".join([platform.system(), platform.release(), platform.machine()]),
    }


def cpuinfo(key: str, path: str = "/proc/cpuinfo") -> str | None:
    """What Linux says of the first core; None where it does not."""
    try:
        with open(path, errors="replace") as file:
            entries = [line.partition(":") for line in file]
    except OSError:
        return None
    return next((" ".join(value.split()) for name, _, value in entries if name.strip() == key), None)


def _sysctl(name: str) -> str | None:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() or None


# A file on it


def measure(folder: str, *, threads: int, seconds: float, name: str) -> dict[str, Any]:
    """What ``device.json`` holds: accuracy on the kit's images, latency, and the machine.

    Raises:
        SystemExit: A file of the kit is missing, or is not the one that was packed; a package is not installed; or
            the file answers with no number.
    """
    try:
        import numpy
        import onnxruntime
    except ImportError as error:
        sys.exit(f"error: {error.name} is not installed: {sys.executable} -m pip install numpy onnxruntime")
    kit = _kit(folder)
    with numpy.load(os.path.join(folder, IMAGES), allow_pickle=False) as arrays:
        pixels, labels, expected = arrays["pixels"], arrays["labels"], arrays["answers"]
    path = os.path.join(folder, kit["file"])
    sessions = [_session(path, threads) for _ in range(2)]
    logits = [sessions[0].run(None, {"images": pixels[at : at + _ASKED]})[0] for at in range(0, len(pixels), _ASKED)]
    every = numpy.concatenate(logits)
    if not numpy.isfinite(every).all():
        sys.exit(f"error: {kit['file']} answers with NaN or infinity on this machine")
    answers = every.argmax(1)
    report = {
        "device": _FORMAT,
        "name": name,
        "kit": kit,
        "accuracy": {
            "images": len(labels),
            "right": int((answers == labels).sum()),
            "same_answers": int((answers == expected).sum()),
        },
        "latency": {str(size): _latency(sessions, pixels, size, seconds / len(_BATCHES)) for size in _BATCHES},
        "threads": threads,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {**report, "seal": seal(report)}


def seal(tree: dict[str, Any]) -> str:
    """Hex sha256 of what JSON makes of a document: an edit of it is noticed; it is no signature."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _kit(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            kit: dict[str, Any] = json.load(file)
        digests = {kit["file"]: kit["sha256"], IMAGES: kit["images_sha256"]}
        for name, expected in digests.items():
            with open(os.path.join(folder, name), "rb") as packed:
                if hashlib.sha256(packed.read()).hexdigest() != expected:
                    sys.exit(f"error: {name} is not the file that was packed: make the kit again, or copy it again")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}: the kit is not whole")
    except (ValueError, KeyError, TypeError):
        sys.exit(f"error: {path} is damaged: make the kit again: distill kit FILE.onnx OUT")
    return kit


def _session(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _latency(sessions: list[Any], pixels: Any, size: int, seconds: float) -> dict[str, Any]:
    """The file and the same file once more, in turn: what the two differ by is noise."""
    import numpy

    feed = {"images": numpy.resize(pixels, (size, *pixels.shape[1:]))}
    spent: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(None, feed)
    ends = time.perf_counter() + seconds * len(sessions)
    for turn in range(_ROUNDS):
        if turn >= _MIN_ROUNDS and time.perf_counter() > ends:
            break
        for each in (0, 1) if turn % 2 else (1, 0):
            sessions[each].run(None, feed)  # untimed: brings its weights back into the caches
            start = time.perf_counter()
            sessions[each].run(None, feed)
            spent[each].append(1000.0 * (time.perf_counter() - start))
    medians = [float(numpy.median(times)) for times in spent]
    p99 = float(numpy.percentile(spent[0], 99)) if len(spent[0]) >= P99_LEAST else None
    return {
        "median_ms": medians[0],
        "p90_ms": float(numpy.percentile(spent[0], 90)),
        "p99_ms": p99,
        "n": len(spent[0]),
        "noise": abs(medians[0] - medians[1]) / max(medians[0], 1e-12),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure the kit that this script lies in, print what was found, and write device.json."""
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Measure this kit's file on this machine.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one operation (default: 1)")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for timing (default: 8)")
    parser.add_argument("--name", default="device", help="what tables call this machine (default: device)")
    parser.add_argument("--out", default=os.path.join(here, REPORT), help=f"default: {REPORT} beside it")
    asked = parser.parse_args(arguments)
    if asked.threads < 1 or not 0 < asked.seconds < 3600:
        parser.error("--threads should be 1 or more, --seconds between 0 and an hour")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", asked.name):
        parser.error("--name: at most 40 letters, digits, dots, hyphens and underscores")
    _refuse_to_replace(asked.out)
    report = measure(here, threads=asked.threads, seconds=asked.seconds, name=asked.name)
    try:
        aside = asked.out + ".partial"
        with open(aside, "w", encoding="utf-8") as file:
            file.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
        os.replace(aside, asked.out)
    except OSError as error:
        sys.exit(f"error: {asked.out} cannot be written: {error.strerror}")
    print("\n".join([*_lines(report), f"wrote {asked.out}"]))


def _refuse_to_replace(out: str) -> None:
    """A report may replace a report alone; asked before anything is measured."""
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        sys.exit(f"error: --out {out}: there is no folder {folder}")
    if not os.path.lexists(out):
        return
    try:
        with open(out, encoding="utf-8") as file:
            before = json.load(file)
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict) or not {"device", "seal"} <= before.keys():
        sys.exit(f"error: --out {out} is there, and is no report of a kit: remove it, or name another file")


def _lines(report: dict[str, Any]) -> list[str]:
    found, machine_, kit = report["accuracy"], report["machine"], report["kit"]
    right, count = found["right"], found["images"]
    lines = [
        f"file       {kit['file']} ({kit['runtime']}, onnxruntime {report['versions']['onnxruntime']})",
        f"machine    {machine_['cpu']}, {machine_['cores']} core(s), {report['threads']} thread(s)",
        f"accuracy   {100 * right / count:.2f}%: {right} of {count} images of the test set",
        f"answers    {found['same_answers']} of {count} as where the kit was made",
    ]
    for size, each in report["latency"].items():
        p99 = "" if each["p99_ms"] is None else f", p99 {each['p99_ms']:.3f}"
        times = f"median {each['median_ms']:.3f} ms, p90 {each['p90_ms']:.3f}{p99}"
        lines.append(f"batch {size:<5}{times} (n = {each['n']}, noise {100 * each['noise']:.1f}%)")
    return lines


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
