r"""The optimiser: Adam with a learning-rate schedule and clipped gradients, from optax.

    (1)  lr_k = learning_rate min(1, k / warmup_steps) decay((k - warmup_steps) / steps left)

for update k = 0, 1, ...; gradients are clipped by their global norm before Adam.

References: Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101
(decoupled weight decay); Ho et al. 2020, arXiv:2006.11239, appendix B (warm-up 5000, clip 1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ddpm_jax.training.group import Group

if TYPE_CHECKING:
    import optax

Decay: TypeAlias = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Optimizer(Group):
    """Adam's settings; the defaults are those of the DDPM paper for CIFAR-10.

    Attributes:
        learning_rate: the highest learning rate, > 0.
        warmup_steps: updates over which the learning rate rises from 0, at least 0.
        decay: how the learning rate falls to 0 after the warm-up: "constant" (not at all),
            "linear" or "cosine".
        beta1: decay of Adam's mean of gradients, in [0, 1).
        beta2: decay of Adam's mean of squared gradients, in [0, 1).
        eps: Adam's epsilon, > 0.
        weight_decay: decoupled weight decay, at least 0.
        clip_norm: largest global norm of the gradient, > 0; None: no clipping.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    learning_rate: float = 2e-4
    warmup_steps: int = 5000
    decay: Decay = "constant"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0

    def _faults(self) -> Iterator[str]:
        yield from self._above_zero("learning_rate", "eps", "clip_norm")
        yield from self._at_least(warmup_steps=0, weight_decay=0)
        yield from self._shares("beta1", "beta2")

    def schedule(self, steps: int) -> Callable[[Any], Any]:
        """The learning rate of update 0, 1, ... in a run of `steps` updates, equation (1)."""
        import optax

        left = max(1, steps - self.warmup_steps)
        after = {
            "constant": lambda: optax.constant_schedule(self.learning_rate),
            "linear": lambda: optax.linear_schedule(self.learning_rate, 0.0, left),
            "cosine": lambda: optax.cosine_decay_schedule(self.learning_rate, left),
        }[self.decay]()
        if not self.warmup_steps:
            return after
        rise = optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
        return optax.join_schedules([rise, after], [self.warmup_steps])

    def make(self, steps: int) -> "optax.GradientTransformation":
        """The transformation, for a run of `steps` updates.

        >>> from ddpm_jax.training import Optimizer
        >>> transformation = Optimizer(learning_rate=1e-3, decay="cosine").make(steps=10_000)
        """
        import optax

        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        adam = optax.adamw(
            self.schedule(steps), self.beta1, self.beta2, self.eps, weight_decay=self.weight_decay
        )
        return optax.chain(*clip, adam)
