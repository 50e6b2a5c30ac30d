"""Checkpoints of other libraries' unconditional UNets: what their networks compute here, every
value of them, and what is refused.
"""

import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from weights import foreign_files as foreign
from weights import ldm_files
from weights.folders import files
from weights.layout_cases import CASES, LINEAR

import ddpm_jax as dj
from ddpm_jax.cli import main
from weights_convert import (
    Settings,
    SingleOptions,
    convert,
    find_weights,
    inspect,
    open_single_file,
    open_weights,
)

# Largest difference over largest output, float32 against float64. Measured at most 1.1e-6.
CLOSE = 1e-5
GOLDEN = Path(__file__).parents[1] / "data" / "layouts.npz"
GUIDED = {**LINEAR, "num_heads": 1, "variance_type": "fixed_small"}
DDPM = {"sample_size": 8, "variance_type": "fixed_small"}


def ddpm_file(folder: Path, **shapes: Any) -> Path:
    state = foreign.random_state(foreign.ddpm_shapes(**shapes))
    return foreign.save(folder / "model.ckpt", state)


def openai_file(folder: Path, **shapes: Any) -> Path:
    state = foreign.random_state(foreign.openai_shapes(**shapes))
    return foreign.save(folder / "model.pt", state)


def single(layout: str | None = None, ema: bool = False, **settings: Any) -> SingleOptions:
    return SingleOptions(layout=layout, ema=ema, settings=Settings(**settings))


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("legacy", "new")]
"""Their network is that of "consistency", with convolutions in place of blocks that resample;
`test_every_row_of_the_projections` holds both orders of heads."""


@pytest.mark.parametrize("name", ["ddpm", "consistency", *SLOW])
def test_outputs_of_the_original(tmp_path: Path, name: str):
    case = CASES[name]
    path = foreign.save(tmp_path / "model.pt", case.state())
    kind = dj.ConsistencyModelPipeline if case.layout == "consistency" else dj.DDPMPipeline
    pipe = kind.from_single_file(path, layout=case.layout, **case.settings)
    labels = None if case.labels is None else np.array(case.labels)
    x = np.moveaxis(case.x(), 1, -1)
    found = jax.jit(pipe.unet.apply)({"params": pipe.params}, x, np.array(case.times), labels)
    with np.load(GOLDEN) as golden:
        wanted = np.moveaxis(golden[name], 1, -1)
    assert np.abs(found - wanted).max() / np.abs(wanted).max() <= CLOSE


SCHEDULERS = {
    "ddpm": {"_class_name": "DDPMScheduler", "variance_type": "fixed_large", "beta_end": 0.02},
    "legacy": {"_class_name": "DDPMScheduler", "variance_type": "learned_range"},
    "new": {"_class_name": "DDPMScheduler", "variance_type": "fixed_small"},
    "consistency": {"_class_name": "CMStochasticIterativeScheduler", "num_train_timesteps": 40},
}


def converted(folder: Path, name: str, capsys: Any, **shapes: Any) -> Path:
    """The folder that the command makes of a case's file."""
    case, out = CASES[name], folder / "out"
    case = case._replace(shapes={**case.shapes, **shapes})
    path = foreign.save(folder / "model.pt", case.state())
    options = [f"--{k.replace('_', '-')}={v}" for k, v in case.settings.items()]
    options += [f"--layout={case.layout}"] if name in ("new", "consistency") else []
    assert main(["convert", str(path), str(out), *options]) == 0, capsys.readouterr().err
    return out


@pytest.mark.parametrize("name", CASES)
def test_the_command_converts(tmp_path: Path, name: str, capsys):
    out = converted(tmp_path, name, capsys)
    assert files(out) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    scheduler = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler.items() >= SCHEDULERS[name].items()
    written = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    size = sum(one.nbytes for one in CASES[name].state().values())
    assert sum(one.nbytes for one in written.values()) == size


