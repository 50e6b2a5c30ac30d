r"""The loss: a pure function of params, a batch and a key.

With t uniform in 0..T-1, eps ~ N(0, I) and x = alpha_t x0 + sigma_t eps:

    (1)  simple:  w_t |output - target|^2, a mean over pixels; target eps, x0 or
                  v = alpha eps - sigma x0, by the scheduler's prediction type
    (2)  vlb:     T L_t in bits per dimension, see `ddpm_jax.likelihood`
    (3)  hybrid:  (1) + lambda (2), where (2) trains the variance and leaves the mean alone

References: Ho et al. 2020, arXiv:2006.11239, eq. 14 (1), eq. 5 (2); Nichol and Dhariwal 2021,
arXiv:2102.09672, section 3.1 (3); Salimans and Ho 2022, arXiv:2202.00512 (v); Ho and Salimans 2022,
arXiv:2207.12598, Algorithm 1 (dropped labels).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ddpm_jax._typing import AnyArray
from ddpm_jax.likelihood import Posterior, bound_terms, posterior
from ddpm_jax.sampling import forward
from ddpm_jax.schedulers import DDPMScheduler
from ddpm_jax.training.group import Group
from ddpm_jax.training.weighting import Weighting, loss_weights

Kind: TypeAlias = Literal["simple", "vlb", "hybrid"]
Batch: TypeAlias = Mapping[str, Any]
"""`image` (B, H, W, C) floats in [-1, 1], and what else the network is conditioned on: `label` (B,)
whole numbers for a `UNet2DModel` with classes. Other entries are not read."""
Metrics: TypeAlias = dict[str, Float[Array, ""]]


@dataclass(frozen=True, kw_only=True)
class Objective(Group):
    """Which loss, and how timesteps are weighted.

    Attributes:
        loss: what is minimized. "simple": the squared error of the prediction; "vlb": the
            variational bound; "hybrid": the simple loss plus the bound, for a learned variance.
        weighting: of timesteps in the simple loss: "uniform", "snr", "min_snr" or "p2".
        min_snr_gamma: gamma of the weighting "min_snr", > 0.
        p2_gamma: gamma of the weighting "p2", at least 0.
        p2_k: number k of the weighting "p2", > 0.
        vlb_weight: factor of the bound in the loss "hybrid", > 0.
        label_dropout: share of labels, in [0, 1), replaced by the last class, which then means "no
            class": what classifier-free guidance needs.

    Raises:
        ValueError: at construction, naming every field that is refused.
    """

    loss: Kind = "simple"
    weighting: Weighting = "uniform"
    min_snr_gamma: float = 5.0
    p2_gamma: float = 1.0
    p2_k: float = 1.0
    vlb_weight: float = 1e-3
    label_dropout: float = 0.0

    def _faults(self) -> Iterator[str]:
        yield from self._above_zero("min_snr_gamma", "p2_k", "vlb_weight")
        yield from self._at_least(p2_gamma=0)
        yield from self._shares("label_dropout")
        if self.loss == "vlb" and self.weighting != "uniform":
            yield f'loss "vlb" takes no weighting, got {self.weighting!r}'

    def training_faults(self, scheduler: DDPMScheduler) -> list[str]:
        """A sentence for each way in which it does not fit the variance of a scheduler."""
        kind = scheduler.variance_type
        learned = kind.startswith("learned")
        if learned and self.loss == "simple":
            return [f'variance_type "{kind}" is not trained by loss "simple": use "hybrid"']
        if not learned and self.loss == "hybrid":
            return [f'loss "hybrid" trains a learned variance, variance_type is "{kind}"']
        return []


class Drawn(NamedTuple):
    """What a loss draws for a batch.

    Attributes:
        timestep: (B,) whole numbers in 0..T-1.
        noise: (B, H, W, C) unit normal.
        label: (B,) whole numbers, after label dropout; None if the batch has none.
        dropout: a key for the network.
    """

    timestep: Int[AnyArray, " b"]
    noise: Float[AnyArray, "b h w c"]
    label: Int[AnyArray, " b"] | None
    dropout: Array


@runtime_checkable
class Predict(Protocol):
    """How a loss calls a network; a function of these arguments is one.

    >>> import jax.numpy as jnp, ddpm_jax as dj
    >>> from ddpm_jax.training import Loss, Objective
    >>> def predict(params, x, timestep, batch, rngs, train):
    ...     return params["scale"] * x + batch["context"]
    >>> loss = Loss(predict, dj.DDPMScheduler(), Objective())
    """

    def __call__(
        self,
        params: Any,
        x: Float[AnyArray, "b h w c"],
        timestep: Int[AnyArray, " b"],
        batch: Batch,
        rngs: dict[str, Array] | None,
        train: bool,
    ) -> Array:
        """The network's output for noisy images.

        Args:
            params: of the network.
            x: noisy images.
            timestep: of each image, in 0..T-1.
            batch: what the network is conditioned on; `label` is the one after label dropout.
            rngs: a key called "dropout" while training, otherwise None.
            train: with the network's dropout.
        """
        ...


@dataclass(frozen=True, eq=False)
class Loss:
    """`loss(params, batch, key) -> (mean, metrics)`, pure; `make_loss` makes that of a UNet2DModel.

    Its two halves may be called alone: `draw` is all that is random, and `per_image` the rest.

    Attributes:
        predict: `predict(params, x, timestep, batch, rngs, train) -> output`, the network; another
            network trains by another function.
        scheduler: the forward process, and what the network predicts.
        objective: which loss.
        no_class: the label that replaces dropped ones.

    Raises:
        ValueError: the objective does not fit the scheduler, or drops labels without `no_class`.
    """

    predict: Predict
    scheduler: DDPMScheduler
    objective: Objective
    no_class: int | None = None

    def __post_init__(self) -> None:
        faults = self.objective.training_faults(self.scheduler)
        if self.objective.label_dropout and self.no_class is None:
            faults.append("label_dropout needs no_class, the label that means no class")
        if faults:
            raise ValueError("; ".join(faults))

    def __call__(self, params: Any, batch: Batch, key: Array) -> tuple[Float[Array, ""], Metrics]:
        """The mean loss over a batch, and the terms that it is made of by name."""
        terms = self.per_image(params, batch, self.draw(batch, key))
        means = {name: values.mean() for name, values in terms.items()}
        return means["loss"], means

    def draw(self, batch: Batch, key: Array) -> Drawn:
        """Timesteps, noise and dropped labels for a batch.

        Raises:
            ValueError: "image" is not (B, H, W, C) floats, or "label" not (B,).
        """
        image, label = batch["image"], batch.get("label")
        forward.check_images(image)
        if image.ndim != 4:
            raise ValueError(f'"image" must be (B, H, W, C), got {image.shape}')
        if label is not None and label.shape != image.shape[:1]:
            raise ValueError(f'"label" must be ({len(image)},), got {label.shape}')
        time_key, noise_key, label_key, dropout_key = jax.random.split(key, 4)
        shape = image.shape[:1]
        if label is not None:
            label = jnp.asarray(label)
            if self.objective.label_dropout:
                dropped = jax.random.bernoulli(label_key, self.objective.label_dropout, shape)
                label = jnp.where(dropped, cast(int, self.no_class), label)
        return Drawn(
            jax.random.randint(time_key, shape, 0, self.scheduler.num_train_timesteps),
            jax.random.normal(noise_key, image.shape, jnp.float32),
            label,
            dropout_key,
        )

    def per_image(
        self, params: Any, batch: Batch, drawn: Drawn, *, train: bool = True
    ) -> dict[str, Float[Array, " b"]]:
        """The loss and its terms for each image, (B,) each, in float32.

        Args:
            params: of the network.
            batch: clean images, and what the network is conditioned on.
            drawn: timesteps, noise and labels; its labels replace those of the batch.
            train: with the network's dropout.

        Raises:
            ValueError: from `predict`; that of a UNet2DModel refuses images of other channels, and
                labels that are missing or that the model has no classes for.
        """
        t, kind = jnp.asarray(drawn.timestep), self.objective.loss
        x0 = jnp.asarray(batch["image"], jnp.float32)
        alpha, sigma, weight = (_at(column, t) for column in self._columns)
        x = forward.add_noise(x0, drawn.noise, alpha, sigma)
        output, values = self._evaluate(params, x, batch, drawn, train)
        if kind == "vlb":
            vlb = self._vlb(t, x0, x, output, values)
            return {"loss": vlb, "vlb": vlb}
        target = {
            "epsilon": lambda: drawn.noise,
            "sample": lambda: x0,
            "v_prediction": lambda: forward.velocity(x0, drawn.noise, alpha, sigma),
        }[self.scheduler.prediction_type]()
        simple = weight * jnp.square(output - target).mean((1, 2, 3))
        if kind == "simple":
            return {"loss": simple}
        vlb = self._vlb(t, x0, x, lax.stop_gradient(output), values)
        return {"loss": simple + self.objective.vlb_weight * vlb, "simple": simple, "vlb": vlb}

    def _evaluate(
        self, params: Any, x: Array, batch: Batch, drawn: Drawn, train: bool
    ) -> tuple[Array, Array | None]:
        """The network's prediction, and its second half where it learns a variance."""
        given = batch if drawn.label is None else {**batch, "label": drawn.label}
        rngs = {"dropout": drawn.dropout} if train else None
        output = self.predict(params, x, drawn.timestep, given, rngs, train)
        if not self.scheduler.variance_type.startswith("learned"):
            return output, None
        prediction, values = jnp.split(output, 2, axis=-1)
        return prediction, values

    def _vlb(self, t: Array, x0: Array, x: Array, output: Array, values: Array | None) -> Array:
        return self.scheduler.num_train_timesteps * bound_terms(
            self._posterior, t, x0, x, output, values
        )

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """alpha, sigma and weight of every timestep, float64."""
        schedule, objective = self.scheduler.noise_schedule, self.objective
        weights = loss_weights(
            schedule,
            self.scheduler.prediction_type,
            objective.weighting,
            min_snr_gamma=objective.min_snr_gamma,
            p2_gamma=objective.p2_gamma,
            p2_k=objective.p2_k,
        )
        return schedule.alpha, schedule.sigma, weights

    @cached_property
    def _posterior(self) -> Posterior:
        return posterior(self.scheduler)


def _at(column: Float[np.ndarray, "T"], timestep: Int[Array, " b"]) -> Float[Array, " b"]:
    """A column at each timestep, float32."""
    return jnp.asarray(column, jnp.float32)[timestep]
