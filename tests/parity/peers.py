"""diffusers' schedulers run on a case: what the network is told and the sample after each step.

Where diffusers is wrong, a run here feeds it what makes its own formulas right, and says so:

- DDIM and PNDM take `t - T // N` for the previous timestep; `Stride` gives them the grid's own.
- PNDM tells the network a half step that is not the one it moved to when the stride is odd.
- PNDM mixes velocities of several timesteps; here each is read as eps first.
- DDPM and DDIM add noise on the last step; here that noise is zero (and eta is 0).
- `learned` takes the square root of the network's log variance; it gets exp(log variance).
- `fixed_large_log` takes the square root of a logarithm; its values are those of `fixed_large`.
- Euler's churn comes after the evaluation; here the evaluation sees the churned sample, and v is
  read at the churned level. The same for EDM's Euler.
- The DPM-Solvers truncate the timesteps of chosen noise levels to whole ones; these are told in
  full here.
- Their stochastic forms add noise on the last step; that step is the deterministic form's here.
- The third order of sde-dpmsolver++ has a constant of the wrong sign; what is missing is added.
- They take three channels of an output with a variance, whatever the image has; they get the first
  half.
- With "log_linear" levels Euler has one too many, and divides the churn by their number; it is left
  out here.
- A level at a limit of the churn may be rounded to the other side; limits are a little wider here.
- Churn above the largest level of zero terminal SNR is told a timestep before the last.
- KDPM2's ancestral form has sigma_down as the root of a difference; here it is sigma'^2 / sigma.
- A flow that is inverted and draws noise reads x0 at 1 - sigma; it runs as one that is not
  inverted, with the opposite output.
- RePaint jumps up by the betas after the level where it is; here they are those between the levels.
- One step of EDM's schedulers, ScoreSdeVe, KarrasVe and a flow with a terminal level goes from the
  largest level to the end.
- The norms in ScoreSdeVe's corrector are the expected ones, sqrt(d) and sqrt(d) / sigma.
- KarrasVe takes the squares of Karras et al.'s VE schedule for noise levels; it gets their roots.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests.parity.lifted import Brownian, build, injection  # noqa: E402
from tests.parity.lifted import noise as randomness  # noqa: E402
from tests.parity.scheduler_cases import Case  # noqa: E402

EDGE = 1e-9  # levels are this near, relative, to a limit of the churn if they are at it

Network = Callable[[np.ndarray, int], np.ndarray]
"""(scaled sample, index of the evaluation) -> output, both (B, H, W, C)."""


class Stride:
    """Stands in for `num_inference_steps` where diffusers computes `T // num_inference_steps`."""

    def __init__(self, stride: int):
        self.stride = stride

    def __rfloordiv__(self, other: int) -> int:
        return self.stride


def _tensor(x: np.ndarray) -> torch.Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def _array(x: torch.Tensor) -> np.ndarray:
    return np.moveaxis(x.numpy(), 1, -1)


def grid(scheduler: Any, n: int) -> list[int]:
    """diffusers' own timesteps, less the surplus entry it gives under trailing for some n."""
    ddpm = build(
        "DDPMScheduler",
        num_train_timesteps=scheduler.config.num_train_timesteps,
        timestep_spacing=scheduler.config.timestep_spacing,
        steps_offset=scheduler.config.steps_offset,
    )
    ddpm.set_timesteps(n)
    return [int(t) for t in ddpm.timesteps[:n]]


class Run:
    """One run: what the network was told and the sample after each evaluation."""

    def __init__(self) -> None:
        self.timesteps: list[float] = []
        self.samples: list[np.ndarray] = []
        self.init_scale = 1.0

    def append(self, timestep: Any, sample: torch.Tensor) -> torch.Tensor:
        self.timesteps.append(float(timestep))
        self.samples.append(_array(sample))
        return sample


