"""Where the arithmetic runs, in which precision, what that machine is called, and which of its kernels are wrong."""

from distill.devices.arithmetic import (
    DTYPES,
    Precision,
    PrecisionName,
    autocast,
    deterministic_kernels,
    fabric_precision,
    fast_kernels,
    resolve_device,
    resolve_precision,
)
from distill.devices.compiler import why_not_compile
from distill.devices.compiling import CompileClock, compile_clock, uncompiled
from distill.devices.hardware import (
    describe_device,
    is_out_of_memory,
    keep_freed_memory,
    library_versions,
    set_threads,
    synchronize,
    threads,
    using_threads,
)
from distill.devices.kernels import (
    WRONG_KERNELS,
    UnsafeLayer,
    WrongKernel,
    compile_module,
    force_contiguous_inputs,
    unsafe_layers,
)
from distill.devices.memory_format import channels_last
from distill.devices.thread_rule import MACS_A_THREAD, threads_at_most, threads_for
from distill.team.cores import usable_cores

__all__ = [
    "DTYPES",
    "MACS_A_THREAD",
    "WRONG_KERNELS",
    "CompileClock",
    "Precision",
    "PrecisionName",
    "UnsafeLayer",
    "WrongKernel",
    "autocast",
    "channels_last",
    "compile_clock",
    "compile_module",
    "describe_device",
    "deterministic_kernels",
    "fabric_precision",
    "fast_kernels",
    "force_contiguous_inputs",
    "is_out_of_memory",
    "keep_freed_memory",
    "library_versions",
    "resolve_device",
    "resolve_precision",
    "set_threads",
    "synchronize",
    "threads",
    "threads_at_most",
    "threads_for",
    "uncompiled",
    "unsafe_layers",
    "usable_cores",
    "using_threads",
    "why_not_compile",
]
