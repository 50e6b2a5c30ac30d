r"""Classifier guidance: towards what a classifier of noised images sees (Dhariwal and Nichol 2021,
arXiv:2105.05233).

    (1)  eps <- eps - scale sigma grad_x log p(class | x)                          [Algorithm 2]

which is equation (1) of `ddpm_jax.guidance.guide` for the likelihood p^scale. At high noise levels
it moves x0 far beyond the data, and eps back by nearly as much, so x0 must not be clipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import (
    Guide,
    Guiding,
    Images,
    Output,
    Params,
    by_tweedie,
    evaluated,
    moved,
)
from ddpm_jax.tables.table import Row


@dataclass(frozen=True)
class ClassifierGuided(Guiding):
    """`denoise` under (1). Values: classifier, classifier_params, labels, scale."""

    def at_row(self, params: Params, row: Row, x: Images) -> Output:
        """As `Guiding`; one evaluation of the network, and one of the classifier's gradient."""
        if row.refine is not None:
            raise ValueError(
                "classifier guidance needs a table that does not refine x0, such as that of "
                "DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)"
            )
        labels = _of_images(params["labels"], len(x))

        def likelihood(x: Array) -> Array:
            scaled = row.in_scale.astype(x.dtype) * x
            logits = params["classifier"](params["classifier_params"], scaled, row.timestep)
            if logits.ndim != 2 or len(logits) != len(x):
                raise ValueError(
                    f"classifier must give logits ({len(x)}, classes), got shape {logits.shape}"
                )
            logs = jax.nn.log_softmax(logits)
            own = jnp.take_along_axis(logs, labels[:, None], axis=1, mode="clip")[:, 0]
            # Nothing of a class that is not there, rather than images without guidance.
            return (own * jnp.where(labels < logits.shape[1], 1.0, jnp.nan)).sum()

        output = evaluated(self.denoise, params["inner"], row, x)
        change = by_tweedie(row, jax.grad(likelihood)(x))
        return moved(row, output, params["scale"] * change)


def _of_images(labels: Int[Array, "..."], count: int) -> Int[Array, " b"]:
    """One label for each image."""
    if labels.ndim and len(labels) not in (1, count):
        raise ValueError(f"labels must be 1 or {count}, as the images are; got {len(labels)}")
    return jnp.broadcast_to(labels, (count,))


def classifier_guide(
    classifier: Callable[[Any, Array, Array], Array],
    params: Any,
    labels: ArrayLike | Sequence[int],
    *,
    scale: float = 1.0,
) -> Guide:
    """Guides to images that a classifier of noised images takes for certain classes.

    Args:
        classifier: classifier(params, x, timestep) -> logits (B, classes), of what the network is
            given too: noised images of unit variance. Compared by identity: define it once.
        params: its first argument.
        labels: the classes from 0, one number for all images, or one for each. The images of one
            that the classifier does not have are NaN.
        scale: of the gradient, >= 0.

    Raises:
        ValueError: labels that are no whole numbers from 0, or a scale below 0; at the run, a
            table that clips or thresholds x0, or logits or labels of another shape.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def classifier(params, x, timestep):  # class 1 if the images are bright
    ...     light = x.mean(axis=(1, 2, 3))
    ...     return jnp.stack([-light, light], axis=1)
    >>> pipe = dj.DDIMPipeline.from_pretrained("digits")
    >>> pipe.scheduler = dj.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    >>> guide = dj.classifier_guide(classifier, None, 1, scale=20.0)
    >>> options = {"num_inference_steps": 5, "output_type": "np", "progress": False}
    >>> plain, bright = (pipe(jax.random.key(0), guide=g, **options).images for g in (None, guide))
    >>> bool(bright.mean() > plain.mean())
    True
    """
    given = labels if isinstance(labels, jax.Array) else np.asarray(labels)
    traced = isinstance(given, jax.core.Tracer)
    whole = jnp.issubdtype(given.dtype, jnp.integer) and given.ndim <= 1
    if not whole or (not traced and not np.all(np.asarray(given) >= 0)):
        raise ValueError(
            f"labels must be whole numbers from 0, one or one for each image; got {labels!r}"
        )
    if not is_number(scale) or not scale >= 0:
        raise ValueError(f"scale must be a number of at least 0, got {scale!r}")
    values = {
        "classifier": jax.tree_util.Partial(classifier),
        "classifier_params": params,
        "labels": jnp.asarray(given),
        "scale": jnp.float32(scale),
    }
    return Guide(ClassifierGuided, values)
