"""The layers of Inception-v3: convolution, batch norm with fixed statistics, pooling.

    (1)  y = relu((x * k - mean) scale / sqrt(var + 0.001) + bias)

`x * k` is the convolution. mean and var are parameters here, since the network is not trained.
TensorFlow's average pool divides by the number of pixels that lie inside the image:

    (2)  y = sum of x over the window / number of pixels in the window
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from ddpm_jax.models.layers.plain import Image, Output

EPS = 1e-3


class BatchNorm(nn.Module):
    """Equation (1) without the convolution and relu."""

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps images."""
        shape = (x.shape[-1],)
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean = self.param("running_mean", zeros, shape)
        var = self.param("running_var", ones, shape)
        gain = scale * lax.rsqrt(var + EPS)
        return (x - mean[None, None, None]) * gain[None, None, None] + bias[None, None, None]


class ConvNorm(nn.Module):
    """Equation (1). With `same`, outputs have the size of the image, if the stride is 1."""

    features: int
    size: tuple[int, int]
    stride: int = 1
    same: bool = True

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        conv = nn.Conv(
            self.features,
            self.size,
            self.stride,
            [side // 2 if self.same else 0 for side in self.size],
            use_bias=False,
            precision="highest",  # by default a GPU rounds inputs to 10 bits (TF32)
            name="conv",
        )
        return nn.relu(BatchNorm(name="bn")(conv(x)))


class Linear(nn.Module):
    """The last layer, whose kernel and bias are used apart."""

    features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b c"]
    ) -> tuple[Float[Array, "b classes"], Float[Array, " classes"]]:
        """kernel^T x, and the bias."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[1:])
        return jnp.matmul(x, kernel, precision="highest"), bias


def halved(x: Image) -> Output:
    """Max pool, window 3, stride 2."""
    return nn.max_pool(x, (3, 3), (2, 2))


def max_of_3x3(x: Image) -> Image:
    """Max pool, window 3, of the size of the image."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def mean_of_3x3(x: Image) -> Image:
    """Equation (2), window 3, of the size of the image."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
