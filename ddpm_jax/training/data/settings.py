"""The settings of the training input. Each field is an option of the command line, too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ddpm_jax.training.group import Group

Crop: TypeAlias = Literal["center", "random", "none", "centre"]
"""Which part of a resized image is kept; see `Data.crop`."""


@dataclass(frozen=True, kw_only=True)
class Data(Group):
    """The images of a training run and what is done to them.

    Raises ValueError naming every field that is out of its range.
    """

    name: str = "digits"
    """"digits" (scikit-learn's 1,797 grey 8x8 digits), a folder of image files (searched with its
    subfolders), a .npy or .npz file, a .parquet file or a folder of them, a folder saved by Hugging
    Face datasets, or the id of a dataset on the hub. Write ./digits for a folder of that name.
    Arrays are (N, H, W) or (N, H, W, C): uint8 0..255, uint16 0..65535, or floats in [0, 1]; an
    .npz file holds them under "image", "images", "x" or "arr_0"."""

    split: str | None = None
    """Split of a Hugging Face dataset. By default "train", or the only one."""

    subset: str | None = None
    """Configuration of a dataset on the hub that has several."""

    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""

    image_column: str | None = None
    """Column of a Hugging Face dataset, or name of an array in an .npz file, with the images.
    By default the only one of its kind, or the one with a usual name."""

    label_column: str | None = None
    """The same for the class labels; "label", "labels" or "y" in an .npz file."""

    resolution: int | None = None
    """Pixels of the shorter side, to which each image is resized (bilinear, antialiased), and of
    both sides after a crop. By default images are not resized, and must all have one size."""

    channels: int | None = None
    """1 (grey), 3 (RGB) or 4 (RGBA). Image files are converted: alpha is dropped, not blended.
    Arrays must have this number. By default the number found: RGB if only some images are grey; if
    only some have alpha, a number must be given."""

    crop: Crop = "center"
    """Which square of a resized image is kept: "center", "random" (another one each time), or
    "none", for which all images must have one shape after resizing. "centre" is the same as
    "center"."""

    flip: bool = False
    """Mirror each image left to right with probability 1/2, drawn each time."""

    labels: bool = False
    """Also give class labels: from the data, or from the names of a folder's subfolders."""

    held_out: float = 0.0
    """Images that are not trained on, for the held-out loss: a fraction below 1, or a number of
    images. The same ones for every seed."""

    skip_unreadable: int = 0
    """Leave out up to this many images that cannot be read. They are searched for before training,
    in one pass over all images, and named. 0: no search, and an unreadable image is an error that
    names it."""

    workers: int = 0
    """Processes that read images. 0: threads of this process. The batches are the same bits."""

    def __post_init__(self) -> None:
        if self.crop == "centre":
            object.__setattr__(self, "crop", "center")
        super().__post_init__()

    def _faults(self) -> Iterator[str]:
        yield from self._at_least(resolution=1, channels=1, skip_unreadable=0, workers=0)
        yield from self._at_most(resolution=2**14, workers=1000)
        if not self.name:
            yield "name must not be empty"
        if self.crop == "random" and self.resolution is None:
            yield "crop='random' needs a resolution, the side of the square to keep"
        if not _is_share(self.held_out):
            yield (
                "held_out must be a fraction in [0, 1) or a whole number of images, "
                f"got {self.held_out!r}"
            )
        if self.label_column is not None and not self.labels:
            yield "label_column is given, but labels is not set: set both"


def _is_share(value: float) -> bool:
    return 0 <= value < 1 or (value >= 1 and float(value).is_integer())
