"""Values that schedulers refuse."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import ddpm_jax as dj
from ddpm_jax.schedulers import SCHEDULERS

# (fields, what the message must name); refused by every scheduler that has the fields.
FIELDS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"beta_schedule": "quartic"}, "beta_schedule"),
    ({"beta_start": 0.0}, "beta"),
    ({"beta_end": 1.0}, "beta"),
    ({"beta_start": -0.1}, "beta"),
    ({"beta_start": "0.1"}, "beta_start"),
    ({"num_train_timesteps": 0}, "num_train_timesteps"),
    ({"num_train_timesteps": 10**12}, r"in 1..1000000, got 1000000000000"),
    ({"num_train_timesteps": 10.5}, "num_train_timesteps"),
    ({"num_train_timesteps": True}, "num_train_timesteps"),
    ({"trained_betas": (0.1, 0.2)}, "trained_betas"),
    ({"trained_betas": (0.1, 1.2) * 30, "num_train_timesteps": 60}, "betas"),
    ({"prediction_type": "flow"}, "prediction_type"),
    ({"timestep_spacing": "cubic"}, "timestep_spacing"),
    ({"steps_offset": -1}, "steps_offset"),
    ({"steps_offset": 1000}, "steps_offset"),
    ({"solver_order": 0}, "solver_order"),
    ({"solver_order": 4}, "solver_order"),
    ({"algorithm_type": "euler"}, "algorithm_type"),
    ({"algorithm_type": ["deis"]}, "algorithm_type"),
    ({"solver_type": "bh3"}, "solver_type"),
    ({"final_sigmas_type": "one"}, "final_sigmas_type"),
    ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "sigmas"),
    ({"use_karras_sigmas": True, "use_lu_lambdas": True}, "use_lu_lambdas"),
    ({"use_beta_sigmas": True, "use_flow_sigmas": True}, "use_flow_sigmas"),
    ({"predict_x0": False, "thresholding": True}, "thresholding"),
    ({"shift_terminal": 1.0, "use_flow_sigmas": True}, "shift_terminal"),
    ({"shift_terminal": 0.1, "use_flow_sigmas": False}, "shift_terminal"),
    ({"use_flow_sigmas": True, "prediction_type": "v_prediction"}, "v_prediction"),
    ({"prediction_type": "flow_prediction"}, "prediction_type"),
    ({"flow_shift": 3.0}, "flow_shift"),
    ({"use_flow_sigmas": True, "flow_shift": 0.0}, "flow_shift"),
    ({"use_dynamic_shifting": True, "flow_shift": 1.0}, "use_dynamic_shifting"),
    ({"time_shift_type": "linear"}, "time_shift_type"),
    ({"lambda_min_clipped": float("nan")}, "lambda_min_clipped"),
    ({"lambda_min_clipped": "-5"}, "lambda_min_clipped"),
    ({"euler_at_final": 1}, "euler_at_final"),
    ({"lower_order_final": None}, "lower_order_final"),
)

# schedulers whose levels lie between sigma_min and sigma_max
RANGED = (
    dj.EDMEulerScheduler,
    dj.EDMDPMSolverMultistepScheduler,
    dj.CMStochasticIterativeScheduler,
    dj.ScoreSdeVeScheduler,
    dj.KarrasVeScheduler,
)

OWN: tuple[tuple[Any, dict[str, Any], str], ...] = (
    (dj.DDPMScheduler, {"variance_type": "other"}, "variance_type"),
    (dj.DDPMScheduler, {"clip_sample": "yes"}, "clip_sample"),
    (dj.DDPMScheduler, {"clip_sample_range": 0.0}, "clip_sample_range"),
    (dj.DDIMScheduler, {"clip_sample_range": float("nan")}, "clip_sample_range"),
    (dj.DDIMScheduler, {"dynamic_thresholding_ratio": 1.5}, "dynamic_thresholding_ratio"),
    (dj.DDIMScheduler, {"sample_max_value": -1.0}, "sample_max_value"),
    (dj.DDIMScheduler, {"set_alpha_to_one": None}, "set_alpha_to_one"),
    (dj.PNDMScheduler, {"skip_prk_steps": 1}, "skip_prk_steps"),
    (dj.RePaintScheduler, {"eta": 1.5}, "eta"),
    (dj.EulerDiscreteScheduler, {"interpolation_type": "cubic"}, "interpolation_type"),
    (dj.EulerDiscreteScheduler, {"timestep_type": "whole"}, "timestep_type"),
    (dj.EulerDiscreteScheduler, {"timestep_type": "continuous"}, "timestep_type"),
    (dj.EulerDiscreteScheduler, {"sigma_max": 40.0}, "sigma_max"),
    (dj.EulerDiscreteScheduler, {"sigma_min": -1.0, "use_karras_sigmas": True}, "sigma_min"),
    *(
        (dj.DPMSolverMultistepScheduler, {"algorithm_type": form}, "final_sigmas_type")
        for form in ("dpmsolver", "sde-dpmsolver")
    ),
    (dj.DPMSolverMultistepScheduler, {"variance_type": "other"}, "variance_type"),
    *(
        (cls, {"use_karras_sigmas": True, "use_flow_sigmas": True} | more, name)
        for cls, more, name in (
            (dj.DPMSolverMultistepScheduler, {}, "use_flow_sigmas"),
            (dj.UniPCMultistepScheduler, {"flow_shift": 3.0}, "flow_shift"),
            (dj.UniPCMultistepScheduler, {"shift_terminal": 0.1}, "shift_terminal"),
        )
    ),
    *(
        (dj.SASolverScheduler, {name: order}, name)
        for name in ("predictor_order", "corrector_order")
        for order in (0, 5)
    ),
    (dj.SASolverScheduler, {"algorithm_type": "dpmsolver++"}, "algorithm_type"),
    (dj.SASolverScheduler, {"tau_func": 1.0}, "tau_func"),
    (dj.DDIMInverseScheduler, {"prediction_type": "sample"}, "prediction_type"),
    *(
        (dj.DPMSolverMultistepInverseScheduler, {"algorithm_type": form}, "algorithm_type")
        for form in ("sde-dpmsolver", "sde-dpmsolver++")
    ),
    *(
        (dj.DPMSolverMultistepInverseScheduler, {"use_flow_sigmas": True} | more, name)
        for name, more in (
            ("prediction_type", {"prediction_type": "sample"}),
            ("thresholding", {"prediction_type": "flow_prediction", "thresholding": True}),
        )
    ),
    *(
        (dj.IPNDMScheduler, {"trained_betas": sigmas}, "trained_betas")
        for sigmas in ((0.5,), (0.5, 0.5), (1.1, 0.5), (0.5, -0.1), ((0.5, 0.1),))
    ),
    (dj.IPNDMScheduler, {"trained_betas": (0.5, 0.1, 0.0), "num_train_timesteps": 1}, "at most"),
    (dj.UniPCMultistepScheduler, {"solver_p": dj.DDIMScheduler()}, "solver_p"),
    (dj.UniPCMultistepScheduler, {"solver_type": "euler"}, "solver_type"),
    (dj.UniPCMultistepScheduler, {"sigma_max": 5.0}, "sigma_max"),
    *(
        (dj.UniPCMultistepScheduler, {"disable_corrector": steps}, "disable_corrector")
        for steps in (None, [-1], (0.5,), "01", 3)
    ),
    (dj.DPMSolverSinglestepScheduler, {"algorithm_type": "dpmsolver"}, "final_sigmas_type"),
    (dj.DPMSolverSinglestepScheduler, {"algorithm_type": "sde-dpmsolver"}, "algorithm_type"),
)

OWN += (
    *((cls, {"sigma_min": 3.0, "sigma_max": 2.0}, "sigma_min") for cls in RANGED),
    *((cls, {"sigma_min": 0.0}, "sigma_min") for cls in RANGED),
    (dj.EDMEulerScheduler, {"sigma_schedule": "linear"}, "sigma_schedule"),
    (dj.EDMEulerScheduler, {"sigma_data": 0.0}, "sigma_data"),
    (dj.EDMEulerScheduler, {"rho": -7.0}, "rho"),
    (dj.EDMEulerScheduler, {"prediction_type": "sample"}, "prediction_type"),
    (dj.EDMDPMSolverMultistepScheduler, {"prediction_type": "sample"}, "prediction_type"),
    (dj.EDMDPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver"}, "algorithm_type"),
    (dj.EDMDPMSolverMultistepScheduler, {"solver_order": 4}, "solver_order"),
    (dj.CMStochasticIterativeScheduler, {"s_noise": -1.0}, "s_noise"),
    (dj.CMStochasticIterativeScheduler, {"num_train_timesteps": 1}, "num_train_timesteps"),
    (dj.FlowMatchEulerDiscreteScheduler, {"shift": 0.0}, "shift"),
    (dj.FlowMatchHeunDiscreteScheduler, {"shift": -1.0}, "shift"),
    *(
        (dj.FlowMatchEulerDiscreteScheduler, {"shift_terminal": end}, "shift_terminal")
        for end in (0.0, 1.0, "0.1")
    ),
    (dj.FlowMatchEulerDiscreteScheduler, {"base_shift": None}, "base_shift"),
    (dj.FlowMatchEulerDiscreteScheduler, {"max_image_seq_len": 256}, "max_image_seq_len"),
    (dj.FlowMatchEulerDiscreteScheduler, {"time_shift_type": "linear"}, "time_shift_type"),
    *(
        (cls, fields, next(iter(fields)))
        for cls in (dj.LCMScheduler, dj.TCDScheduler)
        for fields in (
            {"original_inference_steps": 0},
            {"original_inference_steps": 1001},
            {"timestep_scaling": 0.0},
            {"timestep_spacing": "trailing"},
            {"steps_offset": 1},
            {"set_alpha_to_one": False},
        )
    ),
    (dj.TCDScheduler, {"clip_sample": True}, "clip_sample"),
    (dj.DPMSolverSDEScheduler, {"noise_sampler_seed": 0}, "noise_sampler_seed"),
    (dj.TCDScheduler, {"timestep_scaling": 5.0}, "timestep_scaling"),
    (dj.ScoreSdeVeScheduler, {"snr": 1.0}, "snr"),
    (dj.ScoreSdeVeScheduler, {"sampling_eps": 0.0}, "sampling_eps"),
    (dj.ScoreSdeVeScheduler, {"correct_steps": -1}, "correct_steps"),
    *((dj.KarrasVeScheduler, {name: -1.0}, name) for name in ("s_churn", "s_noise", "s_min")),
)

STEPS: tuple[dict[str, Any], ...] = (
    *({"num_inference_steps": n} for n in (0, -1, 1_000_001, 2.5, "10", True)),
    {},
    {"num_inference_steps": 10, "start": 10},
    {"num_inference_steps": 10, "start": -1},
    {"num_inference_steps": 10, "start": 1.0},
    {"num_inference_steps": 0, "timesteps": [3, 2]},
    {"timesteps": [3, 2], "sigmas": [3.0, 2.0]},
    {"sigmas": [3.0, 2.0], "grid": "rho"},
    *(
        {"sigmas": grid}
        for grid in ([1.0], [1.0, 1.0], [2.0, 3.0], [1.0, -1.0], [4000.0, 3.0], "ab")
    ),
    *(
        {"timesteps": grid}
        for grid in ([], [5, 5], [1, 2], [10001, 3], [3, -1], [[3, 2]], [float("nan"), 3.0])
    ),
)

CALLS: tuple[tuple[Any, dict[str, Any], str], ...] = (
    (dj.DDPMScheduler(), {"timesteps": [5.5, 2.0]}, "timesteps"),
    (dj.DDIMScheduler(), {"num_inference_steps": 10, "eta": -0.1}, "eta"),
    (dj.DDIMScheduler(), {"num_inference_steps": 10, "eta": float("nan")}, "eta"),
    (dj.EulerDiscreteScheduler(), {"num_inference_steps": 10, "s_churn": -1.0}, "s_churn"),
    (dj.EulerDiscreteScheduler(), {"num_inference_steps": 10, "s_noise": -1.0}, "s_noise"),
    (dj.EDMEulerScheduler(), {"num_inference_steps": 10, "s_churn": -1.0}, "s_churn"),
    (dj.EDMEulerScheduler(rho=1e-3), {"num_inference_steps": 10}, "rho = 0.001 is too small"),
    (dj.FlowMatchEulerDiscreteScheduler(), {"sigmas": [1.005, 0.5]}, "sigmas"),
    (dj.DDIMScheduler(), {"num_inference_steps": 10, "grid": "even"}, "grid"),
    (dj.DDIMScheduler(), {"num_inference_steps": 10, "grid": "ays-sd15"}, "157"),
    (dj.DDIMScheduler(), {"grid": "rho"}, "num_inference_steps"),
    (
        dj.EulerDiscreteScheduler(use_karras_sigmas=True),
        {"num_inference_steps": 9, "grid": "dmn"},
        "use_karras_sigmas and grid",
    ),
    (
        dj.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"),
        {"num_inference_steps": 10, "grid": "dmn"},
        "no signal",
    ),
    (dj.FlowMatchEulerDiscreteScheduler(), {"num_inference_steps": 10, "grid": "rho"}, "no end"),
    (
        dj.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
        {"num_inference_steps": 10, "grid": "rho"},
        "no end",
    ),
    (dj.IPNDMScheduler(), {"sigmas": [1.005, 0.5]}, "sigmas"),
    (
        dj.DPMSolverMultistepInverseScheduler(prediction_type="sample"),
        {"sigmas": [0.0, 1.0, 2.0]},
        "prediction_type",
    ),
    *(
        (dj.LMSDiscreteScheduler(), {"num_inference_steps": 10, "order": k}, "order")
        for k in (0, 2.0, True, "4")
    ),
    *(
        (dj.RePaintScheduler(), {"num_inference_steps": 10, name: k}, name)
        for name in ("jump_length", "jump_n_sample")
        for k in (0, 2.0, True)
    ),
    (dj.LCMScheduler(), {"num_inference_steps": 51}, "original_inference_steps"),
    (dj.TCDScheduler(), {"num_inference_steps": 51}, "original_inference_steps"),
    *((dj.TCDScheduler(), {"num_inference_steps": 4, "eta": k}, "eta") for k in (-0.1, 1.1, "0")),
    *(
        (dj.DPMSolverSDEScheduler(), {"num_inference_steps": 4, "s_noise": k}, "s_noise")
        for k in (-1.0, float("inf"), float("nan"), "1")
    ),
    *(
        (
            dj.SASolverScheduler(tau_func=lambda t, tau=tau: tau),
            {"num_inference_steps": 3},
            "tau_func",
        )
        for tau in (-0.1, float("nan"), None, "1")
    ),
    (dj.EulerDiscreteScheduler(use_karras_sigmas=True), {"timesteps": [9, 3]}, "timesteps"),
    (dj.DPMSolverMultistepScheduler(use_lu_lambdas=True), {"timesteps": [9, 3]}, "timesteps"),
    (
        dj.DPMSolverMultistepScheduler(timestep_spacing="leading"),
        {"num_inference_steps": 1000},
        "num_inference_steps",
    ),
    (dj.DDIMScheduler(steps_offset=1), {"num_inference_steps": 1000}, "offset"),
    (dj.DDPMScheduler(steps_offset=2), {"num_inference_steps": 500}, "offset"),
    (dj.PNDMScheduler(steps_offset=100), {"num_inference_steps": 10}, "offset"),
)


def turned(cls: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Grids in the other order, for schedulers that walk up."""
    if not cls.ascends:
        return call
    return {name: value[::-1] if isinstance(value, list) else value for name, value in call.items()}


def attempts() -> Iterator[tuple[str, Callable[[], Any], str]]:
    """What is tried, in words and as a function, and what the message must name."""
    for cls in SCHEDULERS:
        own = {field.name for field in dataclasses.fields(cls)}
        for fields, named in (pair for pair in FIELDS if set(pair[0]) <= own):
            yield f"{cls.__name__}({fields})", lambda c=cls, f=fields: c(**f), named
        for call in STEPS:
            named = "start" if "start" in call else next(iter(call), "steps")
            call = turned(cls, call)
            yield f"{cls.__name__}().table({call})", lambda c=cls, k=call: c().table(**k), named
    for cls, fields, named in OWN:
        yield f"{cls.__name__}({fields})", lambda c=cls, f=fields: c(**f), named
    for scheduler, call, named in CALLS:
        yield f"{scheduler}.table({call})", lambda s=scheduler, k=call: s.table(**k), named
