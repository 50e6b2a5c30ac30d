"""The loss of a `UNet2DModel`: how it is called, and what does not fit it."""

from typing import Any, cast

from jaxtyping import Array

from ddpm_jax._typing import AnyArray
from ddpm_jax.models import UNet2DModel
from ddpm_jax.schedulers import DDPMScheduler, Scheduler
from ddpm_jax.training.objective import Batch, Loss, Objective, Predict


def make_loss(model: UNet2DModel, scheduler: Scheduler, objective: Objective | None = None) -> Loss:
    """The loss of a model under a forward process; make it once, its identity is static.

    Args:
        model: the network.
        scheduler: any variance-preserving one; its betas, prediction type and variance type count.
        objective: by default the simple loss, unweighted.

    Raises:
        ValueError: every way in which objective, model and scheduler do not fit together.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> from ddpm_jax.training import make_loss
    >>> model, params = dj.UNet2DModel.from_pretrained("digits")
    >>> loss = make_loss(model, dj.DDPMScheduler.from_pretrained("digits"))
    >>> value, metrics = loss(params, {"image": jnp.zeros((2, 8, 8, 1))}, jax.random.key(0))
    >>> value.shape
    ()
    """
    objective = Objective() if objective is None else objective
    if not isinstance(scheduler, DDPMScheduler):
        scheduler = DDPMScheduler.from_config(scheduler.config)
    faults = model.training_faults(scheduler) + objective.training_faults(scheduler)
    classes = model.num_class_embeds
    if objective.label_dropout and (classes or 0) < 2:
        faults.append(
            "label_dropout needs a class table of at least two rows, the last for no class; "
            f"num_class_embeds is {classes}"
        )
    if faults:
        raise ValueError("; ".join(faults))
    return Loss(_predict(model), scheduler, objective, None if classes is None else classes - 1)


def _predict(model: UNet2DModel) -> Predict:
    def predict(
        params: Any,
        x: AnyArray,
        timestep: AnyArray,
        batch: Batch,
        rngs: dict[str, Array] | None,
        train: bool,
    ) -> Array:
        label = batch.get("label")
        _check_batch(model, x, label)
        output = model.apply(
            {"params": params}, x, timestep, class_labels=label, train=train, rngs=rngs
        )
        return cast(Array, output)

    return predict


def _check_batch(model: UNet2DModel, x: AnyArray, label: Any) -> None:
    channels, classes = model.in_channels, model.num_class_embeds
    if x.shape[-1] != channels:
        raise ValueError(f'"image" must be (B, H, W, {channels}), got {x.shape}')
    if (label is None) != (classes is None):
        has, got = ("no classes", "") if classes is None else (f"{classes} classes", "no ")
        raise ValueError(f'the model has {has}, and the batch has {got}"label"')
