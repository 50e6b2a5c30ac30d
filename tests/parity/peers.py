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
from itertools import pairwise
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
    """One run: what the network was told and the sample after each evaluation.

    Args:
        scheduler: diffusers'.
        count: number of steps.
        network: see `Network`.
        x: where the run begins.
        noise: of each evaluation.
    """

    def __init__(
        self, scheduler: Any, count: int, network: Network, x: np.ndarray, noise: list[np.ndarray]
    ):
        self.scheduler, self.count, self.network, self.noise = scheduler, count, network, noise
        self.timesteps: list[float] = []
        self.samples: list[np.ndarray] = []
        self.sample, self.init_scale = _tensor(x), 1.0

    @property
    def row(self) -> int:
        """The index of the evaluation that comes next."""
        return len(self.samples)

    def begin(self, **options: Any) -> Any:
        """The timesteps that diffusers chooses; `options` are those of `set_timesteps`."""
        steps = {} if "timesteps" in options else {"num_inference_steps": self.count}
        self.scheduler.set_timesteps(**steps, **options)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        self.init_scale = float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        return self.scheduler.timesteps

    def output(self, sample: torch.Tensor | None = None) -> torch.Tensor:
        """The network's, of the sample or of what is given."""
        return _tensor(self.network(_array(self.sample if sample is None else sample), self.row))

    def scaled(self, timestep: Any) -> torch.Tensor:
        return self.scheduler.scale_model_input(self.sample, timestep)

    def draw(self, scale: float = 1.0) -> torch.Tensor:
        """The noise of this row, which diffusers will draw."""
        randomness.value = scale * _tensor(self.noise[self.row])
        return randomness.value

    def step(self, timestep: Any, output: torch.Tensor, told: Any = None, **options: Any) -> None:
        """A step of diffusers; the network was told the timestep or what is given."""
        stepped = self.scheduler.step(output, timestep, self.sample, **options)
        self.append(timestep if told is None else told, stepped.prev_sample)

    def append(self, told: Any, sample: torch.Tensor) -> None:
        self.timesteps.append(float(told))
        self.samples.append(_array(sample))
        self.sample = sample


def _log_variance(scheduler: Any, output: torch.Tensor) -> torch.Tensor:
    """The output with its second half as diffusers' `learned` wants it: the variance."""
    if scheduler.config.get("variance_type") != "learned":
        return output
    mean, log_var = output.chunk(2, dim=1)
    return torch.cat([mean, log_var.exp()], dim=1)


def run_ddpm(run: Run) -> None:
    """DDPM, without noise on the last step."""
    scheduler = run.scheduler
    scheduler.set_timesteps(timesteps=grid(scheduler, run.count))
    if scheduler.variance_type == "fixed_large_log":
        scheduler.variance_type = "fixed_large"
        scheduler.register_to_config(variance_type="fixed_large")
    for t in scheduler.timesteps:
        run.draw(run.row < run.count - 1)
        run.step(t, _log_variance(scheduler, run.output()))


def run_ddim(run: Run, eta: float = 0.0, **options: bool) -> None:
    """DDIM over its true grid; the last step as if eta were 0."""
    timesteps = grid(run.scheduler, run.count)
    for t, t_next in pairwise([*timesteps, -1]):
        run.scheduler.num_inference_steps = Stride(t - t_next)
        here = eta if t_next >= 0 else 0.0
        run.step(t, run.output(), eta=here, variance_noise=run.draw(), **options)


def _runge_kutta(timesteps: list[int]) -> list[int]:
    """What PNDM's warm-up tells the network over the first three steps of a grid."""
    told: list[int] = []
    for t, t_next in pairwise(timesteps[:4]):
        half = t - (t - t_next) // 2
        told += [t, half, half, t_next]
    return told


