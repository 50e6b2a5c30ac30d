"""What the training input is: one frozen config, every field of which is a command-line option."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ddpm_jax.training.group import Group

Crop: TypeAlias = Literal["centre", "random", "none"]
"""Which part of a resized picture is kept; see `Data.crop`."""


@dataclass(frozen=True, kw_only=True)
class Data(Group):
    """The pictures of a training run and what is done to them.

    Raises ValueError naming every field that is out of its range.
    """

    name: str = "digits"
    """"digits" (scikit-learn's 1,797 grey 8x8 digits), "emoji" (rendered from a colour font), a
    folder of PNG, JPEG or WebP files (searched with its subfolders), a .npy or .npz file, a folder
    saved by Hugging Face datasets, or the id of a dataset on the hub. Write ./digits for a folder
    of that name. Arrays are (N, H, W) or (N, H, W, C): uint8 0..255, uint16 0..65535, or floats
    in [0, 1]; an .npz file holds them under "image", "images", "x" or "arr_0"."""

    split: str | None = None
    """Split of a Hugging Face dataset. By default "train", or the only one."""

    subset: str | None = None
    """Configuration of a dataset on the hub that has several."""

    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""

    image_column: str | None = None
    """Column of a Hugging Face dataset, or name of an array in an .npz file, with the pictures.
    By default the only one of its kind, or the one with a usual name."""

    label_column: str | None = None
    """The same for the class labels; "label", "labels" or "y" in an .npz file."""

    resolution: int | None = None
    """Pixels of the shorter side, to which each picture is resized (bilinear, antialiased), and
    of both sides after a crop. By default the pictures stay as they are, and must have one size.
    """

    channels: int | None = None
    """1 (grey), 3 (RGB) or 4 (RGBA) for pictures, which are converted: alpha is dropped, not
    blended. Arrays must have as many. By default as found: RGB where some pictures are grey;
    where some have alpha and others not, a number must be given."""

    crop: Crop = "centre"
    """Which square of a resized picture is kept: "centre", "random" (another one each time), or
    "none", for which all pictures must have one shape after resizing."""

    flip: bool = False
    """Mirror each picture left to right with probability 1/2, anew each time."""

    labels: bool = False
    """Give class labels too: from the data, or from the names of a folder's subfolders."""

    held_out: float = 0.0
    """Pictures kept from training for the held-out loss: a fraction below 1, or a whole number.
    The same ones for every seed."""

    max_corrupt: int = 0
    """How many pictures may turn out unreadable in a run. Each is named in a warning and another
    picture takes its place; one more is an error."""

    workers: int = 0
    """Processes that read pictures. 0: threads of this process. The batches are the same bits."""

    def _faults(self) -> Iterator[str]:
        yield from self._at_least(resolution=1, channels=1, max_corrupt=0, workers=0)
        yield from self._at_most(resolution=2**14, workers=1000)
        if not self.name:
            yield "name must not be empty"
        if self.crop == "random" and self.resolution is None:
            yield "crop='random' needs a resolution, the side of the square to keep"
        if not _is_share(self.held_out):
            yield (
                "held_out must be a fraction in [0, 1) or a whole number of pictures, "
                f"got {self.held_out!r}"
            )
        if self.label_column is not None and not self.labels:
            yield "label_column is given, but labels are not asked for: set labels too"


def _is_share(value: float) -> bool:
    return 0 <= value < 1 or (value >= 1 and float(value).is_integer())
