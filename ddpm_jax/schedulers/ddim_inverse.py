r"""DDIM walked up, from images to noise (Song et al. 2021, arXiv:2010.02502, section 4.3).

From a level (alpha, sigma) to the next one up, (alpha', sigma'), with the output at x and at the
timestep of the level above:

    (1)  x <- alpha' x0 + sigma' eps

x0 and eps are read at the level of x. For a network that predicts eps this is the table of DDIM
turned around by `ddpm_jax.inverted`; for v, which is read at the upper level there, it is not.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ddpm_jax.schedulers.ascending import Ascending
from ddpm_jax.schedulers.betas import SpacedTimesteps
from ddpm_jax.schedulers.fields import AlphaToOne, Clipping, ZeroTerminalSNR
from ddpm_jax.tables.builder import Level
from ddpm_jax.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class DDIMInverseScheduler(Ascending, Clipping, ZeroTerminalSNR, AlphaToOne, SpacedTimesteps):
    """DDIM from images to noise; deterministic. N steps take N evaluations.

    A run begins where DDIM's ends, and ends at the noisiest timestep of its grid. Runs that are
    walked down again should not clip: set clip_sample to False in both.

    Attributes:
        set_alpha_to_one: begin at the data (alpha 1), which takes a prediction_type other than
            "sample"; otherwise at the level of timestep 0.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    def _faults(self) -> list[str]:
        faults = list(super()._faults())
        if self.set_alpha_to_one and self.prediction_type == "sample":
            faults.append(
                'prediction_type "sample" says nothing of eps at the data, where a run begins with '
                "set_alpha_to_one: set that to False"
            )
        return faults

    def _write(self, levels: list[Level], dtype: Any) -> Table:
        build = self._builder("x")
        for i, (level, above) in enumerate(pairwise(levels)):
            told = above.timestep
            if level == above and i > 0:  # "quadratic" repeats timesteps
                build.row(told, *level[1:])
                continue
            x = {"x0": above.alpha, "eps": above.sigma}  # (1)
            build.row(told, *level[1:], x=x)
        return build.build(self._prior_scale(levels[0]), dtype)
