"""`ddpm-jax sample`, with a network that compiles in a moment."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cli.sampling import (
    DDIM,
    PROGRAM,
    complaint,
    drawn,
    has_images,
    names,
    pixels,
    sample,
    save_tiny,
)
from PIL import Image
from pipelines.models import SIZE, edit

import ddpm_jax as dj
from ddpm_jax.cli import cache, main, provenance
from ddpm_jax.cli.drawing import Drawing
from ddpm_jax.images import make_grid, to_uint8
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines import call
from ddpm_jax.pipelines.inputs import Inputs
from ddpm_jax.pipelines.unconditional import DDIMPipeline


def test_grid(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The images of three batches, their provenance, and the printed path. No cache is used."""
    monkeypatch.setattr(cache, "use", None)
    out = tmp_path / "new" / "grid.png"
    assert sample(tiny, out, "--num", "5", "--columns", "3", "--seed", "7") == 0
    captured = capsys.readouterr()
    assert str(out) in captured.out
    assert "5/5" in captured.err  # the progress bar
    assert names(out.parent) == ["grid.png"]
    assert sample(tiny, tmp_path / "images", "--num", "5", "--seed", "7") == 0
    images = [pixels(tmp_path / "images" / f"{i:05d}.png") for i in range(5)]
    assert np.array_equal(pixels(out), make_grid([Image.fromarray(one) for one in images], 3))
    text = provenance.read_png(out)
    config = json.loads(text["scheduler"])
    assert (text["model"], text["steps"], text["seed"]) == (str(tiny), "3", "7")
    assert (text["image"], text["dtype"]) == ("0-4", "float32")
    assert dj.DDIMScheduler.from_config(config) == DDIM
    assert config["_class_name"] == "DDIMScheduler"
    assert json.loads(text["versions"])["jax"] == jax.__version__
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(value in printed for value in text.values())


def test_same_images_as_the_pipeline(tiny: Path, tmp_path: Path):
    assert sample(tiny, tmp_path / "images", "--num", "2", "--seed", "11", "--eta", "0.5") == 0
    assert has_images(tmp_path / "images", drawn(tiny, seed=11, eta=0.5))


def test_last_batch_is_padded_not_compiled(tiny: Path, count_compilations):
    draw = Drawing(
        pipe=DDIMPipeline.from_pretrained(tiny),
        options=lambda _: {},
        table=DDIM.table(2),
        seed=0,
        batch_size=5,
        every=None,
    ).draw(range(12))
    with count_compilations() as compiled:
        first = next(draw)
        first_count = compiled.count
        rest = list(draw)
    assert first_count > 0
    assert compiled.count == first_count
    assert [one.number for batch in [first, *rest] for one in batch] == list(range(12))


def test_strips(tiny: Path, tmp_path: Path):
    """Every second of five steps and the end: three tiles in a row. The last is the image."""
    out = tmp_path / "a.png"
    assert sample(tiny, out, "--num", "2", "--save-every", "2", "--gif", steps=5) == 0
    assert names(tmp_path) == ["a-steps.gif", "a-steps.png", "a.png"]
    with Image.open(tmp_path / "a-steps.gif") as gif:
        assert gif.n_frames == 3
        gif.seek(2)
        assert np.array_equal(gif.convert("L"), pixels(out))
    strip, grid = pixels(tmp_path / "a-steps.png"), pixels(out)
    assert strip.shape == (2 * 66 + 2, 3 * 66 + 2)
    assert np.array_equal(strip[:68, 2 * 66 :], grid[:, :68])
    assert np.array_equal(strip[66:, 2 * 66 :], grid[:, 66:])
    predicted = {}
    store = {"callback": lambda done, images: predicted.update({done: images})}
    drawn(tiny, steps=5, **store, callback_every=2)
    for number in range(2):
        for column, done in enumerate((2, 4)):
            corner = strip[66 * number + 2 :: 8, 66 * column + 2 :: 8][:SIZE, :SIZE]
            assert np.array_equal(corner, to_uint8(predicted[done])[number, ..., 0])


