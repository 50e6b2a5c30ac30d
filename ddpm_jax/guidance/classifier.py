r"""Classifier guidance: towards what a classifier of noised images sees (Dhariwal and Nichol 2021,
arXiv:2105.05233).

    (1)  eps <- eps - scale sigma grad_x log p(class | x)                          [Algorithm 2]

which is equation (1) of `ddpm_jax.guidance.guide` for the likelihood p^scale. At high noise levels
it moves x0 far beyond the data, and eps back by nearly as much, so x0 must not be clipped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax._typing import is_number
from ddpm_jax.guidance.guide import Guide, Guiding, by_tweedie, evaluated, moved
from ddpm_jax.tables.table import Row


@dataclass(frozen=True)
class ClassifierGuided(Guiding):
    """`denoise` under (1). Values: classifier, classifier_params, labels, scale."""

    def at_row(
        self, params: Mapping[str, Any], row: Row, x: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w d"]:
        """As `Guiding`; one evaluation of the network, and one of the classifier's gradient."""
        if row.refine is not None:
            raise ValueError(
                "classifier guidance needs a table that does not refine x0, such as that of "
                "DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)"
            )
        labels = jnp.broadcast_to(params["labels"], x.shape[:1])

        def likelihood(x: Array) -> Array:
            scaled = row.in_scale.astype(x.dtype) * x
            logits = params["classifier"](params["classifier_params"], scaled, row.timestep)
            return jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).sum()

        output = evaluated(self.denoise, params["inner"], row, x)
        change = by_tweedie(row, jax.grad(likelihood)(x))
        return moved(row, output, params["scale"] * change)


def classifier_guide(
    classifier: Callable[[Any, Array, Array], Array],
    params: Any,
    labels: ArrayLike,
    *,
    scale: float = 1.0,
) -> Guide:
    """Guides to images that a classifier of noised images takes for certain classes.

    Args:
        classifier: classifier(params, x, timestep) -> logits (B, classes), of what the network is
            given too: noised images of unit variance. Compared by identity: define it once.
        params: its first argument.
        labels: the classes, one number for all images, or one for each.
        scale: of the gradient, >= 0.

    Raises:
        ValueError: labels that are no whole numbers, or a scale below 0; at the run, a table that
            clips or thresholds x0.

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
    given = jnp.asarray(labels)
    if not jnp.issubdtype(given.dtype, jnp.integer) or given.ndim > 1:
        raise ValueError(f"labels must be whole numbers, one or one for each image; got {labels!r}")
    if not is_number(scale) or not scale >= 0:
        raise ValueError(f"scale must be a number of at least 0, got {scale!r}")
    values = {
        "classifier": jax.tree_util.Partial(classifier),
        "classifier_params": params,
        "labels": given,
        "scale": jnp.float32(scale),
    }
    return Guide(ClassifierGuided, values)
