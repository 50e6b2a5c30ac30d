"""What is compared with diffusers: every scheduler with every option, and the stand-in networks.

Needs neither torch nor jax: the golden files' script and the tests of both suites share it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

SHAPE = (2, 3, 2, 1)  # (B, H, W, C)
SPACINGS = ("leading", "trailing", "linspace")
STEPS = (1, 3, 10, 37, 50, 1000)  # 37 does not divide 1000, and gives an odd stride
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": list(np.linspace(1e-3, 0.4, 50)), "num_train_timesteps": 50},
)
ZERO_SNR: dict[str, Any] = {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
REFINEMENTS: tuple[dict[str, Any], ...] = (
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 2.5},
    {"clip_sample": False},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.7},
)
VARIANCES = (
    "fixed_small",
    "fixed_small_log",
    "fixed_large",
    "fixed_large_log",
    "learned",
    "learned_range",
)
SIGMAS: tuple[dict[str, Any], ...] = (
    {},
    {"use_karras_sigmas": True},
    {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 40.0},
    {"use_exponential_sigmas": True},
    {"use_exponential_sigmas": True, "sigma_min": 0.05, "sigma_max": 40.0},
    {"use_beta_sigmas": True},
    {"use_beta_sigmas": True, "sigma_min": 0.05, "sigma_max": 40.0},
)
CHURN: tuple[dict[str, float], ...] = (
    {"s_churn": 3.0},
    {"s_churn": 40.0},  # more than sqrt(2) - 1 a step
    {"s_churn": 5.0, "s_tmin": 0.3, "s_tmax": 30.0, "s_noise": 1.007},
)

ETAS: list[dict[str, Any]] = [{"call": call} for call in ({}, {"eta": 0.0}, {"eta": 1.0})]


# Slopes of networks whose input is x itself, up to sigma_max, and whose output is multiplied by
# sigma or its square.
UNSCALED = {"KarrasVeScheduler": 1e-3, "ScoreSdeVeScheduler": 1e-7}


@dataclasses.dataclass(frozen=True)
class Case:
    """A scheduler, its config, what `table` takes, and a number of steps."""

    name: str
    steps: int
    config: dict[str, Any]
    call: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        shown = {
            k: "..." if isinstance(v, list) or callable(v) else v
            for k, v in (self.config | self.call).items()
        }
        options = ",".join(f"{key}={value}" for key, value in shown.items())
        return f"{self.name.removesuffix('Scheduler')}-{self.steps}({options})"


def network_of(case: Case) -> Callable[[np.ndarray, int], np.ndarray]:
    """A smooth network of (scaled sample, index of the evaluation), the same in every library.

    Its slope stays under one half, and far under it on cosine grids, whose first step multiplies by
    thousands: rounding must not grow along a path. Clipping and thresholding are reached, since the
    predicted x0 passes 1.
    """
    variance = case.config.get("variance_type") or ""
    slope = 1e-3 if case.config.get("beta_schedule") == "squaredcos_cap_v2" else 0.5
    slope = UNSCALED.get(case.name, slope)
    place = np.arange(np.prod(SHAPE[1:])).reshape(SHAPE[1:])

    def network(x: np.ndarray, i: int) -> np.ndarray:
        output = 0.9 * np.sin(slope * x + 0.7 * place + 1.3 * i) + 0.8 * np.cos(
            2.1 * place + 0.4 * i
        )
        extra = 0.9 * np.sin(x + 0.3 * place + 0.9 * i)  # within [-1, 1]
        if variance == "learned":
            extra = 2 * extra - 3  # a log variance
        return np.concatenate([output, extra], -1) if variance.startswith("learned") else output

    return network


def noise_of(case: Case) -> list[np.ndarray]:
    """Stands in for unit noise; a formula, so that golden files need not hold it."""
    place = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    # at most two a step, as a rule
    rows = case.steps * (case.call.get("jump_n_sample", 1) + case.config.get("correct_steps", 1))
    return [1.4 * np.sin(12.9898 * place + 78.233 * i + 0.5) for i in range(rows + 1)]


def _product(name: str, steps: int, *axes: Any) -> Iterator[Case]:
    for combination in itertools.product(*axes):
        config: dict[str, Any] = {}
        call: dict[str, Any] = {}
        for part in combination:
            call |= part.get("call", {})
            config |= {key: value for key, value in part.items() if key != "call"}
        yield Case(name, steps, config, call)


def _axis(field: str, values: Any) -> list[dict[str, Any]]:
    return [{field: value} for value in values]


def _calls(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"call": call} for call in calls]


def _spacings(steps: int) -> list[dict[str, Any]]:
    """All of them; at 1000 steps they are one grid."""
    return _axis("timestep_spacing", SPACINGS if steps < 1000 else SPACINGS[:1])


def _ddpm() -> Iterator[Case]:
    name, prediction = "DDPMScheduler", _axis("prediction_type", PREDICTIONS)
    spacing, variance = _axis("timestep_spacing", SPACINGS), _axis("variance_type", VARIANCES)
    yield from _product(name, 10, prediction, spacing, REFINEMENTS, variance)
    for steps in STEPS:
        yield from _product(name, steps, prediction, _spacings(steps), variance[::2])
    more = [{"beta_schedule": "sigmoid"}, {"beta_schedule": "laplace"}]
    yield from _product(name, 10, prediction, spacing, [*SCHEDULES, *more], variance[::2])
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR], variance)
    yield from _product(name, 10, prediction, _axis("steps_offset", (1, 99)), variance)


def _ddim() -> Iterator[Case]:
    name, prediction = "DDIMScheduler", _axis("prediction_type", PREDICTIONS)
    spacing, end = _axis("timestep_spacing", SPACINGS), _axis("set_alpha_to_one", (True, False))
    clipped = _calls({}, {"use_clipped_model_output": True})
    calls = [
        {"call": {"eta": eta, "use_clipped_model_output": flag}}
        for eta in (0.0, 0.5, 1.0)
        for flag in (False, True)
    ]
    yield from _product(name, 10, prediction, spacing, REFINEMENTS, end, calls)
    for steps in STEPS:
        varied = _calls({}, {"eta": 0.7})
        yield from _product(name, steps, prediction, _spacings(steps), end, varied)
    yield from _product(name, 10, prediction, spacing, SCHEDULES, clipped)
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR], calls)
    yield from _product(name, 10, prediction, _axis("steps_offset", (1, 99)), end, clipped)


def _pndm() -> Iterator[Case]:
    name, prediction = "PNDMScheduler", _axis("prediction_type", ("epsilon", "v_prediction"))
    spacing, end = _axis("timestep_spacing", SPACINGS), _axis("set_alpha_to_one", (True, False))
    for steps in STEPS:
        # diffusers' warm-up needs four timesteps
        skip = _axis("skip_prk_steps", (True, False) if steps >= 4 else (True,))
        yield from _product(name, steps, prediction, _spacings(steps), end, skip)
    skip = _axis("skip_prk_steps", (True, False))
    yield from _product(name, 10, prediction, spacing, SCHEDULES, skip)
    yield from _product(name, 10, prediction, _axis("steps_offset", (1, 99)), skip)
    yield from _product(name, 4, prediction, spacing, skip)


def _euler() -> Iterator[Case]:
    name, prediction = "EulerDiscreteScheduler", _axis("prediction_type", PREDICTIONS)
    spacing = _axis("timestep_spacing", SPACINGS)
    final = _axis("final_sigmas_type", ("zero", "sigma_min"))
    curve = _axis("interpolation_type", ("linear", "log_linear"))
    yield from _product(name, 10, prediction, spacing, curve, SIGMAS, final)
    for steps in STEPS:
        yield from _product(name, steps, prediction, _spacings(steps), final)
        yield from _product(name, steps, SIGMAS[1::2], _spacings(steps))
    velocity = {"prediction_type": "v_prediction"}
    continuous = [velocity | {"timestep_type": "continuous"}]
    yield from _product(name, 10, continuous, spacing, SIGMAS, curve)
    yield from _product(name, 10, prediction, spacing, SCHEDULES, SIGMAS[:2])
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR], SIGMAS[::2])
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 99)]
    yield from _product(name, 10, prediction, offsets)
    yield from _product(name, 10, prediction, spacing, SIGMAS, _calls(*CHURN))
    yield from _product(name, 37, prediction, spacing, _calls(*CHURN), final)


def _euler_ancestral() -> Iterator[Case]:
    name = "EulerAncestralDiscreteScheduler"
    prediction = _axis("prediction_type", ("epsilon", "v_prediction"))
    spacing = _axis("timestep_spacing", SPACINGS)
    for steps in STEPS:
        yield from _product(name, steps, prediction, _spacings(steps))
    yield from _product(name, 10, prediction, spacing, SCHEDULES)
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR])
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 99)]
    yield from _product(name, 10, prediction, offsets)


# The forms of the DPM-Solvers, each where diffusers lets it end.
FORMS: tuple[dict[str, Any], ...] = (
    {"algorithm_type": "dpmsolver++"},
    {"algorithm_type": "dpmsolver++", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
)
CHOSEN_SIGMAS: tuple[dict[str, Any], ...] = (
    *({f"use_{kind}": True} for kind in ("karras_sigmas", "exponential_sigmas", "beta_sigmas")),
    {"use_lu_lambdas": True},
)
FLOWS: tuple[dict[str, Any], ...] = tuple(
    {"use_flow_sigmas": True, "prediction_type": prediction, "flow_shift": shift}
    for prediction, shift in (("flow_prediction", 1.0), ("flow_prediction", 3.0), ("epsilon", 3.0))
)
CLIPPED: dict[str, Any] = {"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"}


def _dpm_multistep() -> Iterator[Case]:
    name, prediction = "DPMSolverMultistepScheduler", _axis("prediction_type", PREDICTIONS)
    spacing, kind = _axis("timestep_spacing", SPACINGS), _axis("solver_type", ("midpoint", "heun"))
    orders, velocity = _axis("solver_order", (1, 2, 3)), {"prediction_type": "v_prediction"}
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, FORMS[:-1], orders)
        yield from _product(name, steps, FORMS[-1:], orders[:2])
    for steps in (3, 37):
        yield from _product(name, steps, spacing, prediction, orders[1:])
        yield from _product(name, steps, FORMS, kind[1:])
    threshold = [REFINEMENTS[-1]]
    yield from _product(name, 10, threshold, FORMS, prediction[::2], orders[1:2])
    for steps in (10, 20):
        yield from _product(name, steps, CHOSEN_SIGMAS, FORMS[:1], kind)
        # With "heun" diffusers' last of 20 steps is NaN: it stays at its level.
        yield from _product(
            name, steps, CHOSEN_SIGMAS, FORMS[1:3], kind if steps < 15 else kind[:1]
        )
        yield from _product(name, steps, FLOWS, FORMS[:2], orders)
        ends = [{"lower_order_final": False}, {"euler_at_final": True}]
        yield from _product(name, steps, ends, FORMS[:3], orders[1:])
    yield from _product(name, 10, FLOWS[2:], FORMS[2:5])
    yield from _product(name, 10, spacing, [CLIPPED, CLIPPED | velocity], FORMS[:3])
    yield from _product(name, 10, spacing, SCHEDULES, orders)
    yield from _product(name, 10, CHOSEN_SIGMAS, SCHEDULES)
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR], orders)
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 89)]
    yield from _product(name, 10, prediction, offsets)
    yield from _product(name, 10, _axis("variance_type", ("learned", "learned_range")), FORMS[::2])


def _edm_euler() -> Iterator[Case]:
    name = "EDMEulerScheduler"
    prediction = _axis("prediction_type", ("epsilon", "v_prediction"))
    curve = _axis("sigma_schedule", ("karras", "exponential"))
    final = _axis("final_sigmas_type", ("zero", "sigma_min"))
    ends = [{}, {"sigma_min": 0.03, "sigma_max": 50.0}, {"sigma_data": 1.3}, {"rho": 5.0}]
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, prediction, curve, final)
    yield from _product(name, 10, prediction, curve, ends[1:], final)
    yield from _product(name, 10, prediction, curve, ends[:2], _calls(*CHURN))
    yield from _product(name, 37, prediction, final, _calls(*CHURN))


def _edm_dpm_multistep() -> Iterator[Case]:
    name = "EDMDPMSolverMultistepScheduler"
    prediction = _axis("prediction_type", ("epsilon", "v_prediction"))
    form = _axis("algorithm_type", ("dpmsolver++", "sde-dpmsolver++"))
    kind, orders = _axis("solver_type", ("midpoint", "heun")), _axis("solver_order", (1, 2, 3))
    curve = _axis("sigma_schedule", ("karras", "exponential"))
    ends = [{}, {"sigma_min": 0.03, "sigma_max": 50.0}, {"sigma_data": 1.3}, {"rho": 5.0}]
    last = [{"lower_order_final": False}, {"euler_at_final": True}]
    yield from _product(name, 1, prediction, form, orders[:2])
    for steps in (2, 3, 10, 37, 50):
        yield from _product(name, steps, prediction, form, orders[:2])
        yield from _product(name, steps, prediction, form[:1], orders[2:])
    for steps in (3, 10):
        yield from _product(name, steps, prediction, form, kind[1:])
    for steps in (10, 20):
        yield from _product(name, steps, form, curve, ends[1:])
        yield from _product(name, steps, last, form, kind)
        yield from _product(name, steps, last, orders[2:])
    final = [{"final_sigmas_type": "sigma_min"}]
    yield from _product(name, 10, final, form, kind, prediction)
    yield from _product(name, 10, final, orders[::2])
    yield from _product(name, 10, [REFINEMENTS[-1]], form, kind, prediction)


def _consistency() -> Iterator[Case]:
    name = "CMStochasticIterativeScheduler"
    clip, noise = _axis("clip_denoised", (True, False)), _axis("s_noise", (1.0, 1.1, 0.0))
    ends = [{}, {"sigma_min": 0.03, "sigma_max": 50.0}, {"sigma_data": 1.3}, {"rho": 5.0}]
    for steps in (1, 2, 3, 10, 37, 40):
        yield from _product(name, steps, clip, ends)
    yield from _product(name, 10, clip, noise[1:], ends)
    yield from _product(name, 50, clip, _axis("num_train_timesteps", (50, 120)))
    grids = ([22, 0], [39, 17, 5], [30], [39, 20, 10, 2])
    for grid in grids:
        calls = _calls({"timesteps": grid})
        yield from _product(name, len(grid), clip, noise[:2], calls)


def _flow_match_euler() -> Iterator[Case]:
    name = "FlowMatchEulerDiscreteScheduler"
    stochastic = _axis("stochastic_sampling", (False, True))
    shift, terminal = _axis("shift", (1.0, 3.0, 0.5)), _axis("shift_terminal", (None, 0.1))
    flags = ({}, *({f"use_{kind}_sigmas": True} for kind in ("karras", "exponential", "beta")))
    inverted = {"invert_sigmas": True}
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, stochastic, shift, terminal)
    yield from _product(name, 10, stochastic, shift, terminal, flags[1:])
    yield from _product(name, 10, [inverted], shift, terminal, flags)
    yield from _product(name, 10, [inverted], stochastic[1:], shift, terminal)
    mus = _calls({"mu": 0.7}, {"mu": 1.15})
    for kind in ("exponential", "linear"):
        dynamic = [{"use_dynamic_shifting": True, "time_shift_type": kind, "shift": 3.0}]
        yield from _product(name, 10, dynamic, stochastic, mus, terminal, flags[:2])
    yield from _product(name, 10, _axis("num_train_timesteps", (60, 500)), shift, stochastic)


def _flow_match_heun() -> Iterator[Case]:
    name, shift = "FlowMatchHeunDiscreteScheduler", _axis("shift", (1.0, 3.0, 0.5))
    lengths = _axis("num_train_timesteps", (1000, 60, 500))
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, shift, lengths)


def _score_sde_ve() -> Iterator[Case]:
    name, correct = "ScoreSdeVeScheduler", _axis("correct_steps", (0, 1, 2))
    ends = [{}, {"sigma_min": 0.03, "sigma_max": 50.0}, {"snr": 0.3}, {"sampling_eps": 1e-3}]
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, correct, ends)


def _karras_ve() -> Iterator[Case]:
    name, churn = "KarrasVeScheduler", _axis("s_churn", (0.0, 3.0, 80.0))
    ends = [{}, {"sigma_min": 0.03, "sigma_max": 50.0}, {"s_noise": 1.0}]
    limits = [{}, {"s_min": 0.3, "s_max": 30.0}]
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, churn, ends, limits)


def _dpm_singlestep() -> Iterator[Case]:
    name, prediction = "DPMSolverSinglestepScheduler", _axis("prediction_type", PREDICTIONS)
    orders, kind = _axis("solver_order", (1, 2, 3)), _axis("solver_type", ("midpoint", "heun"))
    velocity, ends = {"prediction_type": "v_prediction"}, _axis("lower_order_final", (False, True))
    for steps in (1, 2, 3, 4, 5, 6, 10, 37, 50):  # all remainders of 2 and 3
        yield from _product(name, steps, FORMS[:-1], orders, kind[1:])
        yield from _product(name, steps, FORMS[1:3], orders[1:], kind[:1], ends[1:])
    for steps in (3, 37):
        yield from _product(name, steps, prediction, orders[1:])
        yield from _product(name, steps, FORMS[:-1], orders[1:], kind[:1])
    smooth = [form for form in FORMS if form["algorithm_type"] != "dpmsolver"][:-1]
    yield from _product(name, 10, [REFINEMENTS[-1]], smooth, prediction[::2], orders[1:])
    for steps in (10, 20):
        yield from _product(name, steps, CHOSEN_SIGMAS[:3], FORMS[:3], kind)
        yield from _product(name, steps, FLOWS, FORMS[:2], orders)
    yield from _product(name, 10, FLOWS[2:], FORMS[3:5])
    yield from _product(name, 20, FLOWS[2:], FORMS[2:3])
    yield from _product(name, 10, [CLIPPED, CLIPPED | velocity], FORMS[:3], orders)
    yield from _product(name, 10, SCHEDULES, orders)
    yield from _product(name, 10, CHOSEN_SIGMAS[:3], SCHEDULES)
    yield from _product(name, 10, _axis("variance_type", ("learned", "learned_range")), FORMS[::2])


def _repaint() -> Iterator[Case]:
    name, eta = "RePaintScheduler", _axis("eta", (0.0, 0.4, 1.0))
    clipped = _axis("clip_sample", (True, False))
    jumps = _calls(*({"jump_length": j, "jump_n_sample": r} for j, r in ((1, 2), (3, 2), (10, 4))))
    plain = _calls({"jump_n_sample": 1})
    for steps in (10, 20, 50):
        yield from _product(name, steps, [{"num_train_timesteps": steps}], eta, clipped, jumps)
    for steps in (1, 3, 10, 37, 50):
        yield from _product(name, steps, eta, clipped, plain)
        yield from _product(name, steps, eta, clipped[:1], jumps[:2])
    yield from _product(name, 10, SCHEDULES[:2], eta, plain)


def _lcm() -> Iterator[Case]:
    name, prediction = "LCMScheduler", _axis("prediction_type", PREDICTIONS)
    original = _axis("original_inference_steps", (10, 37, 1000))
    for steps in (1, 2, 3, 8, 10, 37, 50):
        yield from _product(name, steps, prediction)
    yield from _product(name, 10, prediction, [*REFINEMENTS, *SCHEDULES])
    yield from _product(name, 10, original, _axis("timestep_scaling", (10.0, 1e-3)))
    yield from _product(name, 10, prediction[1:], [ZERO_SNR])
    grids = ([999, 500, 0], [700, 20], [19])
    for grid in grids:
        yield from _product(name, len(grid), prediction, _calls({"timesteps": grid}))


def _tcd() -> Iterator[Case]:
    name, prediction = "TCDScheduler", _axis("prediction_type", PREDICTIONS)
    calls, original = ETAS, _axis("original_inference_steps", (10, 37, 1000))
    for steps in (1, 2, 3, 8, 10, 37, 50):
        yield from _product(name, steps, prediction, calls)
    yield from _product(name, 10, [*SCHEDULES, *original], calls)
    yield from _product(name, 10, prediction[1:], [ZERO_SNR], calls)
    for grid in ([999, 500, 0], [701, 23], [19]):
        yield from _product(name, len(grid), _calls({"timesteps": grid, "eta": 0.6}))


def _midpoint(name: str) -> Iterator[Case]:
    """KDPM2, its ancestral form, and the stochastic DPM-Solver of k-diffusion."""
    prediction = _axis("prediction_type", ("epsilon", "v_prediction"))
    spacing = _axis("timestep_spacing", SPACINGS)
    for steps in (1, 2, 3, 10, 50):
        yield from _product(name, steps, spacing)
    yield from _product(name, 37, prediction, spacing)
    yield from _product(name, 10, prediction, CHOSEN_SIGMAS[:3])
    yield from _product(name, 50, prediction[1:], CHOSEN_SIGMAS[:3])
    yield from _product(name, 10, spacing, SCHEDULES)
    yield from _product(name, 10, CHOSEN_SIGMAS[:3], SCHEDULES)
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 99)]
    yield from _product(name, 10, offsets)


def _dpm_sde() -> Iterator[Case]:
    yield from _midpoint("DPMSolverSDEScheduler")
    prediction = _axis("prediction_type", ("epsilon", "v_prediction"))
    yield from _product("DPMSolverSDEScheduler", 10, prediction, _calls({"s_noise": 1.1}))


def _unipc() -> Iterator[Case]:
    """Where diffusers reaches sigma 0: with bh2 and predict_x0, by a last step of first order.

    Flows begin at alpha = 1e-6, which says nothing about eps in float32.
    """
    name, prediction = "UniPCMultistepScheduler", _axis("prediction_type", PREDICTIONS)
    spacing, kind = _axis("timestep_spacing", SPACINGS), _axis("solver_type", ("bh1", "bh2"))
    orders, low = _axis("solver_order", (1, 2, 3)), {"final_sigmas_type": "sigma_min"}
    of_eps = {"predict_x0": False} | low
    flows = [*FLOWS[:2], FLOWS[2] | {"prediction_type": "sample"}]
    for steps in (1, 2, 3, 10, 37):
        yield from _product(name, steps, orders)
        yield from _product(name, steps, [low, of_eps], orders, kind)
    disabled = _axis("disable_corrector", ([0], [1, 2], list(range(10))))
    yield from _product(name, 10, [{}, of_eps], disabled, orders)
    yield from _product(name, 10, [low, of_eps], _axis("lower_order_final", (False,)), orders)
    yield from _product(name, 50, spacing, prediction)
    yield from _product(name, 10, prediction[1:], [of_eps], orders)
    yield from _product(name, 10, SIGMAS[1:], [{}, low, of_eps])
    for steps in (1, 10, 20):
        yield from _product(name, steps, flows, [{}, low], orders[1:])
    yield from _product(name, 10, flows[1:], _axis("shift_terminal", (0.1,)), [{}, low])
    karras = [{"use_karras_sigmas": True, "sigma_min": 0.01, "sigma_max": 200.0}, SIGMAS[1]]
    yield from _product(name, 10, FLOWS[:1], karras, [{}, low])
    yield from _product(name, 10, [REFINEMENTS[-1]], prediction[::2], orders)
    yield from _product(name, 10, SCHEDULES, [{}, of_eps], orders[1:])
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR])
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 89)]
    yield from _product(name, 10, prediction, offsets)


def _deis() -> Iterator[Case]:
    name, prediction = "DEISMultistepScheduler", _axis("prediction_type", PREDICTIONS)
    spacing, orders = _axis("timestep_spacing", SPACINGS), _axis("solver_order", (1, 2, 3))
    always = {"lower_order_final": False}
    for steps in (1, 2, 3, 10, 37, 50):
        yield from _product(name, steps, orders)
    yield from _product(name, 10, spacing, prediction, orders[1:])
    yield from _product(name, 10, CHOSEN_SIGMAS[:3], orders)
    yield from _product(name, 10, [always], orders)
    for steps in (1, 10):
        yield from _product(name, steps, FLOWS, orders)
    yield from _product(name, 10, [REFINEMENTS[-1]], prediction[::2], orders)
    yield from _product(name, 10, SCHEDULES, orders[1:])
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 89)]
    yield from _product(name, 10, prediction, offsets)


def some_noise(timestep: Any) -> float:
    return 0.6


def _sasolver() -> Iterator[Case]:
    name, prediction = "SASolverScheduler", _axis("prediction_type", PREDICTIONS)
    spacing, taus = _axis("timestep_spacing", SPACINGS), [{}, {"tau_func": some_noise}]
    form = _axis("algorithm_type", ("data_prediction", "noise_prediction"))
    pairs = [(1, 1), (2, 2), (3, 3), (1, 3), (3, 1), (4, 2), (2, 4)]
    orders = [{"predictor_order": p, "corrector_order": c} for p, c in pairs]
    for steps in (1, 2, 3, 10):
        yield from _product(name, steps, form, orders, taus)
    yield from _product(name, 37, form, orders[:2], taus)
    yield from _product(name, 10, spacing, prediction)
    yield from _product(name, 10, prediction[1:], form[1:])
    yield from _product(name, 10, _axis("lower_order_final", (False,)), form, orders[1:3])
    yield from _product(name, 10, CHOSEN_SIGMAS[:3], form)
    yield from _product(name, 10, FLOWS, orders[1:3])
    yield from _product(name, 10, FLOWS[2:], form[1:])
    yield from _product(name, 10, [REFINEMENTS[-1]], prediction[::2], taus)
    yield from _product(name, 10, SCHEDULES, form)
    yield from _product(name, 10, [CLIPPED], spacing)
    yield from _product(name, 10, _axis("variance_type", ("learned", "learned_range")), form)
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 89)]
    yield from _product(name, 10, offsets)


def _ipndm() -> Iterator[Case]:
    name = "IPNDMScheduler"
    for steps in (*range(1, 42), 50, 100):
        yield Case(name, steps, {})
    for sigmas in ([1.0, 0.9, 0.4, 0.0], [0.99, 0.6, 0.5, 0.2, 0.15, 0.1]):
        yield Case(name, len(sigmas) - 1, {"trained_betas": sigmas})


def _ddim_inverse() -> Iterator[Case]:
    name, prediction = "DDIMInverseScheduler", _axis("prediction_type", PREDICTIONS[::2])
    spacing, end = _axis("timestep_spacing", SPACINGS[:2]), _axis("set_alpha_to_one", (True, False))
    above = [{"prediction_type": "sample", "set_alpha_to_one": False}]
    yield from _product(name, 10, prediction, spacing, REFINEMENTS[:3], end)
    yield from _product(name, 10, above, spacing, REFINEMENTS[:3])
    for steps in (1, 3, 37, 50):
        yield from _product(name, steps, prediction, spacing, REFINEMENTS[2:3], end)
    yield from _product(name, 10, SCHEDULES, spacing, REFINEMENTS[2:3])
    yield from _product(name, 10, prediction[1:], spacing, [ZERO_SNR], REFINEMENTS[2:3])
    yield from _product(name, 10, prediction, _axis("steps_offset", (1, 99)))


def _dpm_inverse() -> Iterator[Case]:
    name, prediction = "DPMSolverMultistepInverseScheduler", _axis("prediction_type", PREDICTIONS)
    form = _axis("algorithm_type", ("dpmsolver++", "dpmsolver"))
    spacing, kind = _axis("timestep_spacing", SPACINGS), _axis("solver_type", ("midpoint", "heun"))
    orders = _axis("solver_order", (1, 2, 3))
    for steps in (1, 2, 3, 10, 37):
        yield from _product(name, steps, form, orders, kind)
    yield from _product(name, 10, spacing, prediction, form)
    yield from _product(name, 10, CHOSEN_SIGMAS[:3], form, orders)
    ends = [{"lower_order_final": False}, {"euler_at_final": True}]
    for steps in (10, 20):
        yield from _product(name, steps, ends, form, orders[1:])
    yield from _product(name, 10, [REFINEMENTS[-1]], form, prediction)
    yield from _product(name, 10, SCHEDULES, orders)
    yield from _product(name, 10, [CLIPPED], form, spacing)
    yield from _product(name, 10, _axis("variance_type", ("learned", "learned_range")))
    offsets = [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (1, 89)]
    yield from _product(name, 10, prediction, offsets)


def cases_by_fields(name: str, fields: Collection[str]) -> tuple[Case, ...]:
    """Cases of a scheduler without a list of its own, from the fields that it has."""
    prediction = _axis("prediction_type", PREDICTIONS)
    options = [o for o in (*SIGMAS, *REFINEMENTS, *SCHEDULES[:2]) if set(o) <= set(fields)]
    offset = {"timestep_spacing": "leading", "steps_offset": 1}
    found = list(_product(name, 10, prediction, [offset]))
    found += _product(name, 10, prediction, _spacings(10), options)
    for steps in (3, 37, 50):
        found += _product(name, steps, prediction[:1], _spacings(steps), options[:2])
    return tuple(found)


GROUPS: dict[str, tuple[Case, ...]] = {
    "DDPM": tuple(_ddpm()),
    "DDIM": tuple(_ddim()),
    "PNDM": tuple(_pndm()),
    "Euler": tuple(_euler()),
    "EulerAncestral": tuple(_euler_ancestral()),
    "DPMSolverMultistep": tuple(_dpm_multistep()),
    "EDMEuler": tuple(_edm_euler()),
    "EDMDPMSolverMultistep": tuple(_edm_dpm_multistep()),
    "CMStochasticIterative": tuple(_consistency()),
    "FlowMatchEuler": tuple(_flow_match_euler()),
    "FlowMatchHeun": tuple(_flow_match_heun()),
    "ScoreSdeVe": tuple(_score_sde_ve()),
    "KarrasVe": tuple(_karras_ve()),
    "DPMSolverSinglestep": tuple(_dpm_singlestep()),
    "RePaint": tuple(_repaint()),
    "LCM": tuple(_lcm()),
    "TCD": tuple(_tcd()),
    "KDPM2": tuple(_midpoint("KDPM2DiscreteScheduler")),
    "DPMSolverSDE": tuple(_dpm_sde()),
    "KDPM2Ancestral": tuple(_midpoint("KDPM2AncestralDiscreteScheduler")),
    "UniPCMultistep": tuple(_unipc()),
    "DEISMultistep": tuple(_deis()),
    "SASolver": tuple(_sasolver()),
    "IPNDM": tuple(_ipndm()),
    "DDIMInverse": tuple(_ddim_inverse()),
    "DPMSolverMultistepInverse": tuple(_dpm_inverse()),
}
