"""`ddpm-jax export`: the pixels of `sample`, and what is refused before the weights are read."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from cli.sampling import complaint, pixels, sample, save_tiny

import ddpm_jax as dj
from ddpm_jax.cli import app, main
from ddpm_jax.cli.export import Export
from ddpm_jax.models import UNet2DModel

pytest.importorskip("flatbuffers", reason="jax.export stores programs with it")


def both(model: Path, folder: Path, *options: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of images 0 and 1 of seed 5, by `sample` and by an exported run."""
    path = folder / "run.npz"
    argv = ["export", str(model), "--out", str(path), "--batch", "2", "--steps", "3", *options]
    assert main(argv) == 0
    assert sample(model, folder / "drawn", "--num", "2", "--seed", "5", *options) == 0
    drawn = np.stack([pixels(folder / "drawn" / f"0000{i}.png") for i in range(2)])
    return drawn, dj.to_uint8(dj.load_sampler(path)(5))[..., 0]


@pytest.mark.slow  # fast: the bits in tests/export, and the command's settings below
@pytest.mark.parametrize(
    "options",
    [
        "--scheduler ddim --eta 0.7 --set timestep_spacing=trailing",
        "--scheduler heun --grid rho",
        "--scheduler dpm-solver-sde",
        "--scheduler pndm --dtype bfloat16",
    ],
)
def test_pixels_are_those_of_sample(tiny: Path, tmp_path: Path, options: str) -> None:
    drawn, exported = both(tiny, tmp_path, *options.split())
    np.testing.assert_array_equal(exported, drawn)
    assert drawn.std() > 10


def test_a_table_of_a_file_and_what_the_file_says(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, path = tmp_path / "table.json", tmp_path / "run.npz"
    scheduler = dj.DDPMScheduler.from_pretrained(tiny)
    dj.save_table(table, scheduler.table(4))
    argv = f"export {tiny} --table {table} --platforms cuda cpu --out {path}"
    assert main(argv.split()) == 0
    assert re.match(r"4 evaluations for cuda, cpu, [\d.]+ MB: .*run\.npz$", capsys.readouterr().out)
    about = dj.load_sampler(path).about
    assert about["settings"].keys() >= {"model", "weights", "table", "table_sha256", "dtype"}
    again = app._parse(shlex.split(about["made_by"])[1:])
    assert again == app._parse(argv.split())


@pytest.mark.parametrize(
    "argv",
    [
        "export digits --set clip_sample=false eta=0.5 --from-noise --guided --batch 3",
        "export 'a model' --guided --guidance-interval 0.5 2 --out 'of it.npz' --grid dmn",
    ],
)
def test_the_command_in_the_file_is_the_one_that_made_it(argv: str) -> None:
    given = app._parse(shlex.split(argv))
    assert isinstance(given, Export)
    assert app._parse(shlex.split(given.command())[1:]) == given


def test_refusals_come_before_the_weights(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the weights are read")

    unnamed = save_tiny(tmp_path / "unnamed", num_class_embeds=3)
    monkeypatch.setattr(UNet2DModel, "from_pretrained", refuse)
    file = tmp_path / "a file"
    file.touch()
    for options, message in {
        f"{tiny} --out run.bin": r"--out must end in \.npz, got run\.bin",
        f"{tiny} --steps 0 --batch 0": "--batch must be at least 1",
        f"{tiny} --steps 1001": "1001",
        f"{tiny} --guided": "no class that means no class",
        f"{unnamed} --guided": "no class that means no class",
        f"{tiny} --guidance-interval 1 2": "needs --guided",
        f"{tiny} --guided --guidance-interval 2 1": "0 <= low < high",
        f"{tiny} --scheduler euler --eta 1": "no option eta",
        "avatars": "makes images from prompts: export is for models without",
    }.items():
        assert re.search(message, complaint(f"export {options}", capsys, 2))
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(tiny), "--out", "a file/run.npz"]) == 1
    assert "is a file, not a folder" in capsys.readouterr().err