# The folders of the others are loaded and run as that of "consistency".
@pytest.mark.parametrize(
    "name", ["consistency", pytest.param("ddpm", marks=pytest.mark.slow), *SLOW]
)
def test_a_converted_model_samples(tmp_path: Path, name: str, capsys):
    out = converted(tmp_path, name, capsys, mult=(1,), attends=())  # compiles faster
    picture = tmp_path / "picture.png"
    command = ["sample", "--model", str(out), "--out", str(picture), "--steps", "2", "--no-cache"]
    if name == "consistency":
        command += ["--labels", "4", "--scheduler", "cm-stochastic-iterative"]
    assert main(command) == 0, capsys.readouterr().err
    assert picture.stat().st_size > 0


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_every_row_of_the_projections(tmp_path: Path, order: str):
    """Numbered rows: with 2 heads of 16 channels, where each of them goes."""
    state = foreign.random_state(foreign.openai_shapes(mult=(1,), attends=()))
    name = "middle_block.1.qkv.bias"
    state[name] = np.arange(96, dtype=np.float32)
    path = foreign.save(tmp_path / "a.safetensors", state)
    settings = Settings(**{**GUIDED, "num_heads": 2, "head_order": order})
    with open_single_file(path, layout="guided", settings=settings) as file:
        found = [file.components["unet"][f"mid_block.attentions.0.to_{x}.bias"] for x in "qkv"]
    rows = np.arange(96).reshape(2, 3, 16) if order == "legacy" else np.arange(96).reshape(3, 2, 16)
    for k, part in enumerate(found):
        wanted = rows[:, k] if order == "legacy" else rows[k]
        np.testing.assert_array_equal(part, wanted.reshape(-1))


@pytest.mark.parametrize("channels", [1, 12])
def test_numbers_of_channels(tmp_path: Path, channels: int):
    path = ddpm_file(tmp_path, channels=(channels, channels), mult=(1,), attends=())
    convert(path, tmp_path / "out", single=single(**DDPM))
    model, params = dj.UNet2DModel.from_pretrained(tmp_path / "out")
    assert (model.in_channels, model.out_channels) == (channels, channels)
    assert params["conv_in"]["kernel"].shape == (3, 3, channels, 32)
    assert params["conv_out"]["kernel"].shape == (3, 3, 32, channels)


def test_pictures_of_512_pixels(tmp_path: Path):
    """Seven levels, as OpenAI's, but with a first level as wide as the time embedding."""
    path = openai_file(tmp_path, mult=(1, 1, 1, 2, 2, 2, 2), attends=(4, 5, 6), by_resnet=True)
    settings = {**GUIDED, "sample_size": 512, "num_heads": None, "num_head_channels": 16}
    convert(path, tmp_path / "out", single=single("guided", head_order="new", **settings))
    model = dj.UNet2DModel.read_model(tmp_path / "out" / "unet")
    assert model.sample_size == 512
    assert model.block_out_channels == (32, 32, 32, 64, 64, 64, 64)
    assert model.down_block_types == ("ResnetDownsampleBlock2D",) * 4 + ("AttnDownBlock2D",) * 3


@pytest.mark.parametrize(
    "dtype",
    [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float64],
)
def test_dtypes_are_kept_to_the_bit(tmp_path: Path, dtype: Any):
    state = foreign.random_state(foreign.ddpm_shapes(mult=(1,), attends=()), dtype=dtype)
    save_file(state, tmp_path / "a.safetensors")
    for kind in ("diffusers", "flax"):
        out = tmp_path / kind
        convert(tmp_path / "a.safetensors", out, to=kind, single=single(**DDPM))
        with open_weights(find_weights(out / "unet")) as found:
            assert set(map(str, found.dtypes.values())) == {np.dtype(dtype).name}
            array = found["mid_block.attentions.0.to_q.weight"]
            assert array.tobytes() == state["mid.attn_1.q.weight"].tobytes()
    _, params = dj.UNet2DModel.from_pretrained(out)
    np.testing.assert_array_equal(
        params["conv_in"]["bias"], state["conv_in.bias"].astype(np.float32)
    )


# Plain weights and their average.


def ddpm_states() -> tuple[foreign.Arrays, foreign.Arrays]:
    plain = foreign.random_state(foreign.ddpm_shapes(mult=(1,), attends=()))
    return plain, {name: -one for name, one in plain.items()}


NESTED = {
    "model": ("model", "ema"),
    "state_dict": ("state_dict", "ema_state_dict"),
    "params": ("params", "params_ema"),
}


def with_both(folder: Path, kind: str) -> Path:
    """A file with plain weights and their average."""
    plain, average = ddpm_states()
    both = {f"online_model.{n}": a for n, a in plain.items()}
    both |= {f"ema_model.{n}": a for n, a in average.items()}
    both["step"] = np.array(3)
    if kind == "list":
        return foreign.save_list(folder / "ckpt.pth", plain, average)
    if kind == "names":
        return foreign.save(folder / "both.safetensors", both)
    if kind == "ema of both":
        return foreign.save_nested(folder / "model-1.pt", {"model": plain, "ema": both})
    parts = dict(zip(NESTED[kind], (plain, average), strict=True))
    return foreign.save_nested(folder / "a.pt", parts, step=foreign.torch_files.number(7))


