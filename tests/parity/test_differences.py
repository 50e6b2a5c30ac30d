"""What docs/differences.md says of diffusers, as the installed one does it.

A test that fails here is good news: diffusers was mended, and the page has a line too many.
"""

import inspect
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from tests.parity import lifted  # noqa: E402

# diffusers' own: NumPy 2's copy keyword, and attention of width 0
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning"),
]

ZERO = torch.zeros(1, 1, 4, 4)
LOW = {"final_sigmas_type": "sigma_min"}
TINY: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D",) * 2,
    "up_block_types": ("UpBlock2D",) * 2,
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "add_attention": False,
}


def ready(name: str, steps: int = 10, **config: Any) -> Any:
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def pipeline(scheduler: str = "DDPMScheduler") -> Any:
    pipe = diffusers.DDPMPipeline(diffusers.UNet2DModel(**TINY), diffusers.DDPMScheduler())
    pipe.scheduler = getattr(diffusers, scheduler)()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stepped(scheduler: Any, output: Any = ZERO, at: int = 0, **options: Any) -> Any:
    """Where a step leads from zeros."""
    return scheduler.step(output, scheduler.timesteps[at], ZERO, **options).prev_sample


def end_of(scheduler: Any) -> Any:
    """Where a run ends from zeros, if the network answers with ones."""
    sample = ZERO
    for t in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, t)  # some count its calls
        sample = scheduler.step(ZERO + 1, t, sample).prev_sample
    return sample


# Timesteps.


def test_trailing_has_an_entry_too_many() -> None:
    timesteps = ready("DDIMScheduler", 61, timestep_spacing="trailing").timesteps
    assert (len(timesteps), int(timesteps[-1])) == (62, -1)


def test_ddim_does_not_step_to_its_next_timestep() -> None:
    """With a constant (x0, eps) the next level's x is known; float32 has 7 digits."""
    scheduler = ready("DDIMScheduler", timestep_spacing="linspace", clip_sample=False)
    now, after = (int(t) for t in scheduler.timesteps[-2:])
    bar = scheduler.alphas_cumprod
    eps = ZERO + 1
    stepped = scheduler.step(eps, now, bar[now].sqrt() * 0.5 + (1 - bar[now]).sqrt() * eps)
    expected = bar[after].sqrt() * 0.5 + (1 - bar[after]).sqrt() * eps
    assert abs(stepped.prev_sample - expected).max() > 1e-2


def test_an_offset_that_reaches_the_end() -> None:
    scheduler = ready("DDPMScheduler", 1000, steps_offset=1)
    with pytest.raises(IndexError):
        stepped(scheduler)
    options = {"timestep_spacing": "leading", "steps_offset": 200}
    scheduler = ready("HeunDiscreteScheduler", **options)
    assert scheduler.timesteps[0] == 1100
    assert scheduler.sigmas[0] == scheduler.sigmas[2]


def test_more_steps_than_timesteps() -> None:
    assert len(ready("EulerDiscreteScheduler", 2000).timesteps) == 2000
    assert ready("PNDMScheduler", 2000).timesteps.abs().max() == 0


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_pndm_of_few_steps(steps: int) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        ready("PNDMScheduler", steps)


# Steps.


def test_noise_on_the_last_step() -> None:
    options = {"timestep_spacing": "trailing"}
    ddpm = ready("DDPMScheduler", variance_type="fixed_large", **options)
    assert stepped(ddpm, at=-1).std() > 0.1
    ddim = ready("DDIMScheduler", set_alpha_to_one=False, **options)
    assert stepped(ddim, at=-1, eta=1.0).std() > 1e-3


def test_fixed_large_log_is_nan() -> None:
    scheduler = ready("DDPMScheduler", variance_type="fixed_large_log")
    assert stepped(scheduler).isnan().any()