def _log_variance(scheduler: Any, output: torch.Tensor) -> torch.Tensor:
    """The output with its second half as diffusers' `learned` wants it: the variance."""
    if scheduler.config.get("variance_type") != "learned":
        return output
    mean, log_var = output.chunk(2, dim=1)
    return torch.cat([mean, log_var.exp()], dim=1)


def run_ddpm(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """DDPM, without noise on the last step."""
    run = Run()
    scheduler.set_timesteps(timesteps=grid(scheduler, n))
    if scheduler.variance_type == "fixed_large_log":
        scheduler.variance_type = "fixed_large"
        scheduler.register_to_config(variance_type="fixed_large")
    sample = _tensor(x)
    last = len(scheduler.timesteps) - 1
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            randomness.value = _tensor(noise[i]) * (i < last)
            output = _log_variance(scheduler, _tensor(network(_array(sample), i)))
            sample = run.append(t, scheduler.step(output, t, sample).prev_sample)
    return run


def run_ddim(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    eta: float = 0.0,
    use_clipped_model_output: bool = False,
) -> Run:
    """DDIM over its true grid; the last step as if eta were 0."""
    run = Run()
    timesteps = grid(scheduler, n)
    sample = _tensor(x)
    for i, (t, t_next) in enumerate(zip(timesteps, [*timesteps[1:], -1], strict=True)):
        scheduler.num_inference_steps = Stride(t - t_next)
        output = _tensor(network(_array(sample), i))
        here = eta if t_next >= 0 else 0.0
        step = scheduler.step(
            output,
            t,
            sample,
            eta=here,
            use_clipped_model_output=use_clipped_model_output,
            variance_noise=_tensor(noise[i]),
        )
        sample = run.append(t, step.prev_sample)
    return run


def _runge_kutta(timesteps: list[int]) -> list[int]:
    """What PNDM's warm-up tells the network over the first three steps of a grid."""
    told: list[int] = []
    for t, t_next in pairwise(timesteps[:4]):
        half = t - (t - t_next) // 2
        told += [t, half, half, t_next]
    return told


def run_pndm(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    alpha_bar: np.ndarray | None = None,
) -> Run:
    """PNDM over its true grid; with `alpha_bar`, `network` predicts v and each v is read as eps."""
    run = Run()
    scheduler.set_timesteps(n)
    timesteps = grid(scheduler, n)
    gap = {t: t - t_next for t, t_next in zip(timesteps, [*timesteps[1:], -1], strict=True)}
    if scheduler.config.skip_prk_steps:
        told = [timesteps[0], *timesteps[1:2], *timesteps[1:]]
        strides = [gap[timesteps[0]], *([gap[timesteps[0]]] if n > 1 else [])]
        strides += [gap[t] for t in timesteps[1:]]
    else:
        warm = _runge_kutta(timesteps)
        scheduler.prk_timesteps = np.array(warm)
        told = [*warm, *timesteps[3:]]
        # The formulas halve the stride in the first and third stage of a step: the first goes to
        # the half step, the third from the half step on to the next timestep.
        strides = []
        for k in range(3):
            t, half, _, t_next = warm[4 * k : 4 * k + 4]
            strides += [2 * (t - half), 0, 2 * (half - t_next), 0]
        strides += [gap[t] for t in timesteps[3:]]
    sample = _tensor(x)
    for i, (t, stride) in enumerate(zip(told, strides, strict=True)):
        scheduler.num_inference_steps = Stride(stride)
        output = network(_array(sample), i)
        if alpha_bar is not None:
            output = np.sqrt(alpha_bar[t]) * output + np.sqrt(1 - alpha_bar[t]) * _array(sample)
        sample = run.append(t, scheduler.step(_tensor(output), t, sample).prev_sample)
    return run


def _with_its_limits(churn: dict[str, float], low: str, high: str) -> dict[str, float]:
    """Includes the levels at the limits of the churn in spite of rounding."""
    wider = {low: 1 - EDGE, high: 1 + EDGE}
    return {name: value * wider.get(name, 1.0) for name, value in churn.items()}


def _churn(scheduler: Any, i: int, n: int, churn: dict[str, float]) -> tuple[float, float]:
    """(sigma, raised sigma) of evaluation i: Karras et al. 2022, Algorithm 2, lines 4 to 5."""
    sigma = float(scheduler.sigmas[i])
    inside = churn.get("s_tmin", 0.0) <= sigma <= churn.get("s_tmax", float("inf"))
    gamma = min(churn.get("s_churn", 0.0) / n, 2**0.5 - 1) if inside else 0.0
    return sigma, sigma * (1 + gamma)


def _told(scheduler: Any, i: int, sigma: float, raised: float) -> float:
    """The timestep of the raised sigma, by diffusers' own inverse."""
    if raised == sigma:
        return float(scheduler.timesteps[i])
    if scheduler.config.timestep_type == "continuous":
        return np.log(raised) / 4
    alpha_bar = scheduler.alphas_cumprod.numpy()
    if raised**2 > 1 / alpha_bar[-1] - 1:
        return float(len(alpha_bar) - 1)
    return float(scheduler._sigma_to_t(np.array(raised), np.log(1 / alpha_bar - 1) / 2))


def _velocity_as_eps(x: torch.Tensor, v: torch.Tensor, sigma: float) -> torch.Tensor:
    """eps from v where x = x0 + sigma eps and v = (eps - sigma x0) / sqrt(1 + sigma^2)."""
    return v / (1 + sigma**2) ** 0.5 + x * sigma / (1 + sigma**2)


def run_euler(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    **churn: float,
) -> Run:
    """Euler, plain and ancestral; churn comes before the evaluation, as Algorithm 2 has it.

    A sample here is what the *next* evaluation reads, so with churn it holds its noise too.
    Row i draws noise[i]: the ancestral noise of its own step, or the churn of evaluation i + 1. The
    churn of evaluation 0 is part of x already.
    """
    run, churn = Run(), _with_its_limits(churn, "s_tmin", "s_tmax")
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)
    scheduler.sigmas = scheduler.sigmas[: n + 1]
    run.init_scale = float(scheduler.init_noise_sigma)
    velocity = bool(churn) and scheduler.config.prediction_type == "v_prediction"
    if velocity:  # diffusers reads v at the sigma before the churn
        scheduler.register_to_config(prediction_type="epsilon")
    sample = raised_sample = _tensor(x)
    levels = [_churn(scheduler, i, n, churn) for i in range(n)]
    scheduler.is_scale_input_called = True
    with injection():
        for i, (sigma, raised) in enumerate(levels):
            scaled = raised_sample / (raised**2 + 1) ** 0.5
            output = _tensor(network(_array(scaled), i))
            if velocity:
                output = _velocity_as_eps(raised_sample, output, raised)
            # `step` adds the churn to the sample it is given; without churn this is the sample.
            scale = churn.get("s_noise", 1.0) * (raised**2 - sigma**2) ** 0.5
            randomness.value = _tensor(noise[i])
            if raised > sigma:
                randomness.value = (raised_sample - sample) / scale
            t = scheduler.timesteps[i]
            sample = scheduler.step(output, t, sample, **churn).prev_sample
            raised_sample = sample
            if i + 1 < n:
                below, above = levels[i + 1]
                scale = churn.get("s_noise", 1.0) * (above**2 - below**2) ** 0.5
                raised_sample = sample + scale * _tensor(noise[i])
            run.append(_told(scheduler, i, sigma, raised), raised_sample)
    return run


