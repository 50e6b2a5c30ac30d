"""Training input: images from files, arrays or data sets, as batches whose order can be restored.

    data = Data(name="photos/", resolution=64, flip=True)
    source = open_source(data)                       # len(source), source.shape, source[0]["image"]
    batches = make_batches(source, data, batch_size=128, seed=0)
    batch = next(batches)                            # {"image": (128, 64, 64, 3) in [-1, 1], ...}
    batches.restore(state)                           # a batches.state() of before

Nothing here touches a device. With `workers` above 0, a script needs the usual
`if __name__ == "__main__":`, since processes are spawned.
"""

from ddpm_jax.training.data.batches import Batches as Batches
from ddpm_jax.training.data.batches import make_batches as make_batches
from ddpm_jax.training.data.decoding import UnreadableImage as UnreadableImage
from ddpm_jax.training.data.held_out import HeldOut as HeldOut
from ddpm_jax.training.data.held_out import held_out_batches as held_out_batches
from ddpm_jax.training.data.held_out import held_out_indices as held_out_indices
from ddpm_jax.training.data.held_out import training_indices as training_indices
from ddpm_jax.training.data.loading import Batch as Batch
from ddpm_jax.training.data.opening import open_source as open_source
from ddpm_jax.training.data.settings import Data as Data
from ddpm_jax.training.data.source import Reader as Reader
from ddpm_jax.training.data.source import Source as Source

__all__ = [
    # settings and images
    "Data", "Source", "Reader", "UnreadableImage", "open_source",
    # batches
    "Batch", "Batches", "make_batches", "HeldOut", "held_out_batches",
    "training_indices", "held_out_indices",
]  # fmt: skip
