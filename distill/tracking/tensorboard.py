"""TensorBoard: event files in the run's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.tracking.story import RunEnd, RunStart, table

__all__ = ["TensorBoard"]


class TensorBoard:
    """Scalars by epoch, recipe and result as text, plots as images, below ``tensorboard/`` of the run folder."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._epoch = 0

    def start(self, run: RunStart) -> str:
        """Open the event file; epochs that will be told again are purged."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.epoch + 1 if run.epoch else None)
        self._epoch = run.epoch
        self._writer.add_text("recipe", f"```yaml\n{run.recipe}\n```")
        return folder.name

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """One scalar a metric."""
        self._epoch = epoch
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self, ending: RunEnd) -> None:
        """The table, the pictures, and no more."""
        if ending.result:
            self._writer.add_text("result", table(ending.result), self._epoch)
        for picture in ending.pictures:
            self._writer.add_image(f"plots/{picture.stem}", _pixels(picture), self._epoch, dataformats="HWC")
        self._writer.close()


def _pixels(picture: Any) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))
