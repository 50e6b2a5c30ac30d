"""`ddpm-jax sample` with prompts, on a small random model."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cli.sampling import complaint, names, pixels
from PIL import Image
from pipelines.latent_models import SIZE

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.cli.prompted import job
from ddpm_jax.cli.provenance import read_png
from ddpm_jax.cli.sample import Sample

FILES = {"empty": "txt", "out": "png", "wide": "png"}
ALWAYS = ["sample", "--no-cache", "--steps", "3", "--scheduler", "pndm"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "day.png"
    random = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(random).save(path)
    return path


def run(model: Path, *argv: str) -> int:
    return main([*ALWAYS, "--model", str(model), *argv])


def expected(model: Path, kind: Any, prompts: list[str], **options: Any) -> list[np.ndarray]:
    """Images in batches of two, of which the command has made the programs."""
    pipe = kind.from_pretrained(model)
    keys = dj.sample_keys(jax.random.key(4), len(prompts))
    call = {"num_inference_steps": 3, "progress": False, **options}
    pairs = [slice(start, start + 2) for start in range(0, len(prompts), 2)]
    images = [image for pair in pairs for image in pipe(prompts[pair], keys[pair], **call).images]
    return [np.asarray(image).astype(int) for image in images]


def test_prompts_into_a_folder(prompted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two images of each prompt; a longer list continues; a changed one is refused."""
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("\ufeffa cat\r\n\n  dog\n")
    argv = ["--prompts-from", str(file), "--num", "2", "--seed", "4", "--batch-size", "2"]
    assert run(prompted, *argv, "--out", str(out)) == 0
    assert names(out) == [f"0000{i}.png" for i in range(4)]
    prompts = ["a cat", "a cat", "dog", "dog"]
    for i, image in enumerate(expected(prompted, dj.StableDiffusionPipeline, prompts)):
        assert np.abs(pixels(out / f"0000{i}.png") - image).max() <= 1
        assert read_png(out / f"0000{i}.png")["prompt"] == prompts[i]
    before = (out / "00000.png").stat().st_mtime_ns
    file.write_text("a cat\ndog\nhat\n")
    (out / "00002.png").unlink()
    capsys.readouterr()
    assert run(prompted, *argv, "--out", str(out)) == 0
    assert "3 already existed" in capsys.readouterr().out
    assert names(out) == [f"0000{i}.png" for i in range(6)]
    assert (out / "00000.png").stat().st_mtime_ns == before
    file.write_text("hat\ndog\n")
    capsys.readouterr()
    assert run(prompted, *argv, "--out", str(out)) == 1
    assert "was made with prompt a cat, not hat: pass another folder" in capsys.readouterr().err


def test_prompts_into_a_grid(prompted: Path, tmp_path: Path):
    out, given = tmp_path / "a.png", ["--negative", "dog", "--guidance", "3"]
    assert run(prompted, "--prompt", "a cat", "dog", *given, "--out", str(out)) == 0
    stored = read_png(out)
    wanted = {"prompts": '["a cat", "dog"]', "negative": "dog", "guidance": "3.0"}
    assert wanted.items() <= stored.items()
    assert stored["pipeline"] == "StableDiffusionPipeline"
    assert {"unet", "vae", "text_encoder", "tokenizer"} <= set(stored)


def test_options_of_a_call(prompted: Path):
    options = Sample(model=str(prompted), negative="night", guidance=3.0, width=SIZE + 4)
    found = job(options, str(prompted), ["a cat", "dog"])
    assert found.settings["width"] == str(SIZE + 4)
    call = found.drawing(2).options(np.array([1, 0]))
    assert call["prompt"] == ["dog", "a cat"]
    assert (call["negative_prompt"], call["guidance_scale"]) == ("night", 3.0)
    assert (call["height"], call["width"]) == (None, SIZE + 4)


