"""The residual block, which may also halve or double the image.

    (1)  h = conv1(resample(act(norm1(x))))
    (2)  h = act(norm2(h + t))     or with scale_shift    h = act(norm2(h) (1 + t_scale) + t_shift)
    (3)  y = (shortcut(resample(x)) + conv2(dropout(h))) / output_scale

t is a linear map of act(embedding); without an embedding (2) is h = act(norm2(h)). shortcut is a
1x1 convolution if the channels change or `shortcut` is set.

Reference: Ho et al. 2020, appendix B, arXiv:2006.11239; scale_shift and resampling as in Dhariwal &
Nichol 2021, arXiv:2105.05233.
"""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.basic import make_conv, make_linear, make_norm
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.fir import double_smooth, halve_smooth
from ddpm_jax.models.layers.plain import Image, Output, double, halve

RESAMPLE = {
    "keep": lambda x: x,
    "halve": halve,
    "double": double,
    "halve_smooth": halve_smooth,
    "double_smooth": double_smooth,
}


class ResnetBlock(nn.Module):
    """Equations (1) to (3)."""

    config: LayerConfig
    features: int
    resample: Literal["keep", "halve", "double", "halve_smooth", "double_smooth"] = "keep"
    output_scale: float = 1.0
    groups: int | None = None
    """Of norm1; None: the model's."""
    shortcut: bool = False
    """Convolve the shortcut even if the channels stay."""

    @nn.compact
    def __call__(self, x: Image, emb: Float[Array, "b e"] | None = None) -> Output:
        """Maps images, given the embedding of timestep and class, if the model has one."""
        config, resample = self.config, RESAMPLE[self.resample]
        h = resample(make_norm(config, "norm1", config.activation, self.groups)(x))
        h = make_conv(config, self.features, "conv1")(h)
        norm2 = make_norm(config, "norm2", config.activation)
        if emb is None:
            h = norm2(h)
        elif config.scale_shift:
            t_scale, t_shift = jnp.split(self._project(emb, 2 * self.features), 2, axis=-1)
            h = norm2(h, (t_scale, t_shift))
        else:
            h = norm2(h + self._project(emb, self.features)[:, None, None])
        if config.dropout:
            h = nn.Dropout(config.dropout, name="dropout")(h, deterministic=False)
        h = make_conv(config, self.features, "conv2")(h)
        x = resample(x)
        if self.shortcut or x.shape[-1] != self.features:
            x = make_conv(config, self.features, "conv_shortcut", size=1)(x)
        return (x + h) / self.output_scale

    @nn.nowrap
    def _project(self, emb: Float[Array, "b e"], width: int) -> Float[Array, "b f"]:
        """The t of equation (2), in float32."""
        linear = make_linear(self.config.exact, width, "time_emb_proj")
        return linear(self.config.activation(emb))
