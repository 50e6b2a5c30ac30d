"""Our side: the network alone, the compiled loop, and the pipeline with and without its bar."""

import time
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

import ddpm_jax as dj
from benchmarks.models import SCHEDULER, STEPS
from benchmarks.worker import peak_resident
from ddpm_jax.sampling.segments import Network


class JaxUNet:
    """A network in our library: what the runners of all tasks share."""

    def __init__(
        self, folder: str, config: dict[str, Any], precision: str, device: str, batch: int
    ):
        if jax.default_backend() != device:
            raise ValueError(f"jax sees no {device}: its backend is {jax.default_backend()}")
        self.folder, self.config, self.precision = Path(folder), config, precision
        self.batch = batch

    def prepare(self) -> int:
        model = dj.UNet2DModel.from_config(self.config)
        params = drawn(model.shapes(), np.random.default_rng(0))
        model.save_pretrained(self.folder / "unet", params)
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def versions(self) -> dict[str, Any]:
        return {
            "jax": jax.__version__,
            "flax": flax.__version__,
            "numpy": np.__version__,
            "ddpm_jax": dj.__version__,
            "device": jax.devices()[0].device_kind,
        }

    def memory(self) -> dict[str, int]:
        stats = jax.devices()[0].memory_stats() or {}
        found = {"process": peak_resident()}
        return found | ({"device": stats["peak_bytes_in_use"]} if stats else {})


class JaxRunner(JaxUNet):
    """See `benchmarks.worker.Runner`. Weights are stored in the precision of the computation."""

    def load(self) -> dict[str, Any]:
        model, params = dj.UNet2DModel.from_pretrained(
            self.folder / "unet",
            dtype=jnp.dtype(self.precision),
            param_dtype=jnp.dtype(self.precision),
        )
        scheduler = dj.DDIMScheduler(**SCHEDULER)
        self.denoise = Network(model)
        self.network = jax.jit(self.denoise)
        self.params = {"unet": params}
        self.host_table = scheduler.table(STEPS)
        self.table = jax.device_put(dj.pad(self.host_table))
        self.x_T = jnp.asarray(np.load(self.folder / "x_T.npy"))
        self.pipe = dj.DDIMPipeline(unet=model, params=params, scheduler=scheduler)
        jax.block_until_ready((self.params, self.table, self.x_T))
        return self.versions()

    def outputs(self, evaluations: int, path: str) -> None:
        timestep = self.host_table.row(0).timestep
        output = self.network(self.params, self.x_T, timestep)
        np.savez(path, output=output, sample=self._loop(evaluations))

    def first(self) -> float:
        return self.run("loop", 1) - self.run("loop", 1)

    def run(self, loop: str, evaluations: int) -> float:
        took = {
            "network": self._network,
            "loop": self._loop,
            "pipeline": lambda n: self._pipeline(n, False),
            "pipeline and bar": lambda n: self._pipeline(n, True),
        }[loop]
        began = time.perf_counter()
        jax.block_until_ready(took(evaluations))
        return time.perf_counter() - began

    def _network(self, evaluations: int) -> jax.Array:
        """Each output is the next input, so that evaluations wait for one another as in a loop."""
        x, timestep = self.x_T, self.host_table.row(0).timestep
        for _ in range(evaluations):
            x = self.network(self.params, x, timestep)
        return x

    def _loop(self, evaluations: int) -> jax.Array:
        start = self.table.init(self.x_T)
        return dj.advance(self.denoise, self.params, self.table, start, None, 0, evaluations)[0]

    def _pipeline(self, evaluations: int, progress: bool) -> jax.Array:
        output = self.pipe(
            jax.random.key(0),
            batch_size=self.batch,
            num_inference_steps=evaluations,
            output_type="jax",
            progress=progress,
        )
        return output.images


def drawn(shapes: Any, rng: np.random.Generator) -> Any:
    """Weights on the host, N(0, 1 / fan_in): `init_params` would compile for a while."""

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray[Any, Any]:
        fan_in = np.prod(shape.shape[:-1])  # 1 for biases and the scales of norms
        return rng.standard_normal(shape.shape, np.float32) / np.float32(np.sqrt(fan_in))

    return jax.tree.map(draw, shapes)