def run_pndm(run: Run) -> None:
    """PNDM over its true grid; each v is read as eps."""
    scheduler, n = run.scheduler, run.count
    velocity = scheduler.config.prediction_type == "v_prediction"
    if velocity:
        scheduler.register_to_config(prediction_type="epsilon")
    scheduler.set_timesteps(n)
    timesteps = grid(scheduler, n)
    gap = {t: t - t_next for t, t_next in pairwise([*timesteps, -1])}
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
    alpha_bar = scheduler.alphas_cumprod.double()
    for t, stride in zip(told, strides, strict=True):
        scheduler.num_inference_steps = Stride(stride)
        output = run.output()
        if velocity:
            output = alpha_bar[t].sqrt() * output + (1 - alpha_bar[t]).sqrt() * run.sample
        run.step(t, output)


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
    if hasattr(scheduler, "precondition_noise"):
        return float(scheduler.precondition_noise(torch.tensor(raised)))
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


def run_euler(run: Run, **churn: float) -> None:
    """Euler, plain, EDM's and ancestral; churn comes before the evaluation, as Algorithm 2 has it.

    A sample here is what the *next* evaluation reads, so with churn it holds its noise too.
    Row i draws noise[i]: the ancestral noise of its own step, or the churn of evaluation i + 1. The
    churn of evaluation 0 is part of x already.
    """
    scheduler, n, churn = run.scheduler, run.count, _with_its_limits(churn, "s_tmin", "s_tmax")
    run.begin()
    edm = hasattr(scheduler, "precondition_inputs")
    if edm:
        _one_edm_step(scheduler)
    scheduler.sigmas = scheduler.sigmas[: n + 1]
    velocity = bool(churn) and scheduler.config.prediction_type == "v_prediction" and not edm
    if velocity:  # diffusers reads v at the sigma before the churn
        scheduler.register_to_config(prediction_type="epsilon")
    levels, s_noise = [_churn(scheduler, i, n, churn) for i in range(n)], churn.get("s_noise", 1.0)
    scheduler.is_scale_input_called = True
    before = run.sample  # the sample without the churn
    for i, (sigma, raised) in enumerate(levels):
        scaled = run.sample / (raised**2 + 1) ** 0.5
        output = run.output(scheduler.precondition_inputs(run.sample, raised) if edm else scaled)
        if velocity:
            output = _velocity_as_eps(run.sample, output, raised)
        z = run.draw()
        # `step` adds the churn to the sample it is given; without churn this is the sample.
        if raised > sigma:
            added = s_noise * (raised**2 - sigma**2) ** 0.5
            randomness.value = (run.sample - before) / added
        before = scheduler.step(output, scheduler.timesteps[i], before, **churn).prev_sample
        below, above = levels[i + 1] if i + 1 < n else (0.0, 0.0)
        reached = before + s_noise * (above**2 - below**2) ** 0.5 * z
        run.append(_told(scheduler, i, sigma, raised), reached)


def _one_edm_step(scheduler: Any) -> None:
    """Lets a single step go from the largest level to the end."""
    config = scheduler.config
    if len(scheduler.timesteps) == 1 and "sigma_data" in config and "sigma_schedule" in config:
        end = 0.0 if config.final_sigmas_type == "zero" else config.sigma_min
        scheduler.sigmas = torch.tensor([config.sigma_max, end])
        scheduler.timesteps = scheduler.precondition_noise(scheduler.sigmas[:1])
        if "algorithm_type" in config:  # the last step is the deterministic form's
            scheduler.register_to_config(algorithm_type="dpmsolver++")


def run_plain(run: Run, **options: Any) -> None:
    """diffusers' own loop; `options` are those of `set_timesteps`.

    The last row adds no noise. Only EDM's stochastic DPM-Solver would: it stays at sigma_min, and
    the square root of a rounding error is 1e-8.
    """
    run.begin(**options)
    _one_edm_step(run.scheduler)
    scales = hasattr(run.scheduler, "scale_model_input")
    for t in run.scheduler.timesteps:
        run.draw(run.row < run.count - 1)
        run.step(t, run.output(run.scaled(t) if scales else None))