def run_edm_euler(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    **churn: float,
) -> Run:
    """EDM's Euler, with churn before the evaluation; see `run_euler`."""
    run, churn = Run(), _with_its_limits(churn, "s_tmin", "s_tmax")
    scheduler.set_timesteps(n)
    _one_edm_step(scheduler)
    run.init_scale = float(scheduler.init_noise_sigma)
    sample = raised_sample = _tensor(x)
    levels = [_churn(scheduler, i, n, churn) for i in range(n)]
    scheduler.is_scale_input_called = True
    scheduler.set_begin_index(0)
    with injection():
        for i, (sigma, raised) in enumerate(levels):
            scaled = scheduler.precondition_inputs(raised_sample, raised)
            output = _tensor(network(_array(scaled), i))
            if raised > sigma:
                scale = churn.get("s_noise", 1.0) * (raised**2 - sigma**2) ** 0.5
                randomness.value = (raised_sample - sample) / scale
            sample = scheduler.step(output, scheduler.timesteps[i], sample, **churn).prev_sample
            raised_sample = sample
            if i + 1 < n:
                below, above = levels[i + 1]
                scale = churn.get("s_noise", 1.0) * (above**2 - below**2) ** 0.5
                raised_sample = sample + scale * _tensor(noise[i])
            run.append(scheduler.precondition_noise(torch.tensor(raised)), raised_sample)
    return run