@pytest.mark.parametrize("kind", [*NESTED, "list", "names", "ema of both"])
@pytest.mark.filterwarnings("ignore:all names of the weights begin with 'module.'")
def test_two_sets_of_weights_in_a_file(tmp_path: Path, kind: str):
    path, plain = with_both(tmp_path, kind), ddpm_states()[0]["conv_in.bias"]
    assert inspect(path).has_average
    for ema, wanted in ((False, plain), (True, -plain)):
        with open_single_file(path, ema=ema, settings=Settings(**DDPM)) as file:
            np.testing.assert_array_equal(file.components["unet"]["conv_in.bias"], wanted)
            assert (file.has_ema, file.is_average) == (True, ema)


def test_plain_weights_and_their_average(tmp_path: Path, capsys):
    path, plain = with_both(tmp_path, "model"), ddpm_states()[0]["conv_in.bias"]
    for ema, wanted in ((False, plain), (True, -plain)):
        report = convert(path, tmp_path / f"{ema}", single=single(ema=ema, **DDPM))
        assert ("ema takes it" in str(report)) == (not ema)
        found = load_file(tmp_path / f"{ema}" / "unet" / "diffusion_pytorch_model.safetensors")
        np.testing.assert_array_equal(found["conv_in.bias"], wanted)
        assert main(["info", str(tmp_path / f"{ema}")]) == 0
        words = "these are a moving" if ema else "these are not a moving"
        assert words in capsys.readouterr().out
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "layout ddpm" in shown
    assert "two sets of weights" in shown
    assert "sample_size (width and height of its images)" in shown
    assert main(["info", str(path), "--memory", "--variant", "fp16"]) == 2
    assert "nothing is shown by --memory, --variant" in capsys.readouterr().err