def test_labels(classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """By name, repeated cyclically. By default all but the one that means no class."""

    def images(name: str, labels: str = "") -> list[bytes]:
        out = tmp_path / name
        assert sample(classes, out, "--num", "3", *labels.split()) == 0
        return [pixels(out / name).tobytes() for name in names(out)]

    everything = images("all")
    dogs, cats = images("dogs", "--labels dog cat"), images("cats", "--labels cat")
    assert [a == b for a, b in zip(everything, cats, strict=True)] == [True, False, True]
    assert [a == b for a, b in zip(dogs, cats, strict=True)] == [False, True, False]
    assert provenance.read_png(tmp_path / "all" / "00002.png")["labels"] == "0 1"
    assert provenance.read_png(tmp_path / "dogs" / "00002.png")["labels"] == "1 0"
    base = f"sample --no-cache --model {classes} --out {tmp_path / 'none'} --labels"
    said = complaint(f"{base} cow", capsys, 2)
    assert "no class is named cow: 0 cat, 1 dog, 2 no class" in said
    said = complaint(f"{base} 7", capsys, 2)
    assert "--labels takes 0 cat, 1 dog, 2 no class; got 7" in said


def test_guidance_is_that_of_the_pipeline(classes: Path, tmp_path: Path):
    out = tmp_path / "guided"
    argv = "--num 2 --labels dog --guidance 3 --guidance-interval 0.1 5"
    assert sample(classes, out, *argv.split()) == 0
    guided = {"guidance_scale": 3.0, "guidance_interval": (0.1, 5.0)}
    assert has_images(out, drawn(classes, class_labels="dog", **guided))
    settings = provenance.read_png(out / "00000.png")
    assert (settings["guidance"], settings["guidance_interval"]) == ("3.0", "(0.1, 5.0)")


@pytest.mark.parametrize("masked", [False, True])
def test_images_to_begin_with_are_those_of_the_pipeline(tiny: Path, tmp_path: Path, masked: bool):
    gray, black = Image.new("L", (16, 16), 99), Image.new("L", (16, 16), 0)
    gray.save(tmp_path / "gray.png")
    black.save(tmp_path / "black.png")
    argv = ["--image", str(tmp_path / "gray.png"), "--strength", "0.7", "--num", "2"]
    given: dict[str, Any] = {"image": gray, "strength": 0.7}
    if masked:
        argv += ["--mask", str(tmp_path / "black.png")]
        given["mask_image"] = black
    out = tmp_path / "out"
    assert sample(tiny, out, *argv) == 0
    images = drawn(tiny, **given)
    assert has_images(out, images)
    assert all((np.asarray(image) == 99).all() == masked for image in images)
    assert {"image_sha256", "strength"} <= set(provenance.read_png(out / "00000.png"))


def test_a_network_alone_takes_its_scheduler_from_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A checkpoint in a run of accelerate: the scheduler is in the run's folder, or is given."""
    run = save_tiny(tmp_path / "run")
    checkpoint = run / "checkpoint-500"
    (run / "unet").rename(checkpoint)
    (run / "model_index.json").unlink()
    assert sample(checkpoint, tmp_path / "found", "--num", "1") == 0
    scheduler = run / "scheduler"
    scheduler.rename(tmp_path / "elsewhere")
    assert sample(checkpoint, tmp_path / "none", "--num", "1") == 2
    assert "pass --scheduler-config" in capsys.readouterr().err
    config = tmp_path / "elsewhere" / "scheduler_config.json"
    for i, given in enumerate(("default", tmp_path / "elsewhere", config, "digits")):
        argv = ("--num", "1", "--scheduler-config", str(given))
        assert sample(checkpoint, tmp_path / str(i), *argv) == 0
    drawn = {pixels(tmp_path / name / "00000.png").tobytes() for name in ("found", "1", "2")}
    assert len(drawn) == 1


@pytest.mark.parametrize(
    ("fields", "labels", "words"),
    [
        ({"num_class_embeds": 3}, "--labels 2 3 -1", "classes from 0 to 2; got -1, 3"),
        ({"class_embed_type": "timestep"}, "", "pass --labels with numbers"),
        ({"class_embed_type": "identity"}, "--labels 1", "vectors"),
    ],
)
def test_labels_are_checked_first(
    fields: dict[str, object],
    labels: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """There is no progress bar, and nothing is loaded or made."""
    model = save_tiny(tmp_path / "model")
    edit(model / "unet" / "config.json", **fields)
    monkeypatch.setattr(UNet2DModel, "from_pretrained", None)
    argv = f"sample --no-cache --model {model} --out {tmp_path / 'out'} {labels}"
    assert words in complaint(argv, capsys, 2)
    assert names(tmp_path) == ["model"]


def test_dtype(tiny: Path, tmp_path: Path):
    """bfloat16 gives pixels close to those of float32, but not equal."""
    for name in ("float32", "bfloat16"):
        assert sample(tiny, tmp_path / f"{name}.png", "--dtype", name, "--num", "8") == 0
    near, exact = (pixels(tmp_path / f"{name}.png").astype(int) for name in ("bfloat16", "float32"))
    assert np.abs(near - exact).max() > 0
    assert np.abs(near - exact).mean() < 8  # gray levels; another seed gives 50


def test_out_of_memory_names_a_batch_size(
    tiny: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def exhausted(*_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")

    monkeypatch.setattr(call, "generate", exhausted)
    assert sample(tiny, tmp_path / "a.png", "--num", "9", batch=8) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ddpm-jax: out of memory: try --batch-size 4"
    )
    assert sample(tiny, tmp_path / "a.png", "--num", "1") == 1
    assert "--dtype bfloat16" in capsys.readouterr().err
    assert not names(tmp_path)


def test_images_that_are_not_numbers(
    tiny: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def broken(_denoise: object, _params: object, _table: object, inputs: Inputs, *_, **__: object):
        return inputs.x_T * np.float32("nan")

    monkeypatch.setattr(call, "generate", broken)
    assert sample(tiny, tmp_path / "a.png", "--num", "3") == 1
    assert "NaN or infinity" in capsys.readouterr().err
    assert not names(tmp_path)


@contextlib.contextmanager
def running(*argv: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command in its own process, which ends with the block."""
    # Children of a background job ignore SIGINT. This sets the handler of a terminal.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {PROGRAM}"
    with subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow  # fast: test_segments has the interrupt, test_app the exit code
def test_interrupt(tiny: Path, tmp_path: Path):
    """Ctrl-C in a long run: exit code 130, one line of text, only complete files."""
    argv = f"sample --no-cache --model {tiny} --scheduler ddpm --steps 1000 --num 1000000".split()
    with running(*argv, "--batch-size", "2", "--out", str(tmp_path / "out")) as run:
        while not (tmp_path / "out" / "00001.png").exists() and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, error = run.communicate()
    assert run.returncode == 130, error
    assert error.splitlines()[-1] == (
        "ddpm-jax: interrupted; run the same command again to make the missing images"
    )
    assert "Traceback" not in error
    assert all(len(name) == len("00000.png") for name in names(tmp_path / "out"))


@pytest.mark.slow  # fast: test_app::test_cache_folder
def test_compiled_programs_are_cached(tiny: Path, tmp_path: Path):
    argv = ["sample", "--model", str(tiny), "--num", "1", "--steps", "2"]
    cached = tmp_path / "ddpm_jax" / "compiled"
    programs = []
    for out in ("a.png", "b.png"):
        with running(*argv, "--out", str(tmp_path / out), XDG_CACHE_HOME=str(tmp_path)) as run:
            _, error = run.communicate()
        assert run.returncode == 0, error
        programs.append({name for name in names(cached) if not name.endswith("-atime")})
    assert any("advance" in name for name in programs[0])
    assert programs[0] == programs[1]
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_upscale(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The command's images are the pipeline's under PiGDM; other sizes are refused."""
    small, out = tmp_path / "small.png", tmp_path / "images"
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(values).save(small)
    assert sample(tiny, out, "--num", "2", "--upscale", str(small)) == 0
    y = 2 * values.astype(np.float32).reshape(1, 4, 4, 1) / 255 - 1
    guide = dj.pigdm(dj.Downsampled(2), y, 1 / 255, data_std=0.5)
    assert has_images(out, drawn(tiny, guide=guide))
    Image.fromarray(values[:3]).save(small)
    argv = f"sample --model {tiny} --out a.png --upscale {small}"
    assert "8x8 by a whole factor, got 4x3" in complaint(argv, capsys, 2)
    assert "--upscale" in complaint(f"{argv} --image {small}", capsys, 2)
