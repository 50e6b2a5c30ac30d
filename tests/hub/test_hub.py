"""From names to folders: local folders and bundled models."""

import socket
import sys
from pathlib import Path

import pytest
from hub.folders import BOTH, CONFIG, FLAT, NESTED, SCHED, SCHEDULER, UNET, write

from ddpm_jax.hub import hub
from ddpm_jax.hub.component import ComponentFiles


@pytest.mark.parametrize(
    ("files", "name", "kind", "found"),
    [
        (NESTED, ".", UNET, "unet"),
        (NESTED, ".", SCHED, "scheduler"),
        (NESTED, "unet", UNET, "unet"),
        (NESTED, "scheduler", SCHED, "scheduler"),
        (FLAT, ".", UNET, "."),
        (FLAT, ".", SCHED, "."),
        ({"unet/config.json": CONFIG}, ".", UNET, "unet"),
        ({"scheduler/scheduler_config.json": SCHEDULER}, ".", SCHED, "scheduler"),
    ],
)
def test_layouts(
    tmp_path: Path, files: dict[str, bytes], name: str, kind: ComponentFiles, found: str
):
    write(tmp_path, files)
    assert hub.component(tmp_path / name, kind) == tmp_path / found
    assert hub.component(str(tmp_path / name), kind) == tmp_path / found


def test_only_the_subfolder_is_searched(tmp_path: Path):
    write(tmp_path, {"config.json": CONFIG, "unet/config.json": CONFIG, "ema/config.json": CONFIG})
    assert hub.component(tmp_path, UNET, subfolder="ema") == tmp_path / "ema"
    with pytest.raises(
        ValueError, match=r"no other/config.json; it contains: config.json, ema/, unet/"
    ):
        hub.component(tmp_path, UNET, subfolder="other")
    expected = "has no scheduler/scheduler_config.json or scheduler_config.json; it contains"
    with pytest.raises(ValueError, match=expected):
        hub.component(tmp_path, SCHED)


def test_pipeline_folder(tmp_path: Path):
    assert hub.pipeline(write(tmp_path, NESTED), BOTH) == tmp_path
    with pytest.raises(ValueError, match=r"no model_index.json; it contains: config.json"):
        hub.pipeline(tmp_path / "unet", BOTH)


@pytest.mark.parametrize(
    "name", ["digit", "a/b/c", "./missing", "/missing", "", "a b/c", Path("a/b")]
)
def test_unknown_names_list_accepted_names(name: str | Path):
    with pytest.raises(
        ValueError, match=r"local folder, a hub id .* or a bundled name \(avatars, digits\)"
    ):
        hub.component(name, UNET)


def test_what_is_no_name_of_a_folder(tmp_path: Path):
    write(tmp_path, NESTED)
    with pytest.raises(ValueError, match="is a file, not a folder"):
        hub.component(tmp_path / "model_index.json", UNET)
    with pytest.raises(ValueError, match="revision='main' is for hub repositories"):
        hub.component(tmp_path, UNET, revision="main")


def test_bundled_name_and_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "digits", NESTED)
    monkeypatch.chdir(tmp_path)
    assert hub.bundled_names() == ["avatars", "digits"]
    with pytest.warns(UserWarning, match="'digits' is the bundled model, not the folder"):
        assert hub.pipeline("digits", BOTH) == hub.BUNDLED / "digits"
    assert hub.pipeline("./digits", BOTH) == hub.pipeline(Path("digits"), BOTH) == Path("digits")


def test_local_folders_need_no_hub_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor a network. That the library's import loads none of it, tests/test_package.py holds."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # its import fails
    monkeypatch.setattr(socket.socket, "connect", None)
    hub.component(write(tmp_path, NESTED), UNET)
    hub.pipeline("digits", BOTH, local_files_only=True)


def test_names_of_variants():
    names = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model-00001-of-00002.bin",
    ]
    assert hub.other_variants(names) == ""
    names += ["diffusion_pytorch_model.fp16-00001-of-00002.bin"]
    names += ["diffusion_pytorch_model.bin.index.fp16.json"]
    assert hub.other_variants(names) == "; found variant fp16: pass variant='fp16'"
    names += ["diffusion_pytorch_model.non_ema.bin"]
    assert hub.other_variants(names) == "; found variants fp16, non_ema: pass variant='fp16'"
