"""The program of a whole run, which jax.export lowers.

    run(weights, seed=, numbers=[, labels=][, guidance=][, x_T=])
        -> (B, H, W, C) float32 images in [0, 1], as pipelines give them for "np"

- Image b has the key fold_in(key(seed), numbers[b]), as in `ddpm-jax sample --seed`. The seed is a
  number: so a caller needs no key types, and its `jax_default_prng_impl` changes nothing.
- The weights are an argument. As constants they make each platform's program as large as they are
  (the CIFAR-10 network's 143 MB instead of 0.2; the process that exports and runs it takes 1.9 GB
  instead of 0.9), XLA folds them while it compiles, and the images differ from those of `sample`
  in the last bits (by up to 7e-7, digits). Both take as long (2 cores, jax 0.10.2).
- Each platform has a program of its own, because layers choose by it (`models.layers.target`).
- The batch size is a number, or open (symbolic): then each size compiles at its first call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from ddpm_jax.export.file import WEIGHTS
from ddpm_jax.images import PixelRange
from ddpm_jax.models import UNet2DModel
from ddpm_jax.models.layers import target
from ddpm_jax.models.unet_2d.parts import some_labels
from ddpm_jax.pipelines.beginning import first_noise
from ddpm_jax.pipelines.generate import with_conditions
from ddpm_jax.pipelines.inputs import image_shape
from ddpm_jax.sampling.loops import sample
from ddpm_jax.tables.table import Table

PRNG = "threefry2x32"
"""The implementation of the keys: jax's default."""
GUIDED = 2.0
"""Any scale above 1 makes the guided program; the caller's takes its place."""


@dataclass(frozen=True)
class For:
    """`denoise`, traced for a platform: equal only to itself for the same one, so jax does not
    take a trace for another.
    """

    denoise: Callable[..., Array]
    platform: str

    def __call__(
        self, params: Any, x: Float[Array, "b h w c"], timestep: Float[Array, ""]
    ) -> Float[Array, "b h w d"]:
        """The network's output."""
        with target.exported_to(self.platform):
            return self.denoise(params, x, timestep)


@dataclass(frozen=True)
class Run:
    """What the programs compute.

    Attributes:
        model: the network.
        table: its run.
        dtypes: of the weights, by name.
        no_class: what guidance moves away from; None: there is no guidance.
        interval: of the guidance, as timesteps.
        pixels: of the network.
    """

    model: UNet2DModel
    table: Table
    dtypes: Mapping[str, Any]
    no_class: int | None
    interval: Float[np.ndarray, "2"] | None
    pixels: PixelRange

    def program(self, platform: str) -> Callable[..., Array]:
        """The program of a platform, to be exported."""

        def run(
            weights: Mapping[str, Array],
            seed: UInt32[Array, ""],
            numbers: Int[Array, "b"],
            labels: Array | None = None,
            guidance: Float[Array, ""] | None = None,
            x_T: Float[Array, "b h w c"] | None = None,
        ) -> Float[Array, "b h w c"]:
            fold = jax.vmap(jax.random.fold_in, (None, 0))
            keys = fold(jax.random.key(seed, impl=PRNG), numbers)
            begin = first_noise(self.table, keys, image_shape(self.model)) if x_T is None else x_T
            denoise, params = self._denoise(_typed(weights, self.dtypes), labels, guidance)
            denoise = For(denoise, platform)
            samples = sample(denoise, params, self.table, begin, keys)
            return jnp.asarray(self.pixels.to_unit(samples))

        return run

    def _denoise(
        self, params: Any, labels: Array | None, guidance: Array | None
    ) -> tuple[Callable[..., Array], dict[str, Any]]:
        conditions = {} if labels is None else {"context": labels}
        if guidance is None or labels is None or self.no_class is None:
            return with_conditions(self.model, params, conditions)
        conditions["negative"] = jnp.full_like(labels, self.no_class)
        denoise, given = with_conditions(self.model, params, conditions, GUIDED, self.interval)
        return denoise, given | {"scale": guidance}


def inputs_of(model: UNet2DModel, guided: bool, x_T: bool) -> dict[str, dict[str, Any]]:
    """Shape and dtype of each input by name; "b" is the batch size."""
    inputs: dict[str, dict[str, Any]] = {
        "seed": {"shape": [], "dtype": "uint32"},
        "numbers": {"shape": ["b"], "dtype": "int32"},
    }
    if (labels := some_labels(model.config)) is not None:
        inputs["labels"] = {"shape": ["b", *labels.shape[1:]], "dtype": str(labels.dtype)}
    if guided:
        inputs["guidance"] = {"shape": [], "dtype": "float32"}
    if x_T:
        inputs["x_T"] = {"shape": ["b", *image_shape(model)], "dtype": "float32"}
    return inputs


def flat(params: Any) -> dict[str, Any]:
    """The weights by name."""
    return flatten_dict({WEIGHTS[:-1]: params}, sep="/")


def stored(params: Any) -> dict[str, np.ndarray]:
    """The weights on the host, by name; those of a type that NumPy lacks as their bits."""
    host = {name: np.asarray(leaf) for name, leaf in flat(params).items()}
    return {
        name: leaf.view(f"u{leaf.itemsize}") if leaf.dtype.kind == "V" else leaf
        for name, leaf in host.items()
    }


def _typed(weights: Mapping[str, Array], dtypes: Mapping[str, Any]) -> Any:
    """The params of stored weights."""
    typed = {
        name: leaf if leaf.dtype == dtypes[name] else lax.bitcast_convert_type(leaf, dtypes[name])
        for name, leaf in weights.items()
    }
    return unflatten_dict(typed, sep="/")[WEIGHTS[:-1]]