def test_learned_variance_is_not_a_logarithm() -> None:
    """The square root of a log variance under 1 is no number."""
    scheduler = ready("DDPMScheduler", variance_type="learned")
    output = torch.cat([ZERO, ZERO - 4], dim=1)
    assert stepped(scheduler, output).isnan().all()


def test_ddim_does_not_split_the_output() -> None:
    scheduler = ready("DDIMScheduler")
    output = torch.cat([ZERO, ZERO], dim=1)
    assert stepped(scheduler, output).shape[1] == 2


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EDMEulerScheduler"])
def test_euler_churns_after_the_evaluation(name: str) -> None:
    """Noise of the step does not reach the network, so two draws differ by more than the step."""
    scheduler = ready(name)
    x = scheduler.scale_model_input(ZERO, scheduler.timesteps[0])
    assert x.abs().max() == 0  # what the network sees is free of churn
    assert stepped(scheduler, s_churn=5.0).std() > 1


def dpm_steps(count: int, **config: Any) -> Any:
    """The sample after some steps of a DPM-Solver whose network always predicts x0 = 0.5."""
    config = {"prediction_type": "sample", "final_sigmas_type": "sigma_min"} | config
    scheduler, x = ready("DPMSolverMultistepScheduler", 20, **config), ZERO
    for t in scheduler.timesteps[:count]:
        x = scheduler.step(ZERO + 0.5, t, x, variance_noise=ZERO + 1).prev_sample
    return x


def test_log_linear_levels_churn_less() -> None:
    """There is a level too many, by whose number the churn is divided."""
    scheduler = ready("EulerDiscreteScheduler", 10, interpolation_type="log_linear")
    assert (len(scheduler.timesteps), len(scheduler.sigmas)) == (10, 12)


def test_zero_terminal_snr_begins_before_the_last_timestep() -> None:
    """995 of 0..999, at the same level at which other runs begin at 999."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    scheduler = ready("EulerDiscreteScheduler", use_karras_sigmas=True, **options)
    plain = ready("EulerDiscreteScheduler", **options)
    assert scheduler.sigmas[0] == pytest.approx(float(plain.sigmas[0]), rel=1e-6)
    assert scheduler.timesteps[0] < 996 < plain.timesteps[0] == 999


def test_repaint_takes_no_list_of_betas() -> None:
    with pytest.raises(TypeError, match="list"):
        diffusers.RePaintScheduler(trained_betas=[0.1, 0.2])


def test_dpm_solver_ends_with_noise() -> None:
    """The last step has the noise of its argument, of standard deviation 0.01."""
    assert abs(dpm_steps(20, algorithm_type="sde-dpmsolver++").mean() - 0.5) > 0.005


def test_the_third_order_of_the_stochastic_dpm_solvers() -> None:
    """One lacks its formula. In the other D2 keeps a weight of -alpha' as the step goes to 0."""
    with pytest.warns(FutureWarning), pytest.raises(UnboundLocalError):
        dpm_steps(3, algorithm_type="sde-dpmsolver", solver_order=3)
    form = {"algorithm_type": "sde-dpmsolver++", "prediction_type": "sample", "solver_order": 3}
    scheduler, x = ready("DPMSolverMultistepScheduler", 998, **form), ZERO
    scheduler.set_begin_index(500)
    for output, t in zip((0.0, 0.0, 1.0), scheduler.timesteps[500:503], strict=True):
        x = scheduler.step(ZERO + output, t, x, variance_noise=ZERO).prev_sample
    assert x.mean() < -0.1  # alpha' is 0.28, and D2 is 1 / 2; a step this small moves x by 0.005


@pytest.mark.parametrize(
    ("kind", "steps", "config"),
    [
        ("DPMSolverMultistep", 1000, {"solver_type": "heun"}),
        ("EDMDPMSolverMultistep", 20, {"solver_type": "heun"} | LOW),
        ("UniPCMultistep", 1000, {}),
        ("DEISMultistep", 1000, {}),
        ("SASolver", 1000, {}),
    ],
)
def test_a_level_twice_is_nan(kind: str, steps: int, config: dict[str, Any]) -> None:
    scheduler = ready(f"{kind}Scheduler", steps, **config)
    assert scheduler.sigmas.diff().abs().min() < 1e-8
    assert end_of(scheduler).isnan().all()


