"""Pipelines saved as folders and loaded."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pipelines.models import FILES, files, pipeline, same_params

import ddpm_jax as dj
from ddpm_jax.hub import hub

DIGITS = hub.BUNDLED / "digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's folder with a small model in it."""
    pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_saved_folder_is_loaded(tmp_path: Path):
    model = pipeline(dj.DDIMPipeline)
    model.scheduler = dj.PNDMScheduler(skip_prk_steps=True)
    model.save_pretrained(tmp_path / "new" / "model")
    saved = tmp_path / "new" / "model"
    assert files(saved) == FILES
    assert [entry.name for entry in saved.parent.iterdir()] == ["model"]  # no other files remain
    index = json.loads((saved / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]
    pipe = dj.DiffusionPipeline.from_pretrained(saved, scheduler=model.scheduler)
    assert type(pipe) is dj.DDIMPipeline
    assert pipe.unet == model.unet
    assert same_params(pipe.params, model.params)
    ddpm = dj.DDPMPipeline.from_pretrained(saved)
    assert ddpm.scheduler == model.scheduler


def test_saved_bundled_model_is_unchanged(tmp_path: Path):
    from weights_convert import find_weights, open_weights

    dj.DDPMPipeline.from_pretrained("digits").save_pretrained(tmp_path / "digits")
    own = [file for file in files(DIGITS) if not file.startswith("tables/")]
    assert sorted([*files(tmp_path / "digits"), "README.md"]) == own  # its card and tables stay
    with (
        open_weights(find_weights(tmp_path / "digits" / "unet")) as ours,
        open_weights(find_weights(DIGITS / "unet")) as theirs,
    ):
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_saving_again_replaces_files_and_leaves_others(folder: Path):
    (folder / "README.md").write_text("mine")
    pipe = pipeline(dj.DDPMPipeline, freq_shift=1)
    pipe.save_pretrained(folder)
    pipe.save_pretrained(folder, variant="ema")
    variant = "unet/diffusion_pytorch_model.ema.safetensors"
    assert files(folder) == sorted([*FILES, "README.md", variant])
    assert dj.DDPMPipeline.from_pretrained(folder).unet.freq_shift == 1
    assert dj.DDPMPipeline.from_pretrained(folder, variant="ema").unet == pipe.unet


def test_a_variant_outside_the_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"variant must consist of .*; got '\.\./x'"):
        pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "new" / "pipe", variant="../x")
    assert not files(tmp_path)


def test_index_is_the_last_file_to_be_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch):
    replaced: list[Path] = []
    replace = os.replace

    def note(source: Path, target: Path) -> None:
        replaced.append(Path(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    pipeline(dj.DDPMPipeline).save_pretrained(folder)
    inside = [path for path in replaced if path.is_relative_to(folder)]
    assert inside[-1] == folder / "model_index.json"
    assert sorted(path.relative_to(folder).as_posix() for path in inside) == FILES


def test_failed_save_leaves_nothing(tmp_path: Path):
    pipe = dj.DDPMPipeline.from_pipe(pipeline(dj.DDPMPipeline), params={"conv_in": {}})
    with pytest.raises(ValueError, match="conv_in"):
        pipe.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_saved_to(folder: Path, tmp_path: Path):
    pipe = pipeline(dj.DDPMPipeline)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; a pipeline is saved as a folder"):
        pipe.save_pretrained(tmp_path / "file")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(ValueError, match=r"index.json would be read instead of the new weights"):
        pipe.save_pretrained(folder)
