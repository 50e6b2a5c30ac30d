"""A run's records: one JSON object a line, the same numbers for TensorBoard, and the loss curve."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddpm_jax.training.data.needs import missing

LOG_NAME = "log.jsonl"
CURVE_NAME = "curve.png"
TENSORBOARD = "tensorboard"


class Log:
    """Writes `log.jsonl` and TensorBoard's files; a context manager.

    Args:
        folder: of the run.
        step: that the run goes on from; what an earlier, killed run logged after it is removed.
    """

    def __init__(self, folder: Path, step: int = 0):
        self.path = folder / LOG_NAME
        kept = [line for line in read_log(folder) if line["step"] <= step]
        beside = self.path.with_suffix(".partial")
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(beside, self.path)
        self._file = self.path.open("a", buffering=1)  # a killed run loses no line
        self._board = Board(folder / TENSORBOARD, step)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._board.close()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One line, and one point on each of TensorBoard's curves."""
        # JSON knows no NaN: such a number is kept as text.
        line = {name: v if np.isfinite(v) else str(v) for name, v in numbers.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._board.write(step, numbers)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A picture for TensorBoard."""
        self._board.picture(step, name, picture)


class Board:
    """TensorBoard's file. tensorboardX would write it from a thread, and when that dies of a full
    disk, wait for it for ever; here it is written at once, and raises OSError.
    """

    def __init__(self, folder: Path, step: int):
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto import event_pb2
        except ImportError as error:
            raise missing("tensorboardX", "a training log") from error
        folder.mkdir(exist_ok=True)
        self._make: Any = event_pb2  # its classes are made as it is imported
        self._summary = summary
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{step}")
        start = self._make.SessionLog(status=self._make.SessionLog.START)
        self._add(step + 1, session_log=start)  # hides what an earlier, killed run wrote after it

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """A point on each curve."""
        for name, value in numbers.items():
            self._add(step, summary=self._summary.scalar(name, value))
        self._writer.flush()

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A picture of a step."""
        pixels = np.asarray(picture.convert("RGB"))
        self._add(step, summary=self._summary.image(name, pixels, dataformats="HWC"))
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()

    def _add(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._make.Event(wall_time=time.time(), step=step, **what))


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log; a last line that was cut off is left out."""
    path = folder / LOG_NAME
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def draw_curve(folder: Path) -> Path:
    """Draws a run's `curve.png`: loss and held-out loss by update, the loss's axis logarithmic.

    Raises:
        ImportError: there is no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib", "a loss curve") from error
    lines = list(read_log(folder))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, style in (("loss", "-"), ("held_out_loss", "o-")):
        points = [(x["step"], x[name]) for x in lines if isinstance(x.get(name), float)]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name.replace("_", " "), markersize=3)
    axes.set(xlabel="update", ylabel="loss", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    if axes.lines:  # a run may be stopped before its first line
        axes.legend()
    path = folder / CURVE_NAME
    figure.savefig(path, dpi=120)
    return path
