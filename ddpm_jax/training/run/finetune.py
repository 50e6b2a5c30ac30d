"""Fine-tuning: the settings and weights of a trained model, and what is new."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.hub import hub
from ddpm_jax.hub.files import faults_of, listed, read_json
from ddpm_jax.models import UNet2DModel
from ddpm_jax.models.pretrained import differences
from ddpm_jax.schedulers import DDPMScheduler
from ddpm_jax.training.run.settings import Diffusion, Model


class Base(NamedTuple):
    """A model to go on from.

    Attributes:
        name: as the user gave it.
        model: as it was trained.
        params: its weights.
        diffusion: the forward process that it was trained under, if it came with a scheduler.
    """

    name: str
    model: UNet2DModel
    params: dict[str, Any]
    diffusion: Diffusion | None = None


def base_settings(name: str, revision: str | None = None) -> tuple[Model, Diffusion | None]:
    """The settings that a model was trained under, from its configs; no weights are read.

    Args:
        name: of any model that `UNet2DModel.from_pretrained` reads.
        revision: on the hub.

    Returns:
        The network's, and the forward process's if the model came with a scheduler.

    Raises:
        ValueError: no such model, or one that cannot be trained here.
    """
    files = UNet2DModel.files
    path = hub.component(name, files, revision=revision, weights=False) / files.config
    with faults_of(path):
        config = UNet2DModel.from_config(read_json(path)).config
        if config.class_embed_type is not None or config.time_embedding_type == "fourier":
            raise ValueError(
                f"class_embed_type {config.class_embed_type!r} with time_embedding_type "
                f"{config.time_embedding_type!r} cannot be trained; accepted are None, and "
                '"positional" or "learned"'
            )
    model = Model(**{field.name: config[field.name] for field in fields(Model)})
    return model, _diffusion(name, revision)


def _diffusion(name: str, revision: str | None) -> Diffusion | None:
    try:
        folder = hub.component(name, DDPMScheduler.files, revision=revision)
    except ValueError:  # weights alone
        return None
    scheduler = DDPMScheduler.from_pretrained(folder)
    with faults_of(folder / DDPMScheduler.files.config):
        if scheduler.trained_betas is not None:
            raise ValueError("trained_betas cannot be trained: no setting holds them")
    values = {field.name: getattr(scheduler, field.name) for field in fields(Diffusion)}
    return Diffusion(**values)


def load_base(name: str, *, revision: str | None = None, variant: str | None = None) -> Base:
    """Reads a model with its weights; arguments and errors as `UNet2DModel.from_pretrained`."""
    loaded = UNet2DModel.from_pretrained(name, revision=revision, variant=variant)
    return Base(name, *loaded, _diffusion(name, revision))


def other_process(base: Base, diffusion: Diffusion) -> list[str]:
    """A sentence for each field in which a forward process differs from the base's, except those
    that only sampling uses.
    """
    if base.diffusion is None:
        kind, betas = diffusion.prediction_type, diffusion.beta_schedule
        return [f"{base.name} came without a scheduler: it is assumed to predict {kind} ({betas})"]
    before, now = asdict(base.diffusion), asdict(diffusion)
    return [
        f"diffusion.{name} is {now[name]}; {base.name} was trained with {before[name]}"
        for name in now
        if before[name] != now[name] and name not in ("clip_sample", "variance_type")
    ]


def fitted(
    base: Base, model: UNet2DModel, fresh: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """A base's params for a model that may have other classes or a learned variance.

    Args:
        base: the model to go on from.
        model: the one that is trained.
        fresh: new params of it; their shapes suffice to see whether the two fit.

    Returns:
        The params, and a sentence for each part that is new or left out.

    Raises:
        ValueError: the models differ in more than that.
    """
    params, news = dict(base.params), list[str]()
    old, new = (jax.tree.map(np.shape, tree.get("class_embedding")) for tree in (params, fresh))
    if old != new:
        params.pop("class_embedding", None)
        if "class_embedding" in fresh:
            params["class_embedding"] = fresh["class_embedding"]
            before, now = base.model.num_class_embeds or "no", model.num_class_embeds
            news.append(f"class_embedding is new, for {now} classes; {base.name} has {before}")
        else:
            news.append(f"class_embedding of {base.name} is left out: data.labels is not set")
    have, want = params["conv_out"]["bias"].shape[0], model.out_channels
    if want == 2 * have:
        params["conv_out"] = jax.tree.map(_with_zeros, params["conv_out"])
        news.append(f"conv_out has {have} new channels, at 0, for the variance")
    if wrong := differences(params, fresh):
        raise ValueError(f"{base.name} does not fit these settings: {listed(wrong, '; ')}")
    return params, news


def _with_zeros(leaf: jax.Array) -> jax.Array:
    return jnp.concatenate([leaf, jnp.zeros_like(leaf)], axis=-1)
