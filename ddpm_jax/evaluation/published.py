"""The published outputs of public checkpoints: was a network read as its authors meant it?

diffusers' `scripts/generate_logits.py` has, for each of some repositories on the hub, the network's
output for

    x = torch.randn(1, C, S, S) after torch.manual_seed(0),   timestep = 10:

the first 30 values of its first row and channel, which a correct network meets within 1e-3. Only
networks that `UNet2DModel` has are listed. Weights of the right shapes that are read with another
config, such as another attention_head_dim, load without an error and miss these values.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ddpm_jax.hub.files import listed
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.inputs import image_shape
from ddpm_jax.sampling.torch_noise import torch_noise

SEED, TIMESTEP, TOLERANCE = 0, 10, 1e-3

OUTPUTS: dict[str, Float[np.ndarray, "n"]] = {
    name: np.array(values.split(), float)
    for name, values in {
        "CompVis/ldm-celebahq-256": """
            -0.6531 -0.6891 -0.3172 -0.5375 -0.9140 -0.5367 -0.1175 -0.7869 -0.3808 -0.4513
            -0.2098 -0.0083 0.3183 0.5140 0.2247 -0.1304 -0.1302 -0.2802 -0.2084 -0.2025 -0.4967
            -0.4873 -0.0861 0.6925 0.0250 0.1290 -0.1543 0.6316 1.0460 1.4943
        """,
        "google/ddpm-bedroom-256": """
            -2.3139 -2.5594 -0.0197 -0.6785 1.7001 1.1606 0.3075 -2.1740 1.8071 -2.5630 -0.0926
            -0.3811 1.2116 2.6246 1.2731 -0.5398 -2.8153 -3.6140 2.3893 1.3262 1.6258 -2.1856
            -1.3267 2.8395 2.3779 -1.0623 -1.2468 0.8959 3.3367 3.2243
        """,
        "google/ddpm-cat-256": """
            -1.4572 -2.0481 -0.0414 -0.6005 1.4136 0.5848 0.4028 -2.7330 1.2212 -2.1228 0.2155
            0.4039 0.7662 2.0535 0.7477 -0.3243 -2.1758 -2.7648 1.6947 0.7026 1.2338 -1.6078
            -0.8682 2.2810 1.8574 -0.5718 -0.5586 -0.0186 2.3415 2.1251
        """,
        "google/ddpm-celebahq-256": """
            -1.3690 -1.9720 -0.4090 -0.6966 1.4660 0.9938 -0.1385 -2.7324 0.7736 -1.8917 0.2923
            0.4293 0.1693 1.4112 1.1887 -0.3181 -2.2160 -2.6381 1.3170 0.8163 0.9240 -1.6544
            -0.6099 2.5259 1.6430 -0.9090 -0.9392 -0.0126 2.4268 2.3266
        """,
        "google/ddpm-church-256": """
            -2.0585 -2.7897 -0.2850 -0.8940 1.9052 0.5702 0.6345 -3.8959 1.5932 -3.2319 0.1974
            0.0287 1.7566 2.6543 0.8387 -0.5351 -3.2736 -4.3375 2.9029 1.6390 1.4640 -2.1701
            -1.9013 2.9341 3.4981 -0.6255 -1.1644 -0.1591 3.7097 3.2066
        """,
        "google/ddpm-cifar10-32": """
            -0.7515 -1.6883 0.2420 0.0300 0.6347 1.3433 -1.1743 -3.7467 1.2342 -2.2485 0.4636
            0.8076 -0.7991 0.3969 0.8498 0.9189 -1.8887 -3.3522 0.7639 0.2040 0.6271 -2.7148
            -1.6316 3.0839 0.3186 0.2721 -0.9759 -1.2461 2.6257 1.3557
        """,
        "google/ddpm-ema-bedroom-256": """
            -2.3639 -2.5344 0.0054 -0.6674 1.5990 1.0158 0.3124 -2.1436 1.8795 -2.5429 -0.1566
            -0.3973 1.2490 2.6447 1.2283 -0.5208 -2.8154 -3.5119 2.3838 1.2033 1.7201 -2.1256
            -1.4576 2.7948 2.4204 -0.9752 -1.2546 0.8027 3.2758 3.1365
        """,
        "google/ddpm-ema-cat-256": """
            -1.4574 -2.0569 -0.0473 -0.6117 1.4018 0.5769 0.4129 -2.7344 1.2241 -2.1397 0.2000
            0.3937 0.7616 2.0453 0.7324 -0.3391 -2.1746 -2.7744 1.6963 0.6921 1.2187 -1.6172
            -0.8877 2.2439 1.8471 -0.5839 -0.5605 -0.0464 2.3250 2.1219
        """,
        "google/ddpm-ema-celebahq-256": """
            -1.3525 -1.9628 -0.3956 -0.6860 1.4664 1.0014 -0.1259 -2.7212 0.7772 -1.8811 0.2996
            0.4388 0.1704 1.4029 1.1701 -0.3027 -2.2053 -2.6287 1.3350 0.8131 0.9274 -1.6292
            -0.6098 2.5131 1.6505 -0.8958 -0.9298 -0.0151 2.4257 2.3355
        """,
        "google/ddpm-ema-church-256": """
            -2.0628 -2.7667 -0.2089 -0.8263 2.0539 0.5992 0.6495 -3.8336 1.6025 -3.2817 0.1721
            -0.0633 1.7516 2.7039 0.8100 -0.5908 -3.2113 -4.4343 2.9257 1.3632 1.5562 -2.1489
            -1.9894 3.0560 3.3396 -0.7328 -1.0417 0.0383 3.7093 3.2343
        """,
    }.items()
}
"""By repository."""


class Comparison(NamedTuple):
    """A network's output beside the published one.

    Attributes:
        ours: the values.
        published: the same, with 4 decimals.
    """

    ours: Float[np.ndarray, "n"]
    published: Float[np.ndarray, "n"]

    @property
    def difference(self) -> float:
        """The largest, absolute."""
        return float(np.abs(self.ours - self.published).max())

    @property
    def agree(self) -> bool:
        """Whether all values are within `TOLERANCE`; NaN never is."""
        return self.difference <= TOLERANCE


def compare(model: UNet2DModel, params: Any, name: str) -> Comparison:
    """Evaluates a network once, and compares.

    Args:
        model: the network.
        params: its params.
        name: the repository whose output it must have, a key of `OUTPUTS`.

    Raises:
        ValueError: nothing is published for this name, or the network's images are too small.
    """
    if name not in OUTPUTS:
        raise ValueError(f"no output of {name} is published; there is one of {listed(OUTPUTS)}")
    published, shape = OUTPUTS[name], image_shape(model)
    if shape[1] < len(published):
        raise ValueError(
            f"{name} has images at least {len(published)} wide, but this network's are {shape[1]}"
        )
    x = torch_noise(SEED, (1, *shape))
    output = jax.jit(model.apply)({"params": params}, x, TIMESTEP)
    ours = np.asarray(output, float)[0, 0, : len(published), 0]
    return Comparison(ours, published)