def run_flow(run: Run, **options: Any) -> None:
    """Euler's method on straight paths, mended as above."""
    scheduler, network = run.scheduler, run.network
    if run.count == 1:
        scheduler.register_to_config(shift_terminal=None)
    turned = scheduler.config.invert_sigmas and scheduler.config.stochastic_sampling
    if turned:
        scheduler.register_to_config(invert_sigmas=False)
        run.network = lambda sample, i: -network(sample, i)
    run_plain(run, **options)
    if turned:
        run.timesteps = [scheduler.config.num_train_timesteps - t for t in run.timesteps]


def run_tcd(run: Run, eta: float = 0.3, **options: Any) -> None:
    """diffusers' own loop; `options` are those of `set_timesteps`."""
    for t in run.begin(**options):
        run.draw()
        run.step(t, run.output(), eta=eta)


def run_kdpm2(run: Run) -> None:
    """diffusers' own loop; the ancestral form has row i's noise, in a step's second evaluation."""
    run.begin()
    if hasattr(run.scheduler, "sigmas_down"):
        _ancestral_midpoints(run.scheduler, run.count)
    for t in run.scheduler.timesteps:
        run.draw()
        run.step(t, run.output(run.scaled(t)))


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


def run_dpm_sde(run: Run, **options: float) -> None:
    """diffusers' own loop over a Brownian motion whose increments from each level to the midpoint,
    and from there to the next level, are the noise of a step's rows.
    """
    timesteps, Brownian.parts = run.begin(), []
    for i, (sigma, below) in enumerate(pairwise(run.scheduler.sigmas[::2].tolist()[: run.count])):
        middle = (sigma * below) ** 0.5
        # the motion goes up, and diffusers down
        Brownian.parts.append((middle, sigma, -_tensor(run.noise[2 * i])))
        Brownian.parts.append((below, middle, -_tensor(run.noise[2 * i + 1])))
    for t in timesteps:
        run.step(t, run.output(run.scaled(t)), **options)


def run_score_sde_ve(run: Run) -> None:
    """The loop of diffusers' ScoreSdeVePipeline; the last sample is the mean, as there."""
    scheduler, n = run.scheduler, run.count
    timesteps = run.begin()
    scheduler.set_sigmas(n)
    if n == 1:
        scheduler.discrete_sigmas = torch.tensor([scheduler.config.sigma_max])
    snr = scheduler.config.snr
    for i, t in enumerate(timesteps):
        level, told = scheduler.discrete_sigmas[n - 1 - i], scheduler.sigmas[i]
        for _ in range(scheduler.config.correct_steps):
            output, draw = run.output(), run.draw()
            # the corrector's snr |z| / |score| becomes snr sigma
            norms = [torch.norm(one.flatten(1), dim=-1).mean() for one in (draw, output)]
            scheduler.register_to_config(snr=snr * level * norms[1] / norms[0])
            run.append(told, scheduler.step_correct(output, run.sample).prev_sample)
        run.draw()
        stepped = scheduler.step_pred(run.output(), t, run.sample)
        run.append(told, stepped.prev_sample if i < n - 1 else stepped.prev_sample_mean)


def run_karras_ve(run: Run) -> None:
    """The loop of diffusers' KarrasVePipeline, without its network's scales.

    A sample here is what the next evaluation reads. Row i draws noise[i]: of the rows that end a
    step, the churn of the next one. The churn of the first step is part of x already.
    """
    scheduler, n = run.scheduler, run.count
    run.begin()
    limits = {name: scheduler.config[name] for name in ("s_min", "s_max")}
    scheduler.register_to_config(**_with_its_limits(limits, "s_min", "s_max"))
    schedule = scheduler.schedule.sqrt().tolist() if n > 1 else [scheduler.config.sigma_max]
    steps = [(schedule[t], schedule[t - 1] if t > 0 else 0.0) for t in reversed(range(n))]
    first = _raised(scheduler, steps[0][0], n)
    run.init_scale = float(np.hypot(scheduler.init_noise_sigma, first[1]))
    for sigma, below in steps:
        hat, sample = _raised(scheduler, sigma, n)[0], run.sample
        stepped = scheduler.step(run.output(), hat, below, sample)
        reached = stepped.prev_sample
        if below > 0:
            run.append(hat, reached)
            reached = scheduler.step_correct(
                run.output(), hat, below, sample, reached, stepped.derivative
            ).prev_sample
            run.draw()
            reached, _ = scheduler.add_noise_to_input(reached, below)
        run.append(below if below > 0 else hat, reached)