def test_diffusers_own_layout_inside(tmp_path: Path):
    """Two sets of weights in a file of diffusers' names, and in a folder of it."""
    model = dj.UNet2DModel(
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    (tmp_path / "a").mkdir()
    config = {"_class_name": "UNet2DModel", **model.config}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    plain = ldm_files.random_state(model.shapes())
    average = {name: -one for name, one in plain.items()}
    path = foreign.save_nested(
        tmp_path / "a" / "diffusion_pytorch_model.bin", {"model": plain, "ema": average}
    )
    for ema, sign in ((False, 1), (True, -1)):
        convert(path, tmp_path / f"{ema}", to="diffusers", single=SingleOptions(ema=ema))
        found, params = dj.UNet2DModel.from_pretrained(tmp_path / f"{ema}")
        assert found == model
        np.testing.assert_array_equal(
            params["conv_in"]["bias"], sign * plain["conv_in.bias"], err_msg=str(ema)
        )
        config = json.loads((tmp_path / f"{ema}" / "config.json").read_text())
        assert config["_moving_average"] is ema
    with pytest.raises(ValueError, match="two sets of weights"):
        dj.UNet2DModel.from_pretrained(tmp_path / "a")
    convert(tmp_path / "True", tmp_path / "orbax", to="orbax")
    orbax = tmp_path / "orbax" / "diffusion_flax_model.orbax"
    with pytest.raises(ValueError, match="only single files have one"):
        convert(orbax, tmp_path / "out", single=SingleOptions(ema=True))


def test_a_file_says_by_its_name_that_it_is_an_average(tmp_path: Path):
    state = ddpm_states()[0]
    assert inspect(foreign.save(tmp_path / "a.pt", state)).is_average is None
    assert inspect(foreign.save(tmp_path / "ema_0.9999.pt", state)).is_average is True
    only = foreign.save_nested(tmp_path / "b.pt", {"ema": state})
    assert inspect(only).is_average is True
    with open_single_file(only, ema=True, settings=Settings(**DDPM)) as file:
        assert (file.is_average, file.has_ema) == (True, False)
    with pytest.raises(ValueError, match=r"a\.pt: has no moving average"):
        open_single_file(tmp_path / "a.pt", ema=True, settings=Settings(**DDPM))


# Folders of diffusers before its first release.


def prerelease(folder: Path, **config: Any) -> Path:
    state = foreign.random_state(foreign.ddpm_shapes())
    extra = {
        "mid.attn_1.qkv.weight": np.zeros((192, 64, 1), np.float32),
        "mid.attn_1.proj.bias": np.zeros(64, np.float32),
        "mid_new.resnets.0.conv1.bias": np.zeros(64, np.float32),
    }
    folder.mkdir()
    foreign.save(folder / "diffusion_model.pt", {**state, **extra})
    made = {
        "_class_name": "UNetModel",
        "ch": 32,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "resolution": 8,
        "in_channels": 3,
        "out_ch": 3,
        "dropout": 0.1,
        "resamp_with_conv": True,
    }
    (folder / "config.json").write_text(json.dumps(made | config))
    scheduler = {
        "_class_name": "GaussianDDPMScheduler",
        "timesteps": 500,
        "beta_end": 0.01,
        "variance_type": "fixed_small",
        "clip_predicted_image": True,
    }
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def test_a_folder_of_diffusers_before_its_release(tmp_path: Path, capsys):
    folder, out = prerelease(tmp_path / "old"), tmp_path / "out"
    assert main(["convert", str(folder), str(out)]) == 0, capsys.readouterr().err
    pipe = dj.DiffusionPipeline.from_pretrained(out)
    assert type(pipe) is dj.DDPMPipeline
    assert (pipe.unet.dropout, pipe.unet.sample_size) == (0.1, 8)
    config = pipe.scheduler.config
    assert (config.num_train_timesteps, config.variance_type) == (500, "fixed_small")
    assert config.beta_end == 0.01
    direct = dj.DDPMPipeline.from_single_file(
        folder / "diffusion_model.pt", sample_size=8, variance_type="fixed_small"
    )
    same = jax.tree.map(np.array_equal, pipe.params, direct.params)
    assert all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match=r"UNetModel, .*ddpm-jax convert"):
        dj.UNet2DModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ch_mult": [1, 4], "out_ch": 6}, r"ch and ch_mult \[32, 128\].*out_ch 6"),
        ({"attn_resolutions": [8]}, r"attn_resolutions \[8\], its tensors \[4\]"),
        ({"resolution": None}, "no resolution"),
    ],
)
def test_a_config_that_says_otherwise(tmp_path: Path, config: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        convert(prerelease(tmp_path / "old", **config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What is refused.


def refused(path: Path, message: str, layout: str | None = None, **settings: Any) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_single_file(path, layout=layout, settings=Settings(**settings))
    assert str(path) in str(caught.value)


def test_settings_that_are_missing(tmp_path: Path):
    refused(ddpm_file(tmp_path), r"stated: sample_size \(.*--?.*|variance_type")
    refused(ddpm_file(tmp_path), r"such as 32: .*variance_type \(fixed_large in")
    path = openai_file(tmp_path)
    refused(
        path,
        r"state num_heads or num_head_channels; .*sample_size .*beta_schedule .*"
        r"num_train_timesteps .*variance_type .*head_order",
        "guided",
    )
    refused(path, "rescale_timesteps", "guided", **{**GUIDED, "num_train_timesteps": 4000})
    refused(path, r"sample_size .*num_train_timesteps \(its levels", "consistency", num_heads=1)


def test_settings_of_another_layout(tmp_path: Path):
    refused(ddpm_file(tmp_path), "head_order given", head_order="new", **DDPM)
    refused(openai_file(tmp_path), "beta_schedule given", "consistency", beta_schedule="linear")
    for wrong, message in (
        ({"sample_size": 0}, "sample_size must be a whole number of at least 1, got 0"),
        ({"num_heads": 1, "num_head_channels": 1}, "state one"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**wrong)
    unchecked = Settings()  # without the tests' checks of types
    object.__setattr__(unchecked, "head_order", "old")
    with pytest.raises(ValueError, match="head_order must be one of legacy, new, got 'old'"):
        unchecked.__post_init__()


def test_layouts_that_cannot_be_told_apart(tmp_path: Path):
    path = openai_file(tmp_path)
    refused(path, "state the layout, one of guided, consistency", **GUIDED)
    refused(path, "not of the layout 'ddpm'", "ddpm")
    refused(path, "layout must be one of stable-diffusion, ddpm", "sd")
    (tmp_path / "b").mkdir()
    learned = openai_file(tmp_path / "b", channels=(3, 6))
    refused(learned, "not of the layout 'consistency'", "consistency")
    refused(learned, "it learns its variance", **GUIDED)


def test_half_a_layout(tmp_path: Path):
    state = foreign.random_state(foreign.ddpm_shapes())
    half = {n: one for n, one in state.items() if not n.startswith(("up.1", "norm_out"))}
    half["mid.block_1.conv1.weight"] = np.zeros((64, 64, 1, 1), np.float32)
    refused(
        foreign.save(tmp_path / "a.pt", half),
        r"it lacks \(in diffusers' names\) conv_norm_out\.bias, .* and \d+ more; wrong shapes: "
        r"mid\.block_1\.conv1\.weight is \(64, 64, 1, 1\), expected \(64, 64, 3, 3\)",
        **DDPM,
    )
    state["surprise.weight"] = np.zeros(3, np.float32)
    refused(foreign.save(tmp_path / "b.pt", state), "no such network has: surprise", **DDPM)
    openai = foreign.random_state(foreign.openai_shapes())
    inputs = {n: one for n, one in openai.items() if not n.startswith("output_blocks")}
    refused(foreign.save(tmp_path / "c.pt", inputs), "no output_blocks", "guided", **GUIDED)
    openai["input_blocks.1.7.weight"] = np.zeros(3, np.float32)
    refused(foreign.save(tmp_path / "d.pt", openai), "input_blocks.1.7", "guided", **GUIDED)


def test_a_truncated_file(tmp_path: Path):
    path = ddpm_file(tmp_path, mult=(1,), attends=())
    whole = path.read_bytes()
    for length in (0, 5, 1000, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.ckpt.*truncated"):
            convert(path, tmp_path / "out", single=single(**DDPM))
        assert not (tmp_path / "out").exists()


def test_what_unet2dmodel_cannot_express(tmp_path: Path):
    heads = {**GUIDED, "num_heads": 4, "head_order": "legacy"}
    path = openai_file(tmp_path, attends=(0, 1))
    refused(path, "4 heads at widths 32, 64 have 8, 16 channels", "guided", **heads)
    path = openai_file(tmp_path, mult=(0.5, 1), ch=64, attends=())
    refused(
        path, "64 channels and its first level 32 .as in the models for 512", "guided", **GUIDED
    )
    refused(openai_file(tmp_path, channels=(6, 6)), "small picture beside x", "guided", **GUIDED)
    refused(openai_file(tmp_path), "heads of 48 channels do not divide", "guided", **(
        {**GUIDED, "num_heads": None, "num_head_channels": 48, "head_order": "new"}))  # fmt: skip
    without = foreign.random_state(foreign.openai_shapes(by_resnet=False))
    pooled = {n: a for n, a in without.items() if ".op." not in n}
    refused(foreign.save(tmp_path / "b.pt", pooled), "by averages", "guided", **GUIDED)
    text = {**without, "middle_block.1.encoder_kv.weight": np.zeros((2, 2, 1), np.float32)}
    refused(foreign.save(tmp_path / "c.pt", text), "attends to a text", "guided", **GUIDED)
    ddpm = foreign.random_state(foreign.ddpm_shapes())
    plain = {n: a for n, a in ddpm.items() if "sample" not in n}
    refused(foreign.save(tmp_path / "d.pt", plain), "without convolutions", **DDPM)
    ddpm["up.0.block.0.conv_shortcut.weight"] = np.zeros((32, 96, 3, 3), np.float32)
    refused(foreign.save(tmp_path / "e.pt", ddpm), "no shortcuts of 3x3", **DDPM)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_lucidrains_is_refused_by_name(tmp_path: Path, prefix: str):
    names = ("init_conv.weight", "downs.0.0.block1.proj.weight", "mid_block1.block1.proj.bias")
    state = {prefix + name: np.zeros((2, 2), np.float32) for name in names}
    path = foreign.save_nested(
        tmp_path / "model-1.pt",
        {"model": state, "ema": {f"ema_model.{n}": one for n, one in state.items()}},
    )
    refused(path, "lucidrains' denoising-diffusion-pytorch, which is not read: UNet2DModel cannot")
    with pytest.raises(ValueError, match="linear attention"):
        convert(path, tmp_path / "out")


def test_a_stable_diffusion_is_not_unconditional(tmp_path: Path):
    state = {"model.diffusion_model.input_blocks.0.0.bias": np.zeros(2, np.float32)}
    path = foreign.save(tmp_path / "sd.safetensors", state)
    refused(path, "a Stable Diffusion in one file, not of the layout 'ddpm'", "ddpm")
    refused(path, "sample_size are for unconditional UNets", sample_size=8)
    other = foreign.save(tmp_path / "a.safetensors", {"a.weight": np.zeros(2, np.float32)})
    refused(other, "in no layout that is known, not of the layout 'guided'", "guided")
    with pytest.raises(TypeError, match="unknown settings size; accepted: sample_size"):
        dj.DDPMPipeline.from_single_file(other, size=3)
    with pytest.raises(ValueError, match="not of the layout 'stable-diffusion'"):
        dj.StableDiffusionPipeline.from_single_file(ddpm_file(tmp_path))