def _one_edm_step(scheduler: Any) -> None:
    """Lets a single step go from the largest level to the end."""
    config = scheduler.config
    if len(scheduler.timesteps) == 1 and "sigma_data" in config and "sigma_schedule" in config:
        end = 0.0 if config.final_sigmas_type == "zero" else config.sigma_min
        scheduler.sigmas = torch.tensor([config.sigma_max, end])
        scheduler.timesteps = scheduler.precondition_noise(scheduler.sigmas[:1])
        if "algorithm_type" in config:  # the last step is the deterministic form's
            scheduler.register_to_config(algorithm_type="dpmsolver++")


def run_plain(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    **options: Any,
) -> Run:
    """diffusers' own loop, with row i's noise; `options` are those of `set_timesteps`.

    The last row adds no noise. Only EDM's stochastic DPM-Solver would: it stays at sigma_min, and
    the square root of a rounding error is 1e-8.
    """
    run = Run()
    steps = {} if "timesteps" in options else {"num_inference_steps": n}
    scheduler.set_timesteps(**steps, **options)
    _one_edm_step(scheduler)
    run.init_scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    sample = _tensor(x)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            scales = hasattr(scheduler, "scale_model_input")
            scaled = scheduler.scale_model_input(sample, t) if scales else sample
            randomness.value = _tensor(noise[i]) * (i < n - 1)
            output = _tensor(network(_array(scaled), i))
            sample = run.append(t, scheduler.step(output, t, sample).prev_sample)
    return run


def run_flow(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    **options: Any,
) -> Run:
    """Euler's method on straight paths, mended as above."""
    if n == 1:
        scheduler.register_to_config(shift_terminal=None)
    if not (scheduler.config.invert_sigmas and scheduler.config.stochastic_sampling):
        return run_plain(scheduler, n, network, x, noise, **options)
    scheduler.register_to_config(invert_sigmas=False)
    run = run_plain(scheduler, n, lambda sample, i: -network(sample, i), x, noise, **options)
    length = scheduler.config.num_train_timesteps
    run.timesteps = [length - t for t in run.timesteps]
    return run


def run_tcd(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    eta: float = 0.3,
    **options: Any,
) -> Run:
    """TCD, with row i's noise; `options` are those of `set_timesteps`."""
    run, sample = Run(), _tensor(x)
    steps = {} if "timesteps" in options else {"num_inference_steps": n}
    scheduler.set_timesteps(**steps, **options)
    scheduler.set_begin_index(0)
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            randomness.value = _tensor(noise[i])
            output = _tensor(network(_array(sample), i))
            sample = run.append(t, scheduler.step(output, t, sample, eta=eta).prev_sample)
    return run


def run_kdpm2(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """diffusers' own loop; the ancestral form has row i's noise, in a step's second evaluation."""
    run, sample = Run(), _tensor(x)
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)
    run.init_scale = float(scheduler.init_noise_sigma)
    if hasattr(scheduler, "sigmas_down"):
        _ancestral_midpoints(scheduler, n)
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            randomness.value = _tensor(noise[i])
            output = _tensor(network(_array(scheduler.scale_model_input(sample, t)), i))
            sample = run.append(t, scheduler.step(output, t, sample).prev_sample)
    return run