def _raised(scheduler: Any, sigma: float, n: int) -> tuple[float, float]:
    """The level after KarrasVe's churn, and the standard deviation of its noise."""
    config = scheduler.config
    inside = config.s_min <= sigma <= config.s_max
    hat = sigma * (1 + (min(config.s_churn / n, 2**0.5 - 1) if inside else 0.0))
    return hat, config.s_noise * (hat**2 - sigma**2) ** 0.5


def run_repaint(
    run: Run, known: np.ndarray | None = None, mask: np.ndarray | None = None, **jumps: int
) -> None:
    """RePaint; a sample here is what the *next* evaluation reads, after a jump up.

    A jump of several steps draws for each; they get shares of the one draw that our row has. Where
    the mask is 0 the image is known, and its shares are others: there the step's noise has the
    scale of the level.
    """
    scheduler, x = run.scheduler, _array(run.sample)
    told = [int(t) for t in run.begin(**jumps)]
    total = scheduler.config.num_train_timesteps
    stride = total // run.count
    scheduler.betas = torch.cat([torch.zeros(stride - 1), scheduler.betas])
    mask = np.ones_like(x) if mask is None else mask
    known = np.zeros_like(x) if known is None else known
    while told:
        t = told.pop(0)
        output, z = run.output(), run.noise[run.row]
        ups, last = [], t
        while told and told[0] > last:
            ups.append(last)
            last = told.pop(0)
        betas = scheduler.betas.numpy()[[u + k for u in ups for k in range(stride)]]
        std = float(scheduler.eta * scheduler._get_variance(t) ** 0.5) if t else 0.0
        below = t - total // scheduler.num_inference_steps
        sigma = float((1 - scheduler.alphas_cumprod[below]) ** 0.5) if below >= 0 else 0.0
        shares = np.where(mask > 0, _shares(std, betas), _shares(sigma, betas))
        randomness.value = _tensor(shares[0] * z)
        step = scheduler.step(output, t, run.sample, _tensor(known), _tensor(1 - mask))
        sample = step.prev_sample
        randomness.value = [_tensor(share * z) for share in shares[1:]]
        for u in ups:
            sample = scheduler.undo_step(sample, u)
        run.append(t, sample)


def _shares(std: float, betas: np.ndarray) -> np.ndarray:
    """Of one draw, for a step's noise and that of each step up, (1 + ups, 1, 1, 1, 1)."""
    kept = np.sqrt(1 - betas)
    weights = [std * kept.prod(), *(b**0.5 * kept[j + 1 :].prod() for j, b in enumerate(betas))]
    norm = float(np.linalg.norm(weights)) or 1.0
    return np.reshape(weights, (-1, 1, 1, 1, 1)) / norm


def run_deterministic(run: Run, **options: Any) -> None:
    """Any deterministic scheduler that needs no help: diffusers' own loop; `options` of `step`."""
    for t in run.begin():
        run.step(t, run.output(run.scaled(t)), **options)


def _sigma_told(scheduler: Any, i: int) -> float:
    """The timestep of a noise level, before it is truncated."""
    config, sigma = scheduler.config, float(scheduler.sigmas[i])
    if config.use_flow_sigmas:
        return sigma * config.num_train_timesteps
    cosine = config.beta_schedule == "squaredcos_cap_v2" and "use_lu_lambdas" in config
    whole = config.get("use_lu_lambdas", False) or config.use_karras_sigmas
    chosen = config.use_exponential_sigmas or config.use_beta_sigmas or (cosine and whole)
    if not chosen:
        return float(scheduler.timesteps[i])
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


def _prediction(run: Run) -> torch.Tensor:
    """The output without the channels of a variance."""
    return run.output()[:, : run.sample.shape[1]]