def test_a_run_of_dpm_solver_changes_its_config() -> None:
    scheduler = ready("DPMSolverSinglestepScheduler", 5, final_sigmas_type="sigma_min")
    assert scheduler.config.lower_order_final
    scheduler.set_timesteps(4)
    assert scheduler.order_list == [1, 2, 1, 1]


def test_dpm_solver_truncates_timesteps() -> None:
    scheduler = ready("DPMSolverMultistepScheduler", 10, use_exponential_sigmas=True)
    assert scheduler.timesteps.dtype == torch.int64


def test_edm_takes_sigmas_for_places_of_a_ramp() -> None:
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(sigmas=torch.tensor([50.0, 5.0, 0.5]))
    assert scheduler.sigmas[2] == pytest.approx(2.5, rel=0.05)


def test_one_edm_step() -> None:
    """It begins at the smallest level, or stays at the largest."""
    assert ready("EDMEulerScheduler", 1, sigma_schedule="exponential").sigmas[0] < 0.01
    assert ready("EDMEulerScheduler", 1, final_sigmas_type="sigma_min").sigmas.tolist() == [80, 80]


def test_flows_shift_the_levels_that_they_are_given() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    assert scheduler.sigmas.tolist() == [1, 0.75, 0]
    scheduler.set_timesteps(timesteps=[1000.0, 500.0])
    assert (scheduler.timesteps.tolist(), scheduler.sigmas.tolist()) == ([1000, 500], [1, 0.75, 0])


def test_an_inverted_flow_with_noise_reads_the_wrong_end() -> None:
    """With exact answers x0 - eps the first step should reach x0 / 4 + 3 z / 4."""
    options = {"invert_sigmas": True, "stochastic_sampling": True}
    scheduler = ready("FlowMatchEulerDiscreteScheduler", 5, **options)
    x0, eps = ZERO + 40.0, ZERO + 1.0
    reached = scheduler.step(x0 - eps, scheduler.timesteps[0], eps).prev_sample
    assert abs(reached - 10).min() > 5


def test_one_step_to_a_terminal_level_is_nan() -> None:
    with pytest.warns(RuntimeWarning, match="invalid value"):
        scheduler = ready("FlowMatchEulerDiscreteScheduler", 1, shift_terminal=0.1)
    assert scheduler.sigmas.isnan().any()


def test_churn_leaves_a_straight_path() -> None:
    """With exact answers eps - x0 at x = eps and sigma 1, a step of Heun should be exact."""
    scheduler = ready("FlowMatchHeunDiscreteScheduler", 3)
    x0, x = ZERO + 3.0, ZERO + 1.0
    velocity = x - x0
    for t in scheduler.timesteps:
        x = scheduler.step(velocity, t, x, s_churn=1.0, s_noise=0.0).prev_sample
    assert abs(x - x0).max() > 0.1


def test_the_corrector_depends_on_the_batch() -> None:
    scheduler = ready("ScoreSdeVeScheduler")
    scheduler.set_sigmas(10)
    score = torch.cat([ZERO + 1, ZERO + 100])

    def corrected(batch: int) -> Any:
        generator = torch.Generator().manual_seed(0)
        return scheduler.step_correct(score[:batch], score[:batch], generator).prev_sample[0]

    assert abs(corrected(1) - corrected(2)).max() > 0.01


def test_one_step_of_the_sde_begins_at_the_smallest_level() -> None:
    scheduler = ready("ScoreSdeVeScheduler", 1)
    scheduler.set_sigmas(1)
    assert scheduler.discrete_sigmas.tolist() == pytest.approx([0.01])