def _ancestral_midpoints(scheduler: Any, n: int) -> None:
    """sigma_down as sigma'^2 / sigma, with which the midpoint is sigma'."""
    sigmas = scheduler.sigmas[::2][:n].tolist()
    for i, (sigma, below) in enumerate(pairwise(sigmas)):
        scheduler.sigmas_down[2 * i : 2 * i + 2] = below**2 / sigma
        places = slice(max(2 * i - 1, 0), 2 * i + 1)
        scheduler.sigmas_interpol[places] = below
        scheduler.timesteps[2 * i + 1] = float(
            scheduler._sigma_to_t(np.array(below), scheduler.log_sigmas.numpy())
        )


def run_dpm_sde(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    **options: float,
) -> Run:
    """diffusers' own loop over a Brownian motion whose increments from each level to the midpoint,
    and from there to the next level, are the noise of a step's rows.
    """
    run, sample = Run(), _tensor(x)
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)
    run.init_scale = float(scheduler.init_noise_sigma)
    Brownian.parts = []
    for i, (sigma, below) in enumerate(pairwise(scheduler.sigmas[::2].tolist()[:n])):
        middle = (sigma * below) ** 0.5
        # the motion goes up, and diffusers down
        Brownian.parts.append((middle, sigma, -_tensor(noise[2 * i])))
        Brownian.parts.append((below, middle, -_tensor(noise[2 * i + 1])))
    for i, t in enumerate(scheduler.timesteps):
        output = _tensor(network(_array(scheduler.scale_model_input(sample, t)), i))
        sample = run.append(t, scheduler.step(output, t, sample, **options).prev_sample)
    return run


