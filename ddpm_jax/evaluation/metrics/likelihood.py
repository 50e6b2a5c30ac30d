"""Bits per dimension of real images under a model: the mean over images, and its standard error.

By the variational bound over the reverse process (`ddpm_jax.evaluation.bound`), or by the
probability flow (`ddpm_jax.evaluation.flow`). Both bound what a lossless code would need; neither
looks at samples. Image i has the key fold_in(key(seed), i).

References: Ho et al. 2020, arXiv:2006.11239; Song et al. 2021, arXiv:2011.13456.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np

from ddpm_jax._typing import AnyArray
from ddpm_jax.evaluation.bound import check_ddpm, variational_bound
from ddpm_jax.evaluation.continuous import reading_of
from ddpm_jax.evaluation.flow import DIFFRAX, MOST_EXACT, Probe, flow_log_likelihood
from ddpm_jax.evaluation.metrics.metric import Evidence, Metric, ModelEvidence
from ddpm_jax.evaluation.nll import bits_of_set
from ddpm_jax.extras import check_installed
from ddpm_jax.schedulers import DDPMScheduler
from ddpm_jax.schedulers.base import Scheduler
from ddpm_jax.schedulers.betas import BetaScheduler
from ddpm_jax.schedulers.distilled import Distilled

LARGEST_SEED = 2**32 - 1
"""Keys have 32 bits of seed."""


@dataclass(frozen=True, kw_only=True)
class Likelihood(Metric):
    """Bits per dimension, smaller is better."""

    name = "nll"
    of_model = True

    method: Literal["bound", "flow"] = "bound"
    """The variational bound, or the probability flow."""
    num: int = 0
    """How many of the real images, the first ones; 0: all."""
    timesteps: int = 0
    """Of the bound: evaluations of an image, 0: all timesteps."""
    probe: Probe = "rademacher"
    """Of the flow: what the trace is estimated with, or "exact"."""
    probes: int = 1
    """Of the flow: how many."""
    tolerance: float = 1e-5
    """Of the flow: relative and absolute, of a step."""
    seed: int = 0
    """Of the noise."""

    def faults(self, samples: int, reference: int | None) -> Iterator[str]:
        """Options out of range, options of the other method, and more images than there are."""
        if self.num < 0 or (reference is not None and self.num > reference):
            yield f"nll.num must lie in 0..{reference}, 0 for all real images, got {self.num}"
        if not 0 <= self.seed <= LARGEST_SEED:
            yield f"nll.seed must lie in 0..{LARGEST_SEED}, got {self.seed}"
        if self.timesteps < 0:
            yield f"nll.timesteps must be at least 1, or 0 for all, got {self.timesteps}"
        if self.probes < 1:
            yield f"nll.probes must be at least 1, got {self.probes}"
        if not 0 < self.tolerance < 1:
            yield f"nll.tolerance must lie in (0, 1), got {self.tolerance:g}"
        if self.probe == "exact" and self.probes != 1:
            yield f"nll.probe=exact has no nll.probes, got {self.probes}"
        default = Likelihood()
        others = ("timesteps",) if self.method == "flow" else ("probe", "probes", "tolerance")
        for name in others:
            if getattr(self, name) != getattr(default, name):
                yield f"nll.{name} is not of nll.method={self.method}: leave it out"

    def images(self, count: int) -> int:
        """All, unless `num` says."""
        return self.num or count

    def process(self, found: type[Scheduler]) -> type[Scheduler]:
        """DDPM's for the bound, whatever samples a network of betas."""
        of_betas = issubclass(found, BetaScheduler) and not issubclass(found, Distilled)
        return DDPMScheduler if self.method == "bound" and of_betas else found

    def model_faults(self, scheduler: Scheduler, shape: tuple[int, int, int]) -> Iterator[str]:
        """Processes without such a likelihood, and options out of range for the model.

        Raises ImportError if the flow's package is not installed.
        """
        if self.method == "flow":
            check_installed(DIFFRAX, "nll.method=flow", "likelihood")
        try:
            if self.method == "flow":
                reading_of(scheduler)
            else:
                check_ddpm(scheduler)
        except ValueError as error:
            yield f"nll: {error}"
            return
        total, size = getattr(scheduler, "num_train_timesteps", 0), int(np.prod(shape))
        if self.method == "bound" and total < max(2, self.timesteps):
            yield (
                f"nll.timesteps must be at most the model's {total} timesteps, which must be two "
                f"or more, got {self.timesteps}"
            )
        if self.probe == "exact" and size > MOST_EXACT:
            yield f"nll.probe=exact is for at most {MOST_EXACT} dimensions, and images have {size}"

    def compute(self, evidence: Evidence) -> dict[str, float]:
        """{"bits_per_dim", "bits_per_dim_error"}, the latter for two images or more."""
        model = evidence.model
        assert model is not None
        found = bits_of_set(
            partial(self._bits, model),
            model.batches,
            jax.random.key(self.seed),
            labels=model.labels,
            batch_size=model.batch_size,
            progress=False,
        )
        spread = {"bits_per_dim_error": found.standard_error} if len(found.bits_per_dim) > 1 else {}
        return {"bits_per_dim": found.mean, **spread}

    def _bits(self, model: ModelEvidence, *of_batch: AnyArray) -> Any:
        """Of a batch (x0, keys), or (x0, keys, labels)."""
        x0, keys, *labels = model.place(of_batch)
        scheduler: Any = model.scheduler
        if self.method == "bound":
            params = (model.params, *labels) if labels else model.params
            steps = self.timesteps or None
            return variational_bound(
                model.denoise, params, scheduler, x0, keys, num_timesteps=steps
            ).total
        return flow_log_likelihood(
            model.denoise,
            model.params,
            scheduler,
            x0,
            keys,
            of_each=labels[0] if labels else None,
            probe=self.probe,
            num_probes=self.probes,
            rtol=self.tolerance,
            atol=self.tolerance,
        ).bits_per_dim