def run_dpm(run: Run) -> None:
    """The DPM-Solvers, mended as above."""
    scheduler, timesteps = run.scheduler, run.begin()
    for i, t in enumerate(timesteps):
        if i == len(timesteps) - 1:
            plain = scheduler.config.algorithm_type.removeprefix("sde-")
            scheduler.register_to_config(algorithm_type=plain)
        told = _sigma_told(scheduler, i)
        run.draw()
        sample = scheduler.step(_prediction(run), t, run.sample).prev_sample
        run.append(told, sample + _missing_curve(scheduler, i))


def run_adams(run: Run) -> None:
    """UniPC, DEIS and SA-Solver, told fractional timesteps in full; tau is 0 in the last step."""
    scheduler, timesteps = run.scheduler, run.begin()
    told = [_sigma_told(scheduler, i) for i in range(len(timesteps))]
    if hasattr(scheduler, "tau_func"):
        tau, told_at = scheduler.tau_func, dict(zip(map(int, timesteps), told, strict=True))
        scheduler.tau_func = lambda t: tau(told_at[int(t)]) if t != timesteps[-1] else 0
    for t in timesteps:
        run.draw()
        run.step(t, _prediction(run), told[run.row])


def run_ipndm(run: Run) -> None:
    """IPNDM. Its first step, from noise alone, loses x0 = -v, which is added."""
    scheduler = run.scheduler
    for i, t in enumerate(run.begin()):
        output = run.output()
        sample = scheduler.step(output, t, run.sample).prev_sample
        lost = scheduler.alphas[i + 1] * output if scheduler.alphas[i] == 0 else 0.0
        run.append(t, sample - lost)


def run_ddim_inverse(run: Run) -> None:
    """DDIM walked up its true grid, from the timestep before the first, -1."""
    scheduler, timesteps = run.scheduler, run.begin()
    if not scheduler.config.set_alpha_to_one:
        scheduler.initial_alpha_cumprod = scheduler.alphas_cumprod[0]
    for before, t in pairwise([-1, *timesteps.tolist()]):
        scheduler.num_inference_steps = Stride(t - before)
        run.step(t, run.output())


def run_dpm_inverse(run: Run) -> None:
    """DPM-Solver walked up all of its levels: diffusers drops those with equal whole timesteps."""
    scheduler, config, n = run.scheduler, run.scheduler.config, run.count
    scheduler.set_timesteps(n)
    told, scheduler._step_index = scheduler.timesteps.tolist(), 0
    if len(told) < n or config.use_exponential_sigmas or config.use_beta_sigmas:
        logs = np.log(1 / scheduler.alphas_cumprod.numpy() - 1) / 2
        told = [float(scheduler._sigma_to_t(np.array(float(s)), logs)) for s in scheduler.sigmas]
        told = np.round(told).tolist() if config.use_karras_sigmas else told
    scheduler.timesteps = torch.arange(n)  # its length is what a step looks at
    for i in range(n):
        run.step(i, _prediction(run), told[i])


RUNS: dict[str, Callable[..., None]] = {
    "DPMSolverMultistepScheduler": run_dpm,
    "DPMSolverSinglestepScheduler": run_dpm,
    "DDPMScheduler": run_ddpm,
    "DDIMScheduler": run_ddim,
    "PNDMScheduler": run_pndm,
    "EulerDiscreteScheduler": run_euler,
    "EulerAncestralDiscreteScheduler": run_euler,
    "EDMEulerScheduler": run_euler,
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


def follow(name: str, *given: Any, **options: Any) -> Run:
    """The run of a scheduler of that name; `given` are the arguments of `Run`."""
    run = Run(*given)
    with injection():
        RUNS.get(name, run_deterministic)(run, **options)
    return run


def peer(
    case: Case,
    network: Network,
    x: np.ndarray,
    noise: list[np.ndarray],
    alpha_bar: np.ndarray | None = None,
) -> Run:
    """A case of `scheduler_cases`, run by diffusers."""
    scheduler = build(case.name, alpha_bar, **case.config)
    return follow(case.name, scheduler, case.steps, network, x, noise, **case.call)
