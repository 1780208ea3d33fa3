"""Bring images to a device ahead of time: gathered by a thread, copied beside the computation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["HostImages", "in_background", "prefetch_chunks"]

Item = TypeVar("Item")

_DEPTH = 2  # batches that wait; more would hide no more, and hold memory


class HostImages(Protocol):
    """Images on the host, by row."""

    shape: tuple[int, ...]
    """Of one image."""

    def rows(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        """The images at ``index``, in ``out`` where that is given."""
        ...


def prefetch_chunks(images: HostImages, requests: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The images at each index, on the device, in order.

    The thread ends when the iterator is exhausted or closed; its errors are raised here.
    """
    if device.type == "cuda":
        yield from _prefetch_cuda(images, requests, device)
    else:
        yield from in_background(images.rows(index).to(device) for index in requests)


def in_background(items: Iterable[Item], *, depth: int = _DEPTH) -> Iterator[Item]:
    """The same items, made by a thread that runs up to ``depth`` of them ahead."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, _put_unless(ready, stop)), daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stop.set()
        thread.join()


def _produce(items: Iterable[Item], put: Callable[[str, object], bool]) -> None:
    try:
        for item in items:
            if not put("item", item):
                return
        put("end", None)
    except BaseException as error:  # raised again by the consumer
        put("error", error)


def _put_unless(ready: queue.Queue[tuple[str, Any]], stop: threading.Event) -> Callable[[str, object], bool]:
    """Puts into ``ready`` until ``stop`` is set; says whether it could."""

    def put(kind: str, value: object) -> bool:
        while not stop.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    return put


def _prefetch_cuda(images: HostImages, requests: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    stream = torch.cuda.Stream(device)

    def copied() -> Iterator[tuple[Tensor, torch.cuda.Event]]:
        for index in requests:
            with torch.cuda.stream(stream):  # and its device, which is not this thread's by itself
                pinned = torch.empty((len(index), *images.shape), dtype=torch.uint8, pin_memory=True)
                images.rows(index, out=pinned)
                chunk = pinned.to(device, non_blocking=True)
                arrived = stream.record_event()
            yield chunk, arrived

    for chunk, arrived in in_background(copied()):
        current = torch.cuda.current_stream(device)
        current.wait_event(arrived)
        chunk.record_stream(current)  # else its memory might be used again before the batch is made
        yield chunk
