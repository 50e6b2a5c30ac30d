r"""Sampling with latent consistency models (Luo et al. 2023, arXiv:2310.04378).

The network's reading f(x, t) is the data at the end of the path through x:

    (1)  f(x, t) = c_skip(t) x + c_out(t) x0                           [section 4.1]
    (2)  c_skip(t) = d^2 / (s^2 + d^2),   c_out(t) = s / sqrt(s^2 + d^2),
         s = timestep_scaling t,   d = 0.5

so one evaluation goes all the way. Further ones go back to a level (alpha', sigma') below and
repeat it [multistep sampling]:

    (3)  x <- alpha' f(x, t) + sigma' z

The last step adds no noise: it ends at f.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from typing import Any, ClassVar

from ddpm_jax.schedulers.distilled import Distilled
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table

SIGMA_DATA = 0.5


@dataclass(frozen=True, kw_only=True)
class LCMScheduler(Distilled):
    """Consistency sampling of distilled networks, in one step or several; stochastic.

    Attributes:
        timestep_spacing: not read.
        steps_offset: not read.

    A field that is not read keeps what a config of another scheduler has in it; given directly, a
    value other than the default is refused.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    order: ClassVar[int] = 0
    stochastic: ClassVar[bool] = True

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build, last = self._builder("x"), len(levels) - 2
        for i, (level, end) in enumerate(pairwise(levels)):
            skip, out = boundary(level.timestep * self.timestep_scaling)
            noise = "z" if i < last else "eps"  # a run that ends above the data stays at its level
            x = {"x": end.alpha * skip, "x0": end.alpha * out, noise: end.sigma}  # (1), (3)
            build.row(*level, x=x)
        return build.build(self._prior_scale(levels[0]), dtype, stochastic=True)


def boundary(scaled: float) -> tuple[float, float]:
    """c_skip and c_out of (2), at a scaled timestep."""
    norm = hypot(scaled, SIGMA_DATA)
    return (SIGMA_DATA / norm) ** 2, scaled / norm
