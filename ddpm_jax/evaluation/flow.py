r"""Log likelihoods by the probability flow, an ordinary differential equation.

With z = a x0 + b eps of unit variance and l = log(b / a) (`ddpm_jax.evaluation.continuous`) the
flow of any process is

    (1)  dz/dl = b eps(z, l) - b^2 z

and with its divergence the logarithm of the density changes along a path:

    (2)  log p(z_low) = log N(z_high; 0, I) + integral of div dl,
         div = b tr(d eps / dz) - b^2 D                                              [eq. 39]
    (3)  tr J = E v^T J v   for v with E v v^T = I                                   [eq. 40]

At the lowest level z_low / a is the image, so the density is that of data with noise of standard
deviation b / a (0.01 for DDPM's linear betas), and log p(x) = log p(z_low) + D log a. Pixels get
uniform noise of the width of a level, centred on it, so that in expectation

    (4)  bits/dim = -log2 p(x) / D + log2(127.5)

bounds the bits per dimension of the discrete pixels from above: 127.5 levels are one unit of x.

Reference: Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.2.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ddpm_jax._typing import AnyArray, is_number, is_whole
from ddpm_jax.evaluation.continuous import Ask, continuous, level_scales
from ddpm_jax.evaluation.levels import check_levels
from ddpm_jax.extras import check_installed
from ddpm_jax.likelihood import BIN, NATS_PER_BIT
from ddpm_jax.sampling.keys import Images, Keys, check_batch, keys_for
from ddpm_jax.sampling.loops import Denoise, check_denoise
from ddpm_jax.schedulers.base import Scheduler

Probe: TypeAlias = Literal["rademacher", "gaussian", "exact"]
"""What v is in (3): signs, normal numbers, or each unit vector, which gives the trace itself."""

DIFFRAX = ("diffrax",)
"""What it needs of the extra "evaluation"."""
PROBES = ("rademacher", "gaussian", "exact")
MOST_EXACT = 4096
"""Dimensions up to which the trace may be exact: one derivative for each."""


class FlowLikelihood(NamedTuple):
    """Log likelihoods by the probability flow.

    Attributes:
        bits_per_dim: (B,) equation (4).
        log_likelihood: (B,) log p(x) in nats, of the whole image.
        latents: (B, H, W, C) z at the highest level, which the flow leads back to the image.
        num_steps: (B,) of the solver; each evaluates the network and its derivative six times.
    """

    bits_per_dim: Float[AnyArray, "b"]
    log_likelihood: Float[AnyArray, "b"]
    latents: Float[AnyArray, "b h w c"]
    num_steps: Int[AnyArray, "b"]


def flow_log_likelihood(
    denoise: Denoise,
    params: Any,
    scheduler: Scheduler,
    x0: Images,
    keys: Keys,
    *,
    of_each: Any = None,
    dequantize: bool = True,
    probe: Probe = "rademacher",
    num_probes: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> FlowLikelihood:
    """The log likelihood of images by the probability flow, with adaptive steps (Tsitouras 5).

    Every image has steps of its own, and its draws come from keys[b] alone: it does not depend on
    the others of its batch. Rounding does depend on the batch's size and on the devices, and moves
    the adaptive steps: a figure may then move within its tolerance. One program for a network, a
    scheduler, a shape, a probe and their number. Needs diffrax: pip install 'ddpm-jax[likelihood]'.

    Args:
        denoise: denoise(params, x, timestep) -> output, static; it is given (1, H, W, C) and a ()
            float32 timestep that is fractional, and may be mapped over images by `jax.vmap`.
        params: any pytree, the same for all images.
        scheduler: one of betas, whatever its method; EDM's; or ScoreSdeVeScheduler.
        x0: (B, H, W, C) floats, p / 127.5 - 1 for pixels p in 0..255; without `dequantize` any.
        keys: (B,) one key per image.
        of_each: what is one for each image, such as class labels: a pytree of arrays (B, ...). If
            it is given, denoise gets the pair (params, of_each) with the (1, ...) of its image.
        dequantize: add uniform noise of the width of a level. False: x0 is continuous as it is.
        probe: of equation (3).
        num_probes: how many are averaged for each image; the spread falls with the root of it.
        rtol: relative tolerance of a step, > 0.
        atol: absolute tolerance, > 0; also of the log likelihood for each dimension.
        max_steps: the most steps, accepted or not.

    Raises:
        ImportError: diffrax is not installed.
        TypeError: `denoise` is a model.
        ValueError: a scheduler of another process, images that are not of 256 levels, an argument
            out of range, or an output of another shape.
        RuntimeError: an image needs more steps, or its path is not finite. (Inside `jax.jit` its
            numbers are NaN instead.)

    Source: arXiv:2011.13456, eq. 39 and 40.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> def denoise(
    ...     params, x, timestep
    ... ):  # exact for data of unit variance: x is N(0, 1) throughout
    ...     alpha_bar = jnp.interp(timestep, jnp.arange(1000.0), params)
    ...     return jnp.sqrt(1 - alpha_bar) * x
    >>> scheduler = dj.DDIMScheduler()
    >>> alpha_bar = jnp.asarray(scheduler.noise_schedule.alpha_bar, jnp.float32)
    >>> x0, keys = jnp.zeros((1, 2, 2, 1)), dj.sample_keys(jax.random.key(0), 1)
    >>> found = dj.flow_log_likelihood(denoise, alpha_bar, scheduler, x0, keys, dequantize=False)
    >>> round(float(found.log_likelihood[0]) / 4, 2)  # -log(2 pi) / 2
    -0.92
    """
    check_installed(DIFFRAX, "the probability flow", "likelihood")
    check_denoise(denoise, params)
    continuous(denoise, scheduler)  # refuses other processes
    check_batch(x0)
    _check_options(probe, num_probes, rtol, atol, max_steps, np.prod(x0.shape[1:]))
    if dequantize:
        check_levels(x0)
    if wrong := [np.shape(leaf) for leaf in jax.tree.leaves(of_each) if _first(leaf) != len(x0)]:
        raise ValueError(f"of_each must have arrays ({len(x0)}, ...), got shape {wrong[0]}")
    given = jnp.asarray(x0, jnp.float32), keys_for(x0, keys), of_each
    static = bool(dequantize), probe, int(num_probes), int(max_steps)
    tolerances = jnp.float32(rtol), jnp.float32(atol)
    found, reached = _flow(denoise, params, scheduler, *given, tolerances, *static)
    if not isinstance(reached, jax.core.Tracer):
        _check_reached(np.asarray(reached), max_steps)
    return found


def _first(leaf: Any) -> int | None:
    return np.shape(leaf)[0] if np.ndim(leaf) else None


def _check_options(
    probe: Any, num_probes: Any, rtol: Any, atol: Any, max_steps: Any, size: Any
) -> None:
    faults: list[str] = []
    if probe not in PROBES:
        faults.append(f"probe must be one of {', '.join(PROBES)}, got {probe!r}")
    if probe == "exact" and size > MOST_EXACT:
        faults.append(f"an exact trace is for at most {MOST_EXACT} dimensions, got {size}")
    if probe == "exact" and num_probes != 1:
        faults.append(f"an exact trace has no num_probes, got {num_probes!r}")
    for name, value in {"num_probes": num_probes, "max_steps": max_steps}.items():
        if not (is_whole(value) and value >= 1):
            faults.append(f"{name} must be a whole number of at least 1, got {value!r}")
    for name, value in {"rtol": rtol, "atol": atol}.items():
        if not (is_number(value) and 0 < value < 1):
            faults.append(f"{name} must lie in (0, 1), got {value!r}")
    if faults:
        raise ValueError("; ".join(faults))


def _check_reached(reached: Bool[np.ndarray, "b"], max_steps: int) -> None:
    if not reached.all():
        lost = np.flatnonzero(~reached)
        which = ", ".join(map(str, lost[:10]))
        raise RuntimeError(
            f"the flow of {len(lost)} of {len(reached)} images did not reach its end in "
            f"{max_steps} steps, or is not finite: images {which}"
            f"{', ...' if len(lost) > 10 else ''}. Raise max_steps, rtol and atol, or look at what "
            "the network answers"
        )


@partial(jax.jit, static_argnums=(0, 2, 7, 8, 9, 10))
def _flow(
    denoise: Denoise,
    params: Any,
    scheduler: Scheduler,
    x0: Array,
    keys: Array,
    of_each: Any,
    tolerances: tuple[Array, Array],
    dequantize: bool,
    probe: Probe,
    num_probes: int,
    max_steps: int,
) -> tuple[FlowLikelihood, Bool[Array, "b"]]:
    read, size = continuous(denoise, scheduler), x0[0].size
    ends = jnp.float32(read.low), jnp.float32(read.high)
    scale = level_scales(ends[0])[0]

    def one(image: Array, key: Array, own: Any) -> tuple[FlowLikelihood, Array]:
        if dequantize:
            image = image + uniform(key, image.shape)
        v = _probes(probe, num_probes, key, image.shape)
        whole = params if of_each is None else (params, jax.tree.map(lambda leaf: leaf[None], own))
        arguments = read.eps, whole, v
        z, change, steps, reached = _solved(
            scale * image, arguments, ends, tolerances, max_steps, probe == "exact"
        )
        normal = -0.5 * (jnp.square(z).mean() + np.float32(np.log(2 * np.pi)))
        nats = normal + change + jnp.log(scale)  # for each dimension
        nats = jnp.where(reached, nats, jnp.nan)
        bits = -nats / NATS_PER_BIT - np.float32(np.log2(2 * BIN))
        return FlowLikelihood(bits, nats * size, z, steps), reached

    return jax.vmap(one)(x0, keys, of_each)


def uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "h w c"]:
    """Noise of the width of a level, centred on it, from fold_in(key, 0)."""
    return jax.random.uniform(jax.random.fold_in(key, 0), shape, jnp.float32, -BIN, BIN)


def _probes(
    probe: Probe, count: int, key: Key[Array, ""], shape: tuple[int, ...]
) -> Float[Array, "k h w c"]:
    """Probes v of (3), from fold_in(key, 1); or all unit vectors."""
    key, stacked = jax.random.fold_in(key, 1), (count, *shape)
    if probe == "exact":
        return jnp.eye(int(np.prod(shape)), dtype=jnp.float32).reshape(-1, *shape)
    if probe == "gaussian":
        return jax.random.normal(key, stacked, jnp.float32)
    return jax.random.rademacher(key, stacked, jnp.float32)


def _solved(
    z: Float[Array, "h w c"],
    arguments: tuple[Ask, Any, Array],
    ends: tuple[Array, Array],
    tolerances: tuple[Array, Array],
    max_steps: int,
    exact: bool,
) -> tuple[Array, Array, Array, Array]:
    """What is reached: z, the integral of (2) for each dimension, the steps, whether it is done."""
    import diffrax

    eps, params, v = arguments
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(partial(_field, eps, exact)),
        diffrax.Tsit5(),
        *ends,
        None,
        (z, jnp.zeros((), jnp.float32)),
        (params, v),
        stepsize_controller=diffrax.PIDController(*tolerances),
        max_steps=max_steps,
        throw=False,
    )
    (z,), (change,) = solution.ys  # pyright: ignore[reportGeneralTypeIssues]
    reached = (solution.result == diffrax.RESULTS.successful) & jnp.isfinite(change)
    return z, change, solution.stats["num_steps"], reached


def _field(
    eps: Ask, exact: bool, level: Any, state: tuple[Array, Array], arguments: tuple[Any, Array]
) -> tuple[Array, Array]:
    """Equations (1) and (2), the latter for each dimension."""
    (z, _), (params, v) = state, arguments

    def answer(z: Array) -> Array:
        return eps(params, z[None], level)[0]

    _, b = level_scales(level)
    output, derivative = jax.linearize(answer, z)
    trace = (v * jax.vmap(derivative)(v)).sum() / (1 if exact else len(v))
    return b * (output - b * z), b * (trace / z.size - b)