def run_score_sde_ve(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """The loop of diffusers' ScoreSdeVePipeline; the last sample is the mean, as there."""
    run = Run()
    run.init_scale = scheduler.init_noise_sigma
    scheduler.set_timesteps(n)
    scheduler.set_sigmas(n)
    if n == 1:
        scheduler.discrete_sigmas = torch.tensor([scheduler.config.sigma_max])
    sample, rows = _tensor(x), iter(range(len(noise)))
    snr = scheduler.config.snr
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            level = scheduler.discrete_sigmas[n - 1 - i]
            for row in islice(rows, scheduler.config.correct_steps):
                output = _tensor(network(_array(sample), row))
                draw = randomness.value = _tensor(noise[row])
                # the corrector's snr |z| / |score| becomes snr sigma
                norms = [torch.norm(one.flatten(1), dim=-1).mean() for one in (draw, output)]
                scheduler.register_to_config(snr=snr * level * norms[1] / norms[0])
                sample = scheduler.step_correct(output, sample).prev_sample
                run.append(scheduler.sigmas[i], sample)
            row = next(rows)
            randomness.value = _tensor(noise[row])
            stepped = scheduler.step_pred(_tensor(network(_array(sample), row)), t, sample)
            sample = stepped.prev_sample if i < n - 1 else stepped.prev_sample_mean
            run.append(scheduler.sigmas[i], sample)
    return run


def run_karras_ve(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """The loop of diffusers' KarrasVePipeline, without its network's scales.

    A sample here is what the next evaluation reads. Row i draws noise[i]: of the rows that end a
    step, the churn of the next one. The churn of the first step is part of x already.
    """
    run = Run()
    scheduler.set_timesteps(n)
    limits = {name: scheduler.config[name] for name in ("s_min", "s_max")}
    scheduler.register_to_config(**_with_its_limits(limits, "s_min", "s_max"))
    schedule = scheduler.schedule.sqrt().tolist() if n > 1 else [scheduler.config.sigma_max]
    steps = [(schedule[t], schedule[t - 1] if t > 0 else 0.0) for t in reversed(range(n))]
    first = _raised(scheduler, steps[0][0], n)
    run.init_scale = float(np.hypot(scheduler.init_noise_sigma, first[1]))
    sample, row = _tensor(x), 0
    with injection():
        for sigma, below in steps:
            hat = _raised(scheduler, sigma, n)[0]
            output = _tensor(network(_array(sample), row))
            stepped = scheduler.step(output, hat, below, sample)
            reached = stepped.prev_sample
            if below > 0:
                run.append(hat, reached)
                row += 1
                output = _tensor(network(_array(reached), row))
                reached = scheduler.step_correct(
                    output, hat, below, sample, reached, stepped.derivative
                ).prev_sample
                randomness.value = _tensor(noise[row])
                reached, _ = scheduler.add_noise_to_input(reached, below)
            run.append(below if below > 0 else hat, reached)
            sample, row = reached, row + 1
    return run


def _raised(scheduler: Any, sigma: float, n: int) -> tuple[float, float]:
    """The level after KarrasVe's churn, and the standard deviation of its noise."""
    config = scheduler.config
    inside = config.s_min <= sigma <= config.s_max
    hat = sigma * (1 + (min(config.s_churn / n, 2**0.5 - 1) if inside else 0.0))
    return hat, config.s_noise * (hat**2 - sigma**2) ** 0.5


def run_repaint(
    scheduler: Any,
    n: int,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    known: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    **jumps: int,
) -> Run:
    """RePaint; a sample here is what the *next* evaluation reads, after a jump up.

    A jump of several steps draws for each; they get shares of the one draw that our row has. Where
    the mask is 0 the image is known, and its shares are others: there the step's noise has the
    scale of the level.
    """
    run, sample = Run(), _tensor(x)
    scheduler.set_timesteps(n, **jumps)
    stride = scheduler.config.num_train_timesteps // n
    scheduler.betas = torch.cat([torch.zeros(stride - 1), scheduler.betas])
    told = [int(t) for t in scheduler.timesteps]
    mask = np.ones_like(x) if mask is None else mask
    known = np.zeros_like(x) if known is None else known
    while told:
        t = told.pop(0)
        output, z = _tensor(network(_array(sample), len(run.samples))), noise[len(run.samples)]
        ups, last = [], t
        while told and told[0] > last:
            ups.append(last)
            last = told.pop(0)
        betas = scheduler.betas.numpy()[[u + k for u in ups for k in range(stride)]]
        std = float(scheduler.eta * scheduler._get_variance(t) ** 0.5) if t else 0.0
        below = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        sigma = float((1 - scheduler.alphas_cumprod[below]) ** 0.5) if below >= 0 else 0.0
        shares = np.where(mask > 0, _shares(std, betas), _shares(sigma, betas))
        with injection():
            randomness.value = _tensor(shares[0] * z)
            step = scheduler.step(output, t, sample, _tensor(known), _tensor(1 - mask))
            sample = step.prev_sample
            randomness.value = [_tensor(share * z) for share in shares[1:]]
            for u in ups:
                sample = scheduler.undo_step(sample, u)
        run.append(t, sample)
    return run


def _shares(std: float, betas: np.ndarray) -> np.ndarray:
    """Of one draw, for a step's noise and that of each step up, (1 + ups, 1, 1, 1, 1)."""
    kept = np.sqrt(1 - betas)
    weights = [std * kept.prod(), *(b**0.5 * kept[j + 1 :].prod() for j, b in enumerate(betas))]
    norm = float(np.linalg.norm(weights)) or 1.0
    return np.reshape(weights, (-1, 1, 1, 1, 1)) / norm


def run_deterministic(
    scheduler: Any, n: int, network: Network, x: np.ndarray, **options: Any
) -> Run:
    """Any deterministic scheduler that needs no help: diffusers' own loop; `options` of `step`."""
    run = Run()
    scheduler.set_timesteps(n)
    run.init_scale = float(scheduler.init_noise_sigma)
    sample = _tensor(x)
    for i, t in enumerate(scheduler.timesteps):
        output = _tensor(network(_array(scheduler.scale_model_input(sample, t)), i))
        sample = run.append(t, scheduler.step(output, t, sample, **options).prev_sample)
    return run


def _sigma_told(scheduler: Any, sigma: float, timestep: Any) -> float:
    """The timestep of a noise level, before it is truncated."""
    config = scheduler.config
    if config.use_flow_sigmas:
        return sigma * config.num_train_timesteps
    cosine = config.beta_schedule == "squaredcos_cap_v2" and "use_lu_lambdas" in config
    whole = config.get("use_lu_lambdas", False) or config.use_karras_sigmas
    chosen = config.use_exponential_sigmas or config.use_beta_sigmas or (cosine and whole)
    if not chosen:
        return float(timestep)
    alpha_bar = scheduler.alphas_cumprod.numpy()
    return float(scheduler._sigma_to_t(np.array(sigma), np.log(1 / alpha_bar - 1) / 2))


def _missing_curve(scheduler: Any, i: int) -> torch.Tensor | float:
    """What the third order of sde-dpmsolver++ lacks at step i: alpha' times diffusers' D2."""
    config, orders = scheduler.config, getattr(scheduler, "order_list", None)
    few = config.lower_order_final and len(scheduler.timesteps) < 15
    third = 1 < i < len(scheduler.timesteps) - 1 - few if orders is None else orders[i] == 3
    if not third or config.solver_order < 3 or config.algorithm_type != "sde-dpmsolver++":
        return 0.0
    points = [scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[k]) for k in range(i - 2, i + 2)]
    older, old, here, end = (torch.log(alpha) - torch.log(sigma) for alpha, sigma in points)
    m2, m1, m0 = scheduler.model_outputs
    curve = ((m0 - m1) / (here - old) - (m1 - m2) / (old - older)) / (here - older)
    if orders is None:
        return points[-1][0] * (end - here) ** 2 * curve
    if config.solver_type == "midpoint":
        return 0.0
    return 2 * points[-1][0] * (end - older) ** 2 * curve


def run_dpm(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """The DPM-Solvers, mended as above."""
    run, config = Run(), scheduler.config
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)
    sample, last = _tensor(x), len(scheduler.timesteps) - 1
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            if i == last:
                plain = config.algorithm_type.removeprefix("sde-")
                scheduler.register_to_config(algorithm_type=plain)
            told = _sigma_told(scheduler, float(scheduler.sigmas[i]), t)
            randomness.value = _tensor(noise[i])
            output = _tensor(network(_array(sample), i)[..., : x.shape[-1]])
            sample = scheduler.step(output, t, sample).prev_sample
            sample = sample + _missing_curve(scheduler, i)
            run.append(told, sample)
    return run


def run_adams(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """UniPC, DEIS and SA-Solver, told fractional timesteps in full; tau is 0 in the last step."""
    run = Run()
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)
    sample, last = _tensor(x), scheduler.timesteps[-1]
    told = [
        _sigma_told(scheduler, float(scheduler.sigmas[i]), t)
        for i, t in enumerate(scheduler.timesteps)
    ]
    told_at = dict(zip(map(int, scheduler.timesteps), told, strict=True))
    if hasattr(scheduler, "tau_func"):
        tau = scheduler.tau_func
        scheduler.tau_func = lambda t: tau(told_at[int(t)]) if t != last else 0
    with injection():
        for i, t in enumerate(scheduler.timesteps):
            randomness.value = _tensor(noise[i])
            output = _tensor(network(_array(sample), i)[..., : x.shape[-1]])
            sample = run.append(told[i], scheduler.step(output, t, sample).prev_sample)
    return run


def run_ipndm(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """IPNDM. Its first step, from noise alone, loses x0 = -v, which is added."""
    run = Run()
    scheduler.set_timesteps(n)
    sample = _tensor(x)
    for i, t in enumerate(scheduler.timesteps):
        output = _tensor(network(_array(sample), i))
        sample = scheduler.step(output, t, sample).prev_sample
        if scheduler.alphas[i] == 0:
            sample = sample - scheduler.alphas[i + 1] * output
        run.append(t, sample)
    return run


def run_ddim_inverse(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """DDIM walked up its true grid, from the timestep before the first, -1."""
    run, sample = Run(), _tensor(x)
    scheduler.set_timesteps(n)
    if not scheduler.config.set_alpha_to_one:
        scheduler.initial_alpha_cumprod = scheduler.alphas_cumprod[0]
    for i, (before, t) in enumerate(pairwise([-1, *scheduler.timesteps.tolist()])):
        scheduler.num_inference_steps = Stride(t - before)
        output = _tensor(network(_array(sample), i))
        sample = run.append(t, scheduler.step(output, t, sample).prev_sample)
    return run


def run_dpm_inverse(
    scheduler: Any, n: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
) -> Run:
    """DPM-Solver walked up all of its levels: diffusers drops those with equal whole timesteps."""
    run, config, sample = Run(), scheduler.config, _tensor(x)
    scheduler.set_timesteps(n)
    told, scheduler._step_index = scheduler.timesteps.tolist(), 0
    if len(told) < n or config.use_exponential_sigmas or config.use_beta_sigmas:
        logs = np.log(1 / scheduler.alphas_cumprod.numpy() - 1) / 2
        told = [float(scheduler._sigma_to_t(np.array(float(s)), logs)) for s in scheduler.sigmas]
        told = np.round(told).tolist() if config.use_karras_sigmas else told
    scheduler.timesteps = torch.arange(n)  # its length is what a step looks at
    for i in range(n):
        output = _tensor(network(_array(sample), i)[..., : x.shape[-1]])
        sample = run.append(told[i], scheduler.step(output, i, sample).prev_sample)
    return run


RUNS: dict[str, Callable[..., Run]] = {
    "DPMSolverMultistepScheduler": run_dpm,
    "DPMSolverSinglestepScheduler": run_dpm,
    "DDPMScheduler": run_ddpm,
    "DDIMScheduler": run_ddim,
    "EulerDiscreteScheduler": run_euler,
    "EulerAncestralDiscreteScheduler": run_euler,
    "EDMEulerScheduler": run_edm_euler,
    "EDMDPMSolverMultistepScheduler": run_plain,
    "CMStochasticIterativeScheduler": run_plain,
    "FlowMatchEulerDiscreteScheduler": run_flow,
    "FlowMatchHeunDiscreteScheduler": run_plain,
    "ScoreSdeVeScheduler": run_score_sde_ve,
    "KarrasVeScheduler": run_karras_ve,
    "RePaintScheduler": run_repaint,
    "LCMScheduler": run_plain,
    "TCDScheduler": run_tcd,
    "KDPM2DiscreteScheduler": run_kdpm2,
    "KDPM2AncestralDiscreteScheduler": run_kdpm2,
    "DPMSolverSDEScheduler": run_dpm_sde,
    "UniPCMultistepScheduler": run_adams,
    "DEISMultistepScheduler": run_adams,
    "SASolverScheduler": run_adams,
    "IPNDMScheduler": run_ipndm,
    "DDIMInverseScheduler": run_ddim_inverse,
    "DPMSolverMultistepInverseScheduler": run_dpm_inverse,
}


def peer(
    case: Case,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    alpha_bar: np.ndarray | None = None,
) -> Run:
    """A case of `scheduler_cases`, run by diffusers."""
    config = dict(case.config)
    if case.name == "PNDMScheduler":
        velocity = config.get("prediction_type") == "v_prediction"
        if velocity:
            del config["prediction_type"]
        scheduler = build(case.name, alpha_bar, **config)
        bar = scheduler.alphas_cumprod.double().numpy() if velocity else None
        return run_pndm(scheduler, case.steps, network, x, bar)
    scheduler = build(case.name, alpha_bar, **config)
    run = RUNS.get(case.name)
    if run is None:
        return run_deterministic(scheduler, case.steps, network, x, **case.call)
    return run(scheduler, case.steps, network, x, noise, **case.call)
