"""Folders whose UNet2DModel is sampled otherwise: refused by name, before the weights."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pipelines.models import FILES, edit, pipeline, scheduler

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.hub.config import FAMILY
from ddpm_jax.schedulers import SCHEDULERS

KEY = jax.random.key(0)

OTHER_PROCESSES = [kind.__name__ for kind in SCHEDULERS if kind.family != FAMILY]
PIPELINES = (dj.DiffusionPipeline, dj.DDPMPipeline, dj.DDIMPipeline, dj.PNDMPipeline)
CALL: dict[str, Any] = {"batch_size": 2, "output_type": "np", "progress": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline without its weights: who reads them fails otherwise than the tests expect."""
    pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / FILES[-1]).unlink()
    return tmp_path / "saved"


def refused(
    folder: Path,
    words: str,
    capsys: pytest.CaptureFixture[str],
    pipelines: Any = PIPELINES,
    options: tuple[str, ...] = (),
) -> None:
    """The pipelines and the command line, with these options, refuse it."""
    for cls in pipelines:
        with pytest.raises(ValueError, match=words):
            cls.from_pretrained(folder)
    argv = ["sample", "--model", str(folder), "--out", str(folder / "x.png"), *options]
    assert main(argv) == 1
    assert words in capsys.readouterr().err
    assert not (folder / "x.png").exists()


@pytest.mark.parametrize("name", [*OTHER_PROCESSES, "FlowMatchLCMScheduler"])
@pytest.mark.parametrize("place", ["config", "index"])
def test_schedulers_with_another_process(
    folder: Path, name: str, place: str, capsys: pytest.CaptureFixture[str]
):
    """The index and the scheduler's config disagree."""
    if place == "config":
        edit(folder / "scheduler" / "scheduler_config.json", _class_name=name)
    else:
        edit(folder / "model_index.json", scheduler=["diffusers", name])
    refused(folder, name, capsys)


@pytest.mark.parametrize("name", OTHER_PROCESSES)
def test_a_scheduler_of_another_process_is_kept(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    """By the pipeline that replaces none; pipelines and commands that would replace it refuse."""
    kind, folder = getattr(dj, name), tmp_path / "saved"
    made = pipeline(dj.DDPMPipeline)
    made.scheduler = kind()
    made.save_pretrained(folder)
    pipe: Any = dj.DiffusionPipeline.from_pretrained(folder)
    assert type(pipe) is dj.DDPMPipeline
    assert pipe.scheduler == kind()
    if kind is dj.EDMEulerScheduler:  # one compilation; the others are those of test_tables.py
        images = [one(KEY, num_inference_steps=4, **CALL).images for one in (pipe, made)]
        assert np.array_equal(*images)
    refused(folder, name, capsys, (dj.DDIMPipeline, dj.PNDMPipeline), ("--scheduler", "ddim"))
    with pytest.raises(ValueError, match=name):
        dj.DDIMPipeline.from_pipe(pipe)


def test_a_scheduler_of_another_process_on_the_command_line(tmp_path: Path):
    folder, out = tmp_path / "saved", tmp_path / "x.png"
    made = pipeline(dj.DDPMPipeline)
    made.scheduler = dj.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    made.save_pretrained(folder)
    command = ["sample", "--model", str(folder), "--out", str(out), "--steps", "4", "--num", "1"]
    command += ["--no-cache", "--scheduler", "flow-match-euler", "--set", "mu=0.5"]
    assert main(command) == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"_class_name": "DiTPipeline"},
            "a DiTPipeline, which is not supported; supported",
        ),
        ({"_class_name": ["my_pipeline", "MyPipeline"]}, "MyPipeline"),
        ({"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}, "LDMPipeline"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "its unet is a UNet2DConditionModel"),
    ],
)
def test_pipelines_of_another_kind(
    folder: Path, entries: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
):
    edit(folder / "model_index.json", **entries)
    refused(folder, words, capsys)


def test_a_network_that_does_not_predict_its_input(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    """Six channels in, three out: super-resolution."""
    edit(folder / "unet" / "config.json", in_channels=6, out_channels=3)
    refused(folder, "in_channels 6 and out_channels 3 cannot be sampled", capsys)
    pipe = pipeline(dj.DDPMPipeline)
    with pytest.raises(ValueError, match="cannot be sampled"):
        pipe.unet = dj.UNet2DModel.from_config(pipe.unet.config, out_channels=3)


@pytest.mark.parametrize(
    "fields",
    [
        {"rescale_betas_zero_snr": True},
        {"use_flow_sigmas": True},
        {"timestep_type": "continuous"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_scheduler_that_lacks_what_the_network_was_trained_with(fields: dict[str, Any]):
    with pytest.raises(ValueError, match=f"PNDMScheduler has no {next(iter(fields))}"):
        dj.PNDMScheduler.from_config(fields)


def test_repaint_is_for_networks_that_predict_eps():
    config = {"prediction_type": "v_prediction"}
    with pytest.raises(ValueError, match="RePaintScheduler has no prediction_type 'v_prediction'"):
        dj.RePaintScheduler.from_config(config)
    assert dj.RePaintScheduler.from_config({"prediction_type": "epsilon"}).eta == 0


def test_relatives_are_read(folder: Path):
    for name in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"):
        edit(folder / "scheduler" / "scheduler_config.json", _class_name=name)
        assert dj.DDIMScheduler.from_pretrained(folder).beta_start == scheduler().beta_start


def test_the_first_names_of_pipelines_are_read(tmp_path: Path):
    saved = pipeline(dj.DDIMPipeline)
    saved.save_pretrained(tmp_path)
    edit(tmp_path / "model_index.json", _class_name="DDIM")
    pipe = dj.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(pipe) is dj.DDIMPipeline
    edit(tmp_path / "scheduler" / "scheduler_config.json", timesteps=40, num_train_timesteps=...)
    assert dj.DDPMScheduler.from_pretrained(tmp_path).num_train_timesteps == 40


def test_a_training_examples_moving_average(tmp_path: Path):
    """diffusers' training example writes `unet_ema` with the average's own fields in its config."""
    pipe = pipeline(dj.DDPMPipeline)
    folder = tmp_path / "unet_ema"
    pipe.unet.save_pretrained(folder, pipe.params)
    edit(folder / "config.json", decay=0.9999, inv_gamma=1.0, optimization_step=7, use_ema_warmup=1)
    with pytest.warns(UserWarning, match="no field decay, inv_gamma, optimization_step"):
        model, params = dj.UNet2DModel.from_pretrained(tmp_path, subfolder="unet_ema")
    assert model == pipe.unet
    assert jax.tree.structure(params) == jax.tree.structure(pipe.params)


def test_fields_of_another_network_are_refused():
    config = pipeline(dj.DDPMPipeline).unet.config
    with pytest.raises(ValueError, match="no only_cross_attention=True, which makes it another"):
        dj.UNet2DModel.from_config({**config, "only_cross_attention": True})
    with pytest.warns(UserWarning, match="no field only_cross_attention: ignored"):
        dj.UNet2DModel.from_config({**config, "only_cross_attention": False})


def test_a_hub_cache_folder_is_its_main_snapshot(tmp_path: Path):
    cached = tmp_path / "models--me--tiny"
    pipeline(dj.DDPMPipeline).save_pretrained(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert dj.DDPMPipeline.from_pretrained(cached).unet.config.sample_size == 8
