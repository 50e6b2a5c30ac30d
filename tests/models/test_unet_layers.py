"""The layers of the UNet against their definitions in float64 NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.models.layers.basic import GroupNorm, moments
from ddpm_jax.models.layers.convolve import convolve, convolve_doubled
from ddpm_jax.models.layers.embeddings import Embedding, Fourier, sinusoid
from ddpm_jax.models.layers.plain import double, halve
from tests.models.nets import draw

# float32 sums of up to a hundred terms of size one
ROUNDING = 2e-6

F32 = jnp.dtype("float32")


def slow_convolution(x: np.ndarray, kernel: np.ndarray, stride: int, padding: object) -> np.ndarray:
    """Window by window."""
    x, kernel = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0))), kernel.astype(np.float64)
    size = kernel.shape[0]
    return np.stack(
        [
            np.stack(
                [
                    np.einsum("bijc,ijcd->bd", x[:, i : i + size, j : j + size], kernel)
                    for j in range(0, x.shape[2] - size + 1, stride)
                ],
                axis=1,
            )
            for i in range(0, x.shape[1] - size + 1, stride)
        ],
        axis=1,
    )


# 4x6 pixels are one dot over windows, 8x10 are not
@pytest.mark.parametrize("sides", [(4, 6), (8, 10)])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [
        (3, 1, ((1, 1), (1, 1))),
        (3, 2, ((1, 1), (1, 1))),
        (3, 2, ((0, 1), (0, 1))),
        (2, 1, ((1, 0), (0, 1))),
        (1, 1, ((0, 0), (0, 0))),
    ],
)
def test_convolution(sides: tuple[int, int], size: int, stride: int, padding: object):
    x, kernel = draw(2, *sides, 3), draw(size, size, 3, 5, seed=1)
    ours = convolve(jnp.asarray(x), jnp.asarray(kernel), stride, padding)
    np.testing.assert_allclose(
        ours, slow_convolution(x, kernel, stride, padding), atol=10 * ROUNDING
    )


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 1), (1, 0)), ((0, 0), (0, 0))])
def test_derivatives_of_a_convolution(padding: object):
    """A convolution is linear in both arguments, which determines the transposed derivatives."""
    x, dx, kernel, dkernel = (
        draw(*shape, seed=seed)
        for seed, shape in enumerate([(2, 9, 7, 3), (2, 9, 7, 3), (3, 3, 3, 5), (3, 3, 3, 5)])
    )
    expected = slow_convolution(dx, kernel, 1, padding) + slow_convolution(x, dkernel, 1, padding)

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, 1, padding)

    primals, tangents = jax.tree.map(jnp.asarray, ((x, kernel), (dx, dkernel)))
    _, dy = jax.jvp(ours, primals, tangents)
    np.testing.assert_allclose(dy, expected, atol=20 * ROUNDING)

    weights = draw(*dy.shape, seed=4)
    x_grad, kernel_grad = jax.vjp(ours, *primals)[1](jnp.asarray(weights))
    backward = np.vdot(x_grad, dx) + np.vdot(kernel_grad, dkernel)
    np.testing.assert_allclose(backward, np.vdot(weights, expected), rtol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only on a CPU; elsewhere it is slower")
def test_on_a_cpu_a_convolution_has_one_row_more_than_the_image():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))
    padding = ((1, 1), (1, 1))
    assert "f32[2,9,8,5]" in str(jax.make_jaxpr(lambda: convolve(x, kernel, 1, padding))())
    halves = [x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)]
    assert "[2,9,8,5]" not in str(jax.make_jaxpr(lambda: convolve(*halves, 1, padding))())


@pytest.mark.parametrize("sides", [(2, 4), (5, 7)])
def test_convolution_of_the_doubled_image(sides: tuple[int, int]):
    x, kernel = draw(2, *sides, 3), draw(3, 3, 3, 5, seed=1)
    doubled = x.repeat(2, axis=1).repeat(2, axis=2)
    expected = slow_convolution(doubled, kernel, 1, ((1, 1), (1, 1)))
    ours = convolve_doubled(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(ours, expected, atol=10 * ROUNDING)


def test_doubling_and_halving():
    x = draw(2, 4, 6, 3)
    np.testing.assert_array_equal(double(jnp.asarray(x)), x.repeat(2, 1).repeat(2, 2))
    blocks = [x[:, i::2, j::2].astype(np.float64) for i in (0, 1) for j in (0, 1)]
    np.testing.assert_allclose(halve(jnp.asarray(x)), sum(blocks) / 4, atol=ROUNDING)


@pytest.mark.parametrize("first", [0.0, 100.0])
def test_moments_where_channels_differ_and_the_first_pixel_stands_apart(first: float):
    x = draw(2, 8, 8, 6) + np.float32([0, 1e3, -1e3, 0.1, 0, 1e-3])
    x[:, 0, 0] += np.float32(first)
    groups = x.astype(np.float64).reshape(2, 64, 2, 3)
    mean, var = moments(jnp.asarray(x), 2)
    std = groups.std((1, 3))
    np.testing.assert_allclose(mean[:, ::3] / std, groups.mean((1, 3)) / std, atol=ROUNDING)
    np.testing.assert_allclose(var[:, ::3], groups.var((1, 3)), rtol=64 * 1e-7)  # of 64 pixels
    for one in (mean, var):
        np.testing.assert_array_equal(one, np.repeat(one[:, ::3], 3, axis=-1))


def test_gradients_of_moments():
    x, weights = 3 + draw(1, 4, 4, 4), (draw(1, 4, seed=1), draw(1, 4, seed=2))

    def weighted(x: jax.Array) -> jax.Array:
        return sum((w * one).sum() for w, one in zip(weights, moments(x, 2), strict=True))

    # mean = sum x / n and var = sum (x - mean)^2 / n over n = 32 numbers of a group
    mean = x.astype(np.float64).reshape(16, 2, 2).mean((0, 2)).repeat(2)
    of_mean, of_var = (w.reshape(2, 2).sum(1).repeat(2) / 32 for w in weights)
    exact = of_mean + of_var * 2 * (x - mean)
    np.testing.assert_allclose(jax.grad(weighted)(jnp.asarray(x)), exact, atol=ROUNDING)


def test_group_norm_computes_in_float32_for_half_precision():
    x = jnp.asarray(300 + draw(1, 8, 8, 4)).astype(jnp.float16)  # its square overflows float16
    params = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
    norm = GroupNorm(2, 1e-6, jnp.dtype("float16"), F32)
    exact = GroupNorm(2, 1e-6, F32, F32).apply(params, x)
    np.testing.assert_array_equal(norm.apply(params, x), exact.astype(jnp.float16))


# The angle is up to 999 radians, whose float32 has an error of 3e-5, and a frequency's ulp is 6e-5
SINUSOID = 2e-4


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("width", [8, 9])
def test_sinusoid(shift: int, flip: bool, width: int):
    t = np.array([0.0, 1.0, 37.25, 999.0])
    angles = t[:, None] * 10000.0 ** (-np.arange(4) / (4 - shift))
    parts = [np.cos(angles), np.sin(angles)] if flip else [np.sin(angles), np.cos(angles)]
    expected = np.concatenate([*parts, np.zeros((4, width % 2))], axis=1)
    ours = sinusoid(jnp.asarray(t, jnp.float32), width, flip, shift)
    np.testing.assert_allclose(ours, expected, atol=SINUSOID)


def test_fourier_weights_get_no_gradient():
    def loss(params):
        return Fourier(4, F32).apply(params, jnp.array([2.0])).sum()

    gradient = jax.grad(loss)({"params": {"weight": jnp.ones(4)}})
    np.testing.assert_array_equal(gradient["params"]["weight"], np.zeros(4))


def test_a_learned_embedding_rounds_and_is_nan_outside():
    table = draw(4, 3)
    module = Embedding(4, 3, F32)
    rows = module.apply({"params": {"embedding": jnp.asarray(table)}}, jnp.array([2.2, -0.4, 3.0]))
    np.testing.assert_array_equal(rows, table[[2, 0, 3]])
    outside = module.apply({"params": {"embedding": jnp.asarray(table)}}, jnp.array([-1, 4]))
    assert np.isnan(outside).all()


@pytest.mark.parametrize("shape", [(3, 3, 20, 30), (200, 300)])
def test_initial_weights_are_uniform_within_one_over_root_fan_in(shape: tuple[int, ...]):
    from ddpm_jax.models.layers.basic import uniform, uniform_bias

    fan_in = math.prod(shape[:-1])
    for values in (
        uniform(jax.random.key(0), shape, jnp.float32),
        uniform_bias(fan_in)(jax.random.key(1), (5000,), jnp.float32),
    ):
        scaled = np.asarray(values) * math.sqrt(fan_in)
        assert np.abs(scaled).max() <= 1 + 1e-6
        # thousands of draws: each quarter of the interval within 10 % of its share
        counts, _ = np.histogram(scaled, bins=4, range=(-1, 1))
        np.testing.assert_allclose(counts / scaled.size, 0.25, rtol=0.1)