def test_an_early_end_of_the_sde_repeats_levels() -> None:
    scheduler = ready("ScoreSdeVeScheduler", sampling_eps=0.2)
    places = [int(float(t) * 9 + 1e-5) for t in scheduler.timesteps]
    assert len(set(places)) < 10


def test_karras_ve_takes_squares_for_levels() -> None:
    schedule = ready("KarrasVeScheduler").schedule
    assert [float(schedule[-1]), float(schedule[0])] == pytest.approx([100.0**2, 0.02**2])
    assert ready("KarrasVeScheduler", 1).schedule.isnan().all()


def test_the_sde_takes_no_generator() -> None:
    cls = lifted.MODULES["DPMSolverSDEScheduler"].DPMSolverSDEScheduler
    assert "generator" not in inspect.signature(cls.step).parameters
    scheduler = cls(prediction_type="sample")
    scheduler.set_timesteps(4)
    with pytest.raises(NotImplementedError):
        stepped(scheduler)


def test_tcd_does_not_read_its_clipping() -> None:
    scheduler = ready("TCDScheduler", 4, clip_sample=True, timestep_spacing="trailing")
    assert scheduler.timesteps[1] == 759
    assert stepped(scheduler, ZERO + 9).abs().min() > 10


def test_pipelines_give_tcd_an_eta_of_zero() -> None:
    call, step = diffusers.StableDiffusionPipeline.__call__, diffusers.TCDScheduler.step
    defaults = [inspect.signature(function).parameters["eta"].default for function in (call, step)]
    assert defaults == [0.0, 0.3]


OF_X0 = {"prediction_type": "sample"}
THIRD = {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}
THRESHOLDED = {"algorithm_type": "dpmsolver", "thresholding": True}


@pytest.mark.parametrize(
    ("kind", "config", "error"),
    [
        ("DDPM", {"variance_type": "learned_range"}, TypeError),  # of one channel
        ("EulerAncestralDiscrete", OF_X0, NotImplementedError),
        ("PNDM", OF_X0, ValueError),
        ("KDPM2Discrete", OF_X0, NotImplementedError),
        ("KDPM2AncestralDiscrete", OF_X0, NotImplementedError),
        ("EDMDPMSolverMultistep", OF_X0, ValueError),
        ("EDMDPMSolverMultistep", THIRD, UnboundLocalError),
        ("DPMSolverSinglestep", THRESHOLDED | LOW, RuntimeError),
        ("SASolver", THRESHOLDED | {"algorithm_type": "noise_prediction"}, RuntimeError),
    ],
)
@pytest.mark.filterwarnings("ignore:.algorithm_type:FutureWarning")
def test_runs_that_fail(kind: str, config: dict[str, Any], error: Any) -> None:
    scheduler = ready(f"{kind}Scheduler", **config)
    with pytest.raises(error):
        end_of(scheduler)


def test_eta_above_one_is_nan() -> None:
    scheduler = ready("DDIMScheduler")
    assert stepped(scheduler, at=3, eta=1.5).isnan().any()


# Precision and configs.


def test_half_precision_adds_no_noise_at_timestep_zero() -> None:
    one, first = (ZERO + 1).half(), torch.tensor([0])
    assert (diffusers.DDPMScheduler().add_noise(one, one, first) == 1).all()


def test_an_ancestral_midpoint_that_is_lost() -> None:
    """It should be the next level. In 10 steps it is NaN or too high, as the processor rounds."""
    options = {"beta_schedule": "squaredcos_cap_v2"}
    assert ready("KDPM2AncestralDiscreteScheduler", 5, **options).sigmas_interpol[0].isnan()
    scheduler = ready("KDPM2AncestralDiscreteScheduler", 10, **options)
    assert not scheduler.sigmas_interpol[0] / scheduler.sigmas[1] <= 1.2


