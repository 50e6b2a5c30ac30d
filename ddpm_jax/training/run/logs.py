"""A run's records: one JSON object a line, the same numbers for TensorBoard, and the loss curve."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddpm_jax.hub.files import replacing

LOG_NAME = "log.jsonl"
CURVE_NAME = "curve.png"
TENSORBOARD = "tensorboard"


class Log:
    """Writes `log.jsonl` and TensorBoard's files; a context manager.

    Args:
        folder: of the run.
        step: that the run goes on from; what a killed run logged after it is removed.

    Raises:
        OSError: from any method: the disk is full.
    """

    def __init__(self, folder: Path, step: int = 0):
        from tensorboardX import SummaryWriter

        self.path = folder / LOG_NAME
        kept = [line for line in read_log(folder) if line["step"] <= step]
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", buffering=1)  # a killed run loses no line
        # TensorBoard hides what is in older files from purge_step on. The suffix keeps the files of
        # two runs apart that begin within a second.
        self._board = SummaryWriter(
            str(folder / TENSORBOARD), purge_step=step + 1, filename_suffix=f".{step}"
        )

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._board.close()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line, and one point on each of TensorBoard's curves."""
        # JSON has no NaN: such a number is kept as text.
        line = {name: v if np.isfinite(v) else str(v) for name, v in numbers.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        self._flush()

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """An image for TensorBoard."""
        self._board.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._flush()

    def _flush(self) -> None:
        # A full disk ends tensorboardX's thread, and its queue of ten would block the eleventh
        # event for ever; flushing from here raises OSError before that.
        self._board.flush()


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log, without a last line that was cut off."""
    path = folder / LOG_NAME
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def draw_curve(folder: Path) -> Path:
    """Draws a run's `curve.png`: loss and held-out loss by update, the loss's axis logarithmic."""
    from matplotlib.figure import Figure

    lines = list(read_log(folder))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, style in (("loss", "-"), ("held_out_loss", "o-")):
        points = [(x["step"], x[name]) for x in lines if isinstance(x.get(name), float)]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), markersize=3)
    axes.set(xlabel="update", ylabel="loss", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    if axes.lines:  # a run may stop before its first line
        axes.legend()
    path = folder / CURVE_NAME
    figure.savefig(path, dpi=120)
    return path
