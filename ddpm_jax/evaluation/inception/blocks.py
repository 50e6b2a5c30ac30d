"""The blocks of Inception-v3: branches side by side, joined along the channels.

Submodules have the names of torchvision's. A branch is a chain of layers, each named by the
branch and its place in it.

Reference: Szegedy et al. 2016, Rethinking the Inception architecture, arXiv:1512.00567.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn

from ddpm_jax.evaluation.inception.layers import ConvNorm, halved, max_of_3x3, mean_of_3x3
from ddpm_jax.models.layers.plain import Image, Output

Size = tuple[int, int]
Pool = Callable[[Image], Image]


def chain(x: Image, name: str, layers: Sequence[tuple[int, Size]]) -> Output:
    """Layers (features, size) in a row, named NAME_1, NAME_2, ..."""
    for i, (features, size) in enumerate(layers, 1):
        x = ConvNorm(features, size, name=f"{name}_{i}")(x)
    return x


class InceptionA(nn.Module):
    """Branches of 1x1, 5x5 and twice 3x3."""

    pooled: int
    """Channels of the branch after the pool."""

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        branches = [
            ConvNorm(64, (1, 1), name="branch1x1")(x),
            chain(x, "branch5x5", [(48, (1, 1)), (64, (5, 5))]),
            chain(x, "branch3x3dbl", [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))]),
            ConvNorm(self.pooled, (1, 1), name="branch_pool")(mean_of_3x3(x)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionB(nn.Module):
    """Halves the image."""

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        double = chain(x, "branch3x3dbl", [(64, (1, 1)), (96, (3, 3))])
        branches = [
            ConvNorm(384, (3, 3), 2, same=False, name="branch3x3")(x),
            ConvNorm(96, (3, 3), 2, same=False, name="branch3x3dbl_3")(double),
            halved(x),
        ]
        return jnp.concatenate(branches, -1)


class InceptionC(nn.Module):
    """Branches whose 7x7 is 1x7 and 7x1."""

    inner: int
    """Channels inside the branches."""

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        c, wide, high = self.inner, (1, 7), (7, 1)
        double = [(c, (1, 1)), (c, high), (c, wide), (c, high), (192, wide)]
        branches = [
            ConvNorm(192, (1, 1), name="branch1x1")(x),
            chain(x, "branch7x7", [(c, (1, 1)), (c, wide), (192, high)]),
            chain(x, "branch7x7dbl", double),
            ConvNorm(192, (1, 1), name="branch_pool")(mean_of_3x3(x)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionD(nn.Module):
    """Halves the image."""

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        three = chain(x, "branch3x3", [(192, (1, 1))])
        seven = chain(x, "branch7x7x3", [(192, (1, 1)), (192, (1, 7)), (192, (7, 1))])
        branches = [
            ConvNorm(320, (3, 3), 2, same=False, name="branch3x3_2")(three),
            ConvNorm(192, (3, 3), 2, same=False, name="branch7x7x3_4")(seven),
            halved(x),
        ]
        return jnp.concatenate(branches, -1)


class InceptionE(nn.Module):
    """Branches that end in 1x3 beside 3x1. In the variant of FID the pool of the last one is the
    max pool, where the paper has the mean.
    """

    last: bool

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images."""
        three = chain(x, "branch3x3", [(384, (1, 1))])
        double = chain(x, "branch3x3dbl", [(448, (1, 1)), (384, (3, 3))])
        pool: Pool = max_of_3x3 if self.last else mean_of_3x3
        branches = [
            ConvNorm(320, (1, 1), name="branch1x1")(x),
            ConvNorm(384, (1, 3), name="branch3x3_2a")(three),
            ConvNorm(384, (3, 1), name="branch3x3_2b")(three),
            ConvNorm(384, (1, 3), name="branch3x3dbl_3a")(double),
            ConvNorm(384, (3, 1), name="branch3x3dbl_3b")(double),
            ConvNorm(192, (1, 1), name="branch_pool")(pool(x)),
        ]
        return jnp.concatenate(branches, -1)