def test_zero_terminal_snr_with_epsilon() -> None:
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler = ready("DDIMScheduler", clip_sample=False, **options)
    assert not stepped(scheduler, ZERO + 0.1).isfinite().any()
    assert ready("EulerDiscreteScheduler", **options).sigmas[0] == pytest.approx(4096, abs=0.1)


def test_fields_that_have_no_effect() -> None:
    plain = ready("DPMSolverMultistepScheduler").sigmas
    for fields in ({"flow_shift": 3.0}, {"time_shift_type": "linear"}):
        assert (ready("DPMSolverMultistepScheduler", **fields).sigmas == plain).all()
    plain = ready("EulerDiscreteScheduler").sigmas
    assert (ready("EulerDiscreteScheduler", sigma_min=0.05, sigma_max=40.0).sigmas == plain).all()


def test_predictions_that_do_not_fit_the_levels() -> None:
    name, options = "DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}
    for fields in (options, {"prediction_type": "v_prediction", "use_flow_sigmas": True}):
        scheduler = ready(name, **fields)
        assert stepped(scheduler).isfinite().all()
    assert ready("EulerDiscreteScheduler", timestep_type="continuous").timesteps[0] == 999


def test_schedules_that_some_schedulers_lack() -> None:
    for kind in ("sigmoid", "laplace"):
        assert len(diffusers.DDPMScheduler(beta_schedule=kind).betas) == 1000
        with pytest.raises(NotImplementedError):
            diffusers.DDIMScheduler(beta_schedule=kind)


def test_what_no_config_check_finds() -> None:
    scheduler = ready("DDPMScheduler", variance_type="other")
    assert stepped(scheduler).isfinite().all()
    assert len(diffusers.DDPMScheduler(trained_betas=[0.1, 0.2]).betas) == 2
    assert diffusers.UNet2DModel(**TINY | {"mid_block_type": "Anything"}).mid_block is not None
    wide = {"add_attention": True, "attention_head_dim": 16}
    attention = diffusers.UNet2DModel(**TINY | wide).mid_block.attentions[0]
    assert attention.to_q.weight.shape[0] == 0


def test_sizes_that_do_not_halve() -> None:
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        diffusers.UNet2DModel(**TINY)(torch.zeros(1, 1, 7, 7), 1)


# Pipelines.


def test_pndm_in_the_ddpm_pipeline() -> None:
    with pytest.raises(TypeError, match="generator"):
        pipeline("PNDMScheduler")(num_inference_steps=5)


def test_one_generator_depends_on_the_batch() -> None:
    pipe, images = pipeline(), []
    for batch in (1, 3):
        generator = torch.Generator().manual_seed(0)
        call = {"generator": generator, "num_inference_steps": 3, "output_type": "np"}
        images.append(pipe(batch_size=batch, **call).images[0])
    assert abs(images[0] - images[1]).max() > 0.1


def test_three_generators_for_two_pictures() -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    made = pipeline()(batch_size=2, generator=generators, num_inference_steps=1).images
    assert len(made) == 2


def test_unknown_output_type() -> None:
    made = pipeline()(num_inference_steps=1, output_type="banana").images
    assert type(made).__name__ == "ndarray"


# The autoencoder.


def tiled(sample_size: int) -> Any:
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        sample_size=sample_size,
    )
    vae.enable_tiling()
    return vae.requires_grad_(False)


def test_a_tile_with_less_than_a_latent_pixel() -> None:
    """The tiles begin at 0 and 12."""
    assert tiled(16).encode(torch.zeros(1, 3, 16, 18)).latent_dist.mean.shape[-1] == 9
    with pytest.raises(RuntimeError, match="Kernel size"):
        tiled(16).encode(torch.zeros(1, 3, 16, 25))


def test_an_overlap_of_no_whole_latent_pixels() -> None:
    """Tiles of 5, which begin at 0, 3, 6 and 9, give 8, 8, 8 and 4 pixels."""
    assert tiled(10).decode(torch.zeros(1, 4, 5, 11)).sample.shape[-1] == 28


