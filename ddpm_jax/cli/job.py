"""What a run of `sample` makes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ddpm_jax.cli.image_files import Each

if TYPE_CHECKING:
    from ddpm_jax.cli.drawing import Drawing


class Job(NamedTuple):
    """A run of `sample`, before any weights are read.

    Attributes:
        total: number of images.
        settings: all that determines their pixels, but their index, as text by name.
        each: settings of single images.
        drawing: reads the weights, for the number of images that this process makes.
        channels: of the images.
        classes: of image i, classes[i % len(classes)]; empty for models without classes.
    """

    total: int
    settings: dict[str, str]
    each: Each
    drawing: "Callable[[int], Drawing]"
    channels: int = 3
    classes: tuple[int, ...] = ()