def test_a_table_has_its_scale_of_guidance(
    prompted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "two.json"
    table = dj.DDIMScheduler.from_pretrained(prompted).table(2)
    dj.save_table(file, table, guidance_scale=3.0)

    def guidance(**given: Any) -> str:
        options = Sample(model=str(prompted), table_file=str(file), **given)
        return job(options, str(prompted), ["a cat"]).settings["guidance"]

    assert guidance() == "3.0"
    assert not capsys.readouterr().err
    assert guidance(guidance=5.0) == "5.0"
    assert "the table is for --guidance 3, got 5" in capsys.readouterr().err
    dj.save_table(file, table)
    assert guidance() == "7.5"


def test_the_bundled_model(capsys: pytest.CaptureFixture[str]):
    """No model is named, and the folder alone says what `info` prints."""
    assert Sample(prompt=("a person with green hair",)).job().settings["model"] == "avatars"
    assert main(["info", "avatars"]) == 0
    shown = capsys.readouterr().out
    for line in ("avatars: StableDiffusionPipeline", "unet: UNet2DConditionModel", "3,899,843"):
        assert line in shown
    assert shown.count("tensors of float16 in") == 3
    said = complaint("info avatars --memory", capsys, code=2)
    assert "--memory is for models with one network" in said


@pytest.mark.parametrize("masked", [False, True])
def test_images(prompted: Path, tmp_path: Path, picture: Path, masked: bool):
    out, mask = tmp_path / "out", tmp_path / "mask.png"
    white = Image.new("L", (SIZE, SIZE))
    white.paste(255, (0, 0, SIZE, SIZE // 2))
    white.save(mask)
    argv = ["--prompt", "a cat", "--image", str(picture), "--strength", "0.7", "--seed", "4"]
    argv += ["--mask", str(mask)] if masked else []
    assert run(prompted, *argv, "--num", "2", "--out", str(out)) == 0
    kind: Any = dj.StableDiffusionImg2ImgPipeline
    given: dict[str, Any] = {"image": Image.open(picture), "strength": 0.7}
    if masked:
        kind, given = dj.StableDiffusionInpaintPipeline, given | {"mask_image": white}
    for i, image in enumerate(expected(prompted, kind, ["a cat"] * 2, **given)):
        assert np.abs(pixels(out / f"0000{i}.png") - image).max() <= 1
    assert {"image_sha256", "strength"} <= set(read_png(out / "00000.png"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--model {model}", "makes images from prompts: pass --prompt"),
        ("--model digits --prompt cat", "digits makes images without prompts: leave out --prompt"),
        ("--negative cat", "--negative: only with --prompt or --prompts-from"),
        ("--model {model} --prompt a --mask m.png", "--mask needs --image"),
        ("--model {model} --prompt a --strength 0.5", "--strength needs --image"),
        ("--model {model} --prompt a --image none.png", "--image none.png cannot be read"),
        ("--model {model} --prompt a --image {image} --height 8", "are those of --image"),
        ("--model {model} --prompt a --image {image} --strength 0", "strength must be above 0"),
        ("--model {model} --prompt a --guidance nan", "--guidance must be a number, got nan"),
        ("--model {model} --prompt a --image {image} --mask {wide}", "got 32x16, not 16x16"),
        ("--model {model} --prompt a --labels 3", "--labels are of models without prompts"),
        ("--model {model} --prompt a --height 0", "--height must be at least 1"),
        (
            "--model {model} --prompt a --height 15 --out {out}",
            "--height and --width must be multiples of 2, got 15",
        ),
        ("--model {model} --prompts-from none.txt", "--prompts-from none.txt cannot be read"),
        ("--model {model} --prompts-from {empty}", "has no prompt: it needs one on each line"),
        ("--model {model} --prompts-from {empty} --prompt a", "not both"),
    ],
)
def test_refused_options(
    prompted: Path,
    picture: Path,
    tmp_path: Path,
    argv: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "empty.txt").write_text("\n")
    Image.new("L", (2 * SIZE, SIZE)).save(tmp_path / "wide.png")
    places = {name: tmp_path / f"{name}.{end}" for name, end in FILES.items()}
    given = argv.format(model=prompted, image=picture, **places)
    assert words in complaint(f"sample --no-cache {given}", capsys, code=2)
