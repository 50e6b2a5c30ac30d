"""Training input: pictures from anywhere, as batches whose order can be restored.

    data = Data(name="pictures/", resolution=64, flip=True)
    source = open_source(data)                       # len(source), source.shape, source[0]["image"]
    batches = make_batches(source, data, batch_size=128, seed=0)
    batch = next(batches)                            # {"image": (128, 64, 64, 3) in [-1, 1], ...}
    batches.restore(state)                           # what batches.state() gave

Nothing here touches a device. With `workers` above 0, a script needs the usual
`if __name__ == "__main__":`, since processes are spawned.
"""

from ddpm_jax.training.data.batches import Batches as Batches
from ddpm_jax.training.data.batches import make_batches as make_batches
from ddpm_jax.training.data.corrupt import Corrupt as Corrupt
from ddpm_jax.training.data.corrupt import CorruptPictures as CorruptPictures
from ddpm_jax.training.data.corrupt import CorruptPictureWarning as CorruptPictureWarning
from ddpm_jax.training.data.corrupt import PictureError as PictureError
from ddpm_jax.training.data.held_out import HeldOut as HeldOut
from ddpm_jax.training.data.held_out import held_out_batches as held_out_batches
from ddpm_jax.training.data.opening import open_source as open_source
from ddpm_jax.training.data.rows import Batch as Batch
from ddpm_jax.training.data.settings import Data as Data
from ddpm_jax.training.data.source import Reader as Reader
from ddpm_jax.training.data.source import Source as Source
from ddpm_jax.training.data.split import held_out_indices as held_out_indices
from ddpm_jax.training.data.split import training_indices as training_indices

__all__ = [
    # settings and pictures
    "Data", "Source", "Reader", "open_source",
    # batches
    "Batch", "Batches", "make_batches", "HeldOut", "held_out_batches",
    "training_indices", "held_out_indices",
    # unreadable pictures
    "Corrupt", "CorruptPictures", "CorruptPictureWarning", "PictureError",
]  # fmt: skip