# UniPC.


@pytest.mark.parametrize(
    "config",
    [{"solver_type": "bh1"}, {"predict_x0": False}, {"lower_order_final": False}],
    ids=str,
)
def test_unipc_does_not_reach_the_data(config: dict[str, Any]) -> None:
    name = "UniPCMultistepScheduler"
    assert not end_of(ready(name, **config)).isfinite().any()
    assert end_of(ready(name, **config | LOW)).isfinite().all()
    assert end_of(ready(name)).isfinite().all()


def test_unipc_of_eps_does_not_threshold() -> None:
    config = {"predict_x0": False} | LOW
    ends = [end_of(ready("UniPCMultistepScheduler", thresholding=k, **config)) for k in (0, 1)]
    assert (ends[0] == ends[1]).all()


# SA-Solver.


def test_sasolver_adds_noise_on_its_last_step() -> None:
    scheduler = ready("SASolverScheduler", tau_func=lambda timestep: 1.0)
    scheduler.set_begin_index(9)
    steps = []
    for _ in range(2):
        scheduler._step_index = None
        scheduler.last_sample = None
        scheduler.lower_order_nums = 0
        steps.append(stepped(scheduler, at=-1))
    assert (steps[0] != steps[1]).any()


# IPNDM.


def test_ipndm_loses_the_first_prediction() -> None:
    """From alpha 0, where x0 = -v."""
    ends = [ready("IPNDMScheduler", 1).step(ZERO + v, 1.0, ZERO + 0.3)[0] for v in (0.0, 0.5)]
    assert (ends[0] == ends[1]).all()
    assert ready("IPNDMScheduler", 1).alphas[0] == 0


def test_ipndm_of_given_levels_takes_any_number_of_steps() -> None:
    scheduler = ready("IPNDMScheduler", 10, trained_betas=[0.9, 0.5, 0.0])
    assert len(scheduler.timesteps) == 2


# The way up.


def test_ddim_inverse_does_not_step_from_the_timestep_before() -> None:
    """With a constant (x0, eps) the next level's x is known; float32 has 7 digits."""
    scheduler = ready("DDIMInverseScheduler", 6, timestep_spacing="trailing", clip_sample=False)
    before, now = (int(t) for t in scheduler.timesteps[-2:])
    assert now - before != 1000 // 6
    bar = scheduler.alphas_cumprod
    eps = ZERO + 1
    stepped = scheduler.step(eps, now, bar[before].sqrt() * 0.5 + (1 - bar[before]).sqrt() * eps)
    expected = bar[now].sqrt() * 0.5 + (1 - bar[now]).sqrt() * eps
    assert abs(stepped.prev_sample - expected).max() > 1e-5


def test_ddim_inverse_of_x0_begins_with_nan() -> None:
    scheduler = ready("DDIMInverseScheduler", prediction_type="sample")
    assert stepped(scheduler).isnan().all()


@pytest.mark.parametrize("form", ["sde-dpmsolver", "sde-dpmsolver++"])
@pytest.mark.filterwarnings("ignore:.algorithm_type:FutureWarning")
def test_noise_on_the_way_up_is_nan(form: str) -> None:
    scheduler = ready("DPMSolverMultistepInverseScheduler", algorithm_type=form)
    assert end_of(scheduler).isnan().all()


def test_dpm_inverse_drops_levels() -> None:
    scheduler = ready("DPMSolverMultistepInverseScheduler", 200, use_karras_sigmas=True)
    assert len(scheduler.timesteps) < 200
    assert len(scheduler.sigmas) == 201


def test_a_flow_on_the_way_up_walks_down() -> None:
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    scheduler = ready("DPMSolverMultistepInverseScheduler", **flow)
    assert (scheduler.sigmas.diff() <= 0).all()
