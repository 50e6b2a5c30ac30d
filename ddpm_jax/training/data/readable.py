"""One pass over all images before training, which leaves out those that cannot be read."""

import warnings

import numpy as np
from tqdm.auto import tqdm

from ddpm_jax.hub.files import listed
from ddpm_jax.training.data.decoding import UnreadableImage
from ddpm_jax.training.data.loading import import_grain
from ddpm_jax.training.data.source import Reader, Selected


def readable(reader: Reader, limit: int) -> Selected:
    """The images that can be read; a warning names the others, at most `limit` of them.

    Raises:
        UnreadableImage: there are more of them, or no others.
    """

    def fault(index: int) -> str:
        try:
            reader.read(index, 3)
        except UnreadableImage as error:
            return f"{reader.name_of(index)}: {error}"
        return ""

    dataset = import_grain().MapDataset.source(range(len(reader))).map(fault).to_iter_dataset()
    faults = list(tqdm(dataset, total=len(reader), desc="reading every image", unit="image"))
    texts = [text for text in faults if text]
    if len(texts) > limit or len(texts) == len(faults):
        allowed = "all there are" if len(texts) <= limit else f"skip_unreadable allows {limit}"
        raise UnreadableImage(f"{len(texts)} images cannot be read, {allowed}:{_lines(texts)}")
    if texts:
        warnings.warn(
            f"{len(texts)} images cannot be read and are left out:{_lines(texts)}", stacklevel=3
        )
    return Selected(reader, np.array([i for i, text in enumerate(faults) if not text]))


def _lines(texts: list[str]) -> str:
    return "\n  " + listed(texts, "\n  ")
