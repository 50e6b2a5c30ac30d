"""Score networks, whose images are in [0, 1]: their pipeline, their folder, the command line."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cli.sampling import complaint
from PIL import Image
from pipelines.models import edit, tiny

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.images import SIGNED, UNIT

SCHEDULER = dj.ScoreSdeVeScheduler(sigma_max=2.0, correct_steps=0)
KEYS = dj.sample_keys(jax.random.key(0), 2)


def score_pipeline(cls: Any = dj.ScoreSdeVePipeline) -> Any:
    model, params = tiny(time_embedding_type="fourier")
    return cls(unet=model, params=params, scheduler=SCHEDULER)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    score_pipeline().save_pretrained(folder)
    return folder


def run(pipe: Any, **options: Any) -> np.ndarray:
    options = {"num_inference_steps": 3, "output_type": "np", "progress": False} | options
    return pipe(KEYS, **options).images


def test_samples_are_images_as_they_are():
    pipe = score_pipeline()
    table = pipe.scheduler.table(3)
    x_T = dj.prior(table, KEYS, (8, 8, 1))
    samples = np.asarray(dj.sample(pipe.unet.denoise, pipe.params, table, x_T, KEYS))
    np.testing.assert_allclose(run(pipe), samples.clip(0, 1), atol=1e-5 * np.abs(samples).max())


def test_the_ranges_of_pixels():
    unit = np.array([0.0, 0.25, 1.0], np.float32)
    np.testing.assert_array_equal(SIGNED.from_unit(unit), [-1.0, -0.5, 1.0])
    np.testing.assert_array_equal(UNIT.from_unit(unit), unit)
    for pixels in (SIGNED, UNIT):
        np.testing.assert_array_equal(pixels.to_unit(pixels.from_unit(unit)), unit)
    np.testing.assert_array_equal(UNIT.to_unit(np.array([-0.5, 2.0])), [0.0, 1.0])


def test_the_known_part_of_an_image_stays():
    """The range of given images is the network's."""
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    mask = np.zeros((8, 8), np.float32)
    mask[:, 4:] = 1
    images = run(score_pipeline(), image=image, mask_image=mask)
    np.testing.assert_allclose(images[:, :, :4], image.repeat(2, 0)[:, :, :4], atol=1e-6)


def test_a_pipeline_refuses_networks_of_another_range(saved: Path):
    message = r"a ScoreSdeVePipeline's network are in \[0, 1\], and a DDPMPipeline takes them to be"
    with pytest.raises(ValueError, match=message):
        dj.DDPMPipeline.from_pipe(score_pipeline())
    with pytest.raises(ValueError, match=message):
        dj.DDPMPipeline.from_pretrained(saved)
    with pytest.raises(ValueError, match="a ScoreSdeVePipeline takes them to be"):
        dj.ScoreSdeVePipeline.from_pretrained("digits")


def test_its_folder_and_the_command_line(saved: Path, tmp_path: Path, capsys: Any):
    """Without --scheduler the model's own is run, since ddim has another forward process."""
    pipe: Any = dj.DiffusionPipeline.from_pretrained(saved)
    assert type(pipe) is dj.ScoreSdeVePipeline
    assert pipe.scheduler == SCHEDULER
    folder = tmp_path / "images"
    argv = f"sample --model {saved} --num 2 --steps 3 --no-cache --out {folder}"
    assert main(argv.split()) == 0
    expected = (run(pipe)[..., 0] * 255).round().astype(int)
    for path, one in zip(sorted(folder.glob("*.png")), expected, strict=True):
        assert np.abs(np.asarray(Image.open(path), int) - one).max() <= 1
    capsys.readouterr()
    refused = f"sample --model {saved} --scheduler ddim --out {folder}"
    assert "in whose place DDIMScheduler cannot sample" in complaint(refused, capsys, 1)


def test_an_index_says_what_the_range_is(saved: Path, tmp_path: Path):
    """A score network with signed images is saved as a DDPMPipeline."""
    score_pipeline(dj.DDPMPipeline).save_pretrained(tmp_path / "signed")
    signed: Any = dj.DiffusionPipeline.from_pretrained(tmp_path / "signed")
    assert type(signed) is dj.DDPMPipeline
    table = SCHEDULER.table(3)
    x_T = dj.prior(table, KEYS, (8, 8, 1))
    samples = np.asarray(dj.sample(signed.unet.denoise, signed.params, table, x_T, KEYS))
    expected = (samples / 2 + 0.5).clip(0, 1)
    np.testing.assert_allclose(run(signed), expected, atol=1e-5 * np.abs(samples).max())
    edit(tmp_path / "signed" / "model_index.json", _class_name="ScoreSdeVePipeline")
    assert type(dj.DiffusionPipeline.from_pretrained(tmp_path / "signed")) is dj.ScoreSdeVePipeline
