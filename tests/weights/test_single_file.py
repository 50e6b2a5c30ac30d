"""A Stable Diffusion in one file: every name and value, the configs, and what is refused."""

import builtins
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from torch_files import Runs
from weights import ldm_files as ldm
from weights.folders import unread

from weights_convert import ldm as names
from weights_convert import open_single_file
from weights_convert.unpickle import Inert, StridedTensor, loads

MODELS = ldm.SMALL | {
    "unet": ldm.SMALL["unet"].clone(
        block_out_channels=(32, 32, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "vae": ldm.SMALL["vae"].clone(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    ),
}


@pytest.fixture(scope="module")
def parts() -> dict[str, ldm.Arrays]:
    return {name: ldm.random_state(model.shapes()) for name, model in MODELS.items()}


@pytest.fixture
def unet(parts: dict[str, ldm.Arrays]) -> ldm.Arrays:
    return parts["unet"]


@pytest.fixture(scope="module")
def whole(parts: dict[str, ldm.Arrays]) -> ldm.Arrays:
    """A version 1, with a moving average and buffers."""
    ids = {ldm.CLIP + "text_model.embeddings.position_ids": np.arange(7)[None]}
    average = ldm.ema_ldm(ldm.unet_ldm(parts["unet"]))
    return {**ldm.one_file(parts), **ids, **average, **ldm.BUFFERS}


def linear(unet: ldm.Arrays) -> ldm.Arrays:
    """With the projections of version 2."""
    ends = ("proj_in.weight", "proj_out.weight")
    return {name: one[..., 0, 0] if name.endswith(ends) else one for name, one in unet.items()}


def equal(found: Any, wanted: ldm.Arrays) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_every_name_and_value(tmp_path: Path, whole, parts, kind: str):
    write = ldm.save if kind == "safetensors" else ldm.save_ckpt
    with open_single_file(write(tmp_path / f"sd.{kind}", whole)) as file:
        assert (file.version, file.kind, file.has_ema, file.absent) == (1, "text2img", True, ())
        assert file.global_step == (875_000 if kind == "ckpt" else None)
        for name, model in MODELS.items():
            equal(file.components[name], parts[name])
            made = {k: v for k, v in file.configs[name].items() if k in model.config}
            assert type(model).from_config(made) == model
        assert file.configs["scheduler"]["prediction_type"] == "epsilon"
    with pytest.raises(ValueError, match="closed"):
        file.components["unet"]["conv_in.bias"]


def test_the_moving_average(tmp_path: Path, whole, unet):
    with open_single_file(ldm.save(tmp_path / "sd.safetensors", whole), ema=True) as file:
        equal(file.components["unet"], {name: -one for name, one in unet.items()})
    some = {n: one for n, one in whole.items() if n != "model_ema.diffusion_modelout2weight"}
    ldm.save(tmp_path / "some.safetensors", some)
    with pytest.raises(ValueError, match=r"no moving average \(EMA\) of out\.2\.weight"):
        open_single_file(tmp_path / "some.safetensors", ema=True)


@pytest.mark.parametrize(
    ("step", "given", "wanted"),
    [(875_000, None, "epsilon"), (1, None, "v_prediction"), (1, "epsilon", "epsilon")],
)
def test_version_two(tmp_path: Path, parts, step: int, given: str | None, wanted: str):
    parts = {**parts, "unet": linear(parts["unet"])}
    text = ldm.open_clip_ldm(parts["text_encoder"])
    state = {**ldm.unet_ldm(parts["unet"]), **ldm.vae_ldm(parts["vae"], "vae."), **text}
    overrides = {} if given is None else {"scheduler": {"prediction_type": given}}
    path = ldm.save_ckpt(tmp_path / "sd2.ckpt", state, step)
    with open_single_file(path, overrides=overrides) as file:
        for name, state_of_it in parts.items():
            equal(file.components[name], state_of_it)
        assert (file.version, file.kind, file.has_ema) == (2, "text2img", False)
        found = file.configs["unet"]
        assert (found["use_linear_projection"], found["attention_head_dim"]) == (True, [1, 1, 1])
        assert found["sample_size"] == (64 if wanted == "epsilon" else 96)
        assert file.configs["text_encoder"]["hidden_act"] == "gelu"
        assert file.configs["text_encoder"]["num_hidden_layers"] == 2
        assert file.configs["scheduler"]["prediction_type"] == wanted
    ldm.save(tmp_path / "sd2.safetensors", state)
    with pytest.warns(UserWarning, match="v_prediction is assumed"):
        open_single_file(tmp_path / "sd2.safetensors").close()


def test_kinds(tmp_path: Path, unet):
    """All but text to image predict eps, in version 2 too."""
    state = ldm.unet_ldm(linear(unet))
    first = ldm.UNET + "input_blocks.0.0.weight"
    state[first] = np.zeros((32, 9, 3, 3), np.float32)
    with open_single_file(ldm.save(tmp_path / "sd.safetensors", state)) as file:
        assert (file.version, file.kind, file.absent) == (2, "inpaint", ("vae", "text_encoder"))
        assert file.configs["unet"]["in_channels"] == 9
        assert file.configs["scheduler"]["prediction_type"] == "epsilon"
        assert set(file.configs) == {"unet", "scheduler"}
    state[first] = np.zeros((32, 7, 3, 3), np.float32)
    refused(tmp_path, state, r"takes 7 channels: must be one of 4 \(text2img")


def test_names_without_text_model(tmp_path: Path, parts):
    text = parts["text_encoder"]
    short = {ldm.CLIP + name.removeprefix("text_model."): one for name, one in text.items()}
    with open_single_file(ldm.save(tmp_path / "text.safetensors", short)) as file:
        equal(file.components["text_encoder"], text)
        assert (file.version, file.kind, file.absent) == (1, None, ("unet", "vae"))


def test_an_open_clip_of_23_layers_keeps_them():
    for count in (22, 23, 24):
        layers = {f"transformer.resblocks.{i}.ln_1.bias": unread(4) for i in range(count)}
        assert len(names.open_clip(layers)) == min(count - (count < 23), 23)
    for shape in ((), (4, 2)):
        projection = {"transformer.resblocks.0.attn.in_proj_bias": unread(*shape), **layers}
        with pytest.raises(ValueError, match="is not of queries, keys and values"):
            names.open_clip(projection)


def refused(tmp_path: Path, state: ldm.Arrays, message: str, **options: Any) -> None:
    path = ldm.save(tmp_path / "sd.safetensors", state)
    with pytest.raises(ValueError, match=message) as caught:
        open_single_file(path, **options)
    assert str(path) in str(caught.value)


ONE = np.zeros((2, 2), np.float32)


def test_what_is_refused(tmp_path: Path, parts):
    unet, vae = parts["unet"], parts["vae"]
    original = ldm.unet_ldm(unet)
    other = {f"part{i:02}.a.weight": ONE for i in range(12)}
    refused(tmp_path, other, "its names begin with part00, .*part09 and 2 more, not with model")
    refused(tmp_path, {**original, ldm.UNET + "label_emb.0.weight": ONE}, r"has: label_emb\.0")
    for name in (
        *("input_blocks.1.1.qkv.weight", "input_blocks.0.1.norm.bias", "input_blocks.1.0.x.bias"),
        *("middle_block.3.norm.bias", "middle_block.odd", "output_blocks.0.x"),
    ):
        refused(tmp_path, {**original, ldm.UNET + name: ONE}, f"has: {name}")
    for name in ("encoder.down.0.attn.0.q.weight", "decoder.mid.attn_2.q.bias", "encoder.x.b"):
        refused(tmp_path, {**ldm.vae_ldm(vae), ldm.VAE + name: ONE}, f"has: {name}")
    two = ldm.vae_ldm(vae) | ldm.vae_ldm(vae, "vae.")
    refused(tmp_path, two, "under two prefixes, of first_stage_model., vae.")
    less = {name: one for name, one in original.items() if "middle_block.1" not in name}
    refused(tmp_path, less, "has no mid_block.attentions.0")
    refused(tmp_path, original, "has no moving average", ema=True)
    refused(tmp_path, original, "for vae, but the file has unet, scheduler", overrides={"vae": {}})
    depth = {**original, "depth_model.model.pretrained.weight": ONE}
    refused(tmp_path, depth, r"depth estimator \(depth_model\.\)")
    path = ldm.save(tmp_path / "depth.safetensors", depth)
    with open_single_file(path, without_depth_estimator=True) as file:
        equal(file.components["unet"], unet)
    ldm.save(path, {**original, "control_model.a.weight": ONE})
    with pytest.warns(UserWarning, match="left out: control_model"):
        open_single_file(path).close()


EVIL = {
    "system": Runs(os.system, "touch executed"),
    "eval": Runs(builtins.eval, "open('executed', 'w')"),
    "nested": Runs(builtins.getattr, Runs(__import__, "os"), "system"),
    "exec": [Runs(builtins.exec, "open('executed', 'w')", state={"x": Runs(os.getcwd)})],
    "filled": {Runs(os.system, "touch executed"): Runs(builtins.print, "executed")},
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_checkpoint_with_foreign_objects_runs_nothing(
    tmp_path: Path, monkeypatch, capsys, protocol: int
):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({**EVIL, "set": {1, 2}, "frozen": frozenset([3]), "b": b"x"}, protocol)

    def forbidden(*arguments: Any) -> Any:
        raise AssertionError(f"imported {arguments}")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", forbidden)
        found = loads(data, inert=True)
    assert type(found["system"]) is type(found["nested"]) is Inert
    assert type(found["eval"]) is type(found["exec"][0]) is Inert
    assert not (tmp_path / "executed").exists()
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="its pickle uses"):
        loads(data)


@pytest.mark.parametrize(
    "value",
    [
        b"cos\nsystem\n" + torch_files.text("touch executed") + b"\x85R",  # REDUCE
        b"cos\nsystem\n)\x81}b",  # NEWOBJ, BUILD
        b"cos\nsystem\n)}\x92",  # NEWOBJ_EX
        b"(" + torch_files.text("touch executed") + b"ios\nsystem\n",  # INST
        b"(cos\nsystem\n" + torch_files.text("touch executed") + b"o",  # OBJ
        b"cos\nsystem\n)R(NNu(Ne",  # SETITEMS and APPENDS of a result
        torch_files.text("os") + torch_files.text("system") + b"\x93)R",  # STACK_GLOBAL
    ],
)
def test_a_placeholder_takes_what_is_asked_of_it(tmp_path: Path, monkeypatch, value: bytes):
    monkeypatch.chdir(tmp_path)
    pickled = torch_files.state_dict({"evil": value, "after": torch_files.number(7)})
    found = loads(pickled, inert=True)
    assert found == {"evil": Inert("os system"), "after": 7}
    assert not (tmp_path / "executed").exists()


def test_a_tensor_of_a_foreign_storage_is_no_tensor(tmp_path: Path):
    strange = torch_files.tensor("0", "ComplexFloatStorage", 4, 0, (4,), (1,))
    good = torch_files.tensor("0", "FloatStorage", 4, 0, (4,), (1,))
    inner = torch_files.dictionary({"model.diffusion_model.a": strange, "b": good})
    found = loads(torch_files.state_dict({"state_dict": inner}), inert=True)["state_dict"]
    assert [type(one) for one in found.values()] == [Inert, StridedTensor]
    path = torch_files.write_zip(
        tmp_path / "sd.ckpt", torch_files.state_dict({"state_dict": inner}), {"data/0": bytes(16)}
    )
    with pytest.raises(ValueError, match=r"more than named tensors: 'model\.diffusion_model\.a'"):
        open_single_file(path)


def test_a_checkpoint_without_a_state_dict(tmp_path: Path, parts):
    """Its tensors stand beside other things."""
    vae = parts["vae"]
    items, records = torch_files.entries(ldm.vae_ldm(vae))
    top = {**items, "epoch": torch_files.number(1), "callbacks": torch_files.named("a.b thing")}
    path = torch_files.write_zip(tmp_path / "a.ckpt", torch_files.state_dict(top), records)
    with open_single_file(path) as file:
        equal(file.components["vae"], vae)
    top["model.diffusion_model.a"] = torch_files.named("some thing") + b")R"
    torch_files.write_zip(path, torch_files.state_dict(top), records)
    with pytest.raises(ValueError, match=r"model\.diffusion_model\.a"):
        open_single_file(path)
