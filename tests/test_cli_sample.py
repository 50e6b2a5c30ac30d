"""`ddpm-jax sample`, on a network small enough to compile in a moment."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from pipeline_models import SIZE, pipeline, scheduler

import ddpm_jax as dj
from ddpm_jax.cli import cache, drawing, main, provenance
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.generation import Progress
from ddpm_jax.images import to_uint8
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines import DDIMPipeline

DDIM = dj.DDIMScheduler.from_config(scheduler().config)
"""What the command makes of the tiny model's scheduler."""


def save_tiny(folder: Path, **config: object) -> Path:
    pipeline(DDIMPipeline, **config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


def sample(model: Path, out: Path, *argv: str, steps: int = 3, batch: int = 2) -> int:
    """Runs the command; batches of one size share their compilation across the tests."""
    always = f"sample --no-cache --model {model} --out {out} --steps {steps} --batch-size {batch}"
    return main([*always.split(), *argv])


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_grid(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The picture, its provenance, and where it is said to be."""
    out = tmp_path / "new" / "grid.png"
    assert sample(tiny, out, "--num", "5", "--columns", "3", "--seed", "7") == 0
    captured = capsys.readouterr()
    assert str(out) in captured.out
    assert "9/9" in captured.err  # the progress bar: three batches of three steps
    assert names(out.parent) == ["grid.png"]
    assert pixels(out).shape == (2 * 66 + 2, 3 * 66 + 2)  # tiles of 64 pixels, 2 between them
    text = provenance.read_png(out)
    config = json.loads(text["scheduler"])
    assert (text["model"], text["steps"], text["seed"]) == (str(tiny), "3", "7")
    assert (text["image"], text["dtype"]) == ("0-4", "float32")
    assert dj.DDIMScheduler.from_config(config) == DDIM
    assert config["_class_name"] == "DDIMScheduler"
    assert json.loads(text["versions"])["jax"] == jax.__version__
    assert main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    assert all(value in told for value in text.values())


def test_same_images_as_the_pipeline(tiny: Path, tmp_path: Path):
    out = tmp_path / "images"
    assert sample(tiny, out, "--num", "2", "--seed", "11", "--eta", "0.5") == 0
    pipe = DDIMPipeline.from_pretrained(tiny)
    expected = pipe(
        jax.random.key(11), batch_size=2, num_inference_steps=3, eta=0.5, progress=False
    ).images
    for number, picture in enumerate(expected):
        assert np.array_equal(pixels(out / f"{number:05d}.png"), np.asarray(picture))


def test_folder_gets_only_what_is_missing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A restart, with another batch size, makes the missing images alone, and they are the same."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert sample(tiny, whole, "--num", "5", batch=3) == 0
    assert sample(tiny, broken, "--num", "4") == 0
    (broken / "00001.png").unlink()
    before = {name: (broken / name).stat().st_mtime_ns for name in names(broken)}
    capsys.readouterr()
    assert sample(tiny, broken, "--num", "5") == 0
    assert "2 images" in (told := capsys.readouterr().out)
    assert "3 were there" in told
    assert all((broken / name).stat().st_mtime_ns == when for name, when in before.items())
    assert names(broken) == names(whole) == [f"{i:05d}.png" for i in range(5)]
    for name in names(whole):
        assert np.array_equal(pixels(whole / name), pixels(broken / name))
        assert provenance.read_png(whole / name)["image"] == str(int(name[:5]))
    assert len({pixels(whole / name).tobytes() for name in names(whole)}) == 5


def test_nothing_is_loaded_when_nothing_is_missing(tiny: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "images"
    assert sample(tiny, out, "--num", "2") == 0
    monkeypatch.delattr(UNet2DModel, "from_pretrained")
    assert sample(tiny, out, "--num", "2") == 0
    assert sample(tiny, out, "--num", "3") == 1


def test_last_batch_is_padded_not_compiled(tiny: Path, count_compilations):
    model, params = UNet2DModel.from_pretrained(tiny)
    draw = drawing.Drawing(
        model=model,
        params=params,
        table=DDIM.table(2),
        seed=0,
        labels=(),
        batch_size=5,
        every=None,
    ).draw(range(12))
    with count_compilations() as compiled:
        first = next(draw)
        of_first = compiled.count
        rest = list(draw)
    assert of_first > 0
    assert compiled.count == of_first
    assert [one.number for batch in [first, *rest] for one in batch] == list(range(12))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--seed 1", "seed 0 and not 1"),
        ("--eta 0.5", "eta not given and not 0.5"),
        ("--scheduler ddpm", "DDPMScheduler"),
        ("--dtype bfloat16", "dtype float32 and not bfloat16"),
        ("--set clip_sample=false", '"clip_sample": false'),
    ],
)
def test_folder_of_other_settings_is_refused(
    argv: str, told: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = {"model": str(tiny), "steps": "3", "seed": "0", "dtype": "float32"}
    config = {"_class_name": "DDIMScheduler", **DDIM.config}
    text["scheduler"] = json.dumps(config)
    text |= fingerprint(str(tiny), None, None)
    provenance.save_png(Image.new("L", (4, 4)), tmp_path / "00000.png", text, "0")
    before = (tmp_path / "00000.png").read_bytes()
    assert sample(tiny, tmp_path, "--num", "1") == 0  # these settings are the file's own
    capsys.readouterr()
    assert sample(tiny, tmp_path, "--num", "2", *argv.split()) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert (tmp_path / "00000.png").read_bytes() == before


def test_folder_with_a_foreign_picture_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Image.new("L", (4, 4)).save(tmp_path / "00003.png")
    assert sample(tiny, tmp_path, "--num", "2") == 1
    assert "00003.png" in capsys.readouterr().err
    assert names(tmp_path) == ["00003.png"]


def test_damaged_files_are_made_again(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Cut off in its pixels, cut off at once, and another image's: only these three are made."""
    assert sample(tiny, tmp_path, "--num", "4") == 0
    files = [tmp_path / f"{number:05d}.png" for number in range(4)]
    before = [file.read_bytes() for file in files]
    expected = [pixels(file) for file in files]
    files[0].write_bytes(before[0][: before[0].index(b"IDAT") + 20])
    files[1].write_bytes(b"")
    files[2].write_bytes(before[3])
    capsys.readouterr()
    assert sample(tiny, tmp_path, "--num", "4") == 0
    captured = capsys.readouterr()
    assert "3 images" in captured.out
    assert "1 were there" in captured.out
    assert captured.err.count("made again") == 3
    assert all(str(file) in captured.err for file in files[:3])
    assert files[3].read_bytes() == before[3]
    assert all(np.array_equal(pixels(f), e) for f, e in zip(files, expected, strict=True))


def test_a_file_of_another_kind_is_kept(tiny: Path, tmp_path: Path):
    (tmp_path / "00000.png").write_bytes(b"my notes")
    assert sample(tiny, tmp_path, "--num", "1") == 1
    assert (tmp_path / "00000.png").read_bytes() == b"my notes"


def test_other_weights_under_the_same_name(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    """A folder holds one model, whatever it is called."""
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("model"))
    assert sample(Path("model"), Path("out"), "--num", "1") == 0
    weights = Path("model/unet/diffusion_pytorch_model.safetensors")
    content = weights.read_bytes()
    text = provenance.read_png(Path("out/00000.png"))
    assert text["weights"] == hashlib.sha256(content).hexdigest()
    argv = "sample --no-cache --model ./model --out out --steps 3 --batch-size 2 --num 1".split()
    capsys.readouterr()
    assert main(argv) == 0
    assert "0 images" in capsys.readouterr().out
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    weights.write_bytes(changed)
    assert main(argv) == 1
    assert f"weights {text['weights']} and not" in capsys.readouterr().err


def test_fingerprint_of_shards(tmp_path: Path):
    """Each shard counts, and its name."""
    sums = set()
    for contents in ((b"a", b"b"), (b"a", b"c"), (b"b", b"a")):
        (tmp_path / "config.json").write_text("{}")
        stem = "diffusion_pytorch_model"
        for name, content in zip("12", contents, strict=True):
            (tmp_path / f"{stem}-{name}.safetensors").write_bytes(content)
        places = {"x": f"{stem}-1.safetensors", "y": f"{stem}-2.safetensors"}
        index = tmp_path / f"{stem}.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
        sums.add(fingerprint(str(tmp_path), None, None)["weights"])
    assert len(sums) == 3


def test_strips(tiny: Path, tmp_path: Path):
    """Every second of five steps and the end: three tiles a row, the last being the image."""
    out = tmp_path / "a.png"
    assert sample(tiny, out, "--num", "2", "--save-every", "2", steps=5) == 0
    assert names(tmp_path) == ["a-steps.png", "a.png"]
    strip, grid = pixels(tmp_path / "a-steps.png"), pixels(out)
    assert strip.shape == (2 * 66 + 2, 3 * 66 + 2)
    assert np.array_equal(strip[:68, 2 * 66 :], grid[:, :68])
    assert np.array_equal(strip[66:, 2 * 66 :], grid[:, 66:])
    predicted = {}
    DDIMPipeline.from_pretrained(tiny)(
        jax.random.key(0),
        batch_size=2,
        num_inference_steps=5,
        progress=False,
        callback=lambda done, images: predicted.update({done: images}),
        callback_every=2,
    )
    for number in range(2):
        for column, done in enumerate((2, 4)):
            corner = strip[66 * number + 2 :: 8, 66 * column + 2 :: 8][:SIZE, :SIZE]
            assert np.array_equal(corner, to_uint8(predicted[done])[number, ..., 0])


def test_strips_in_a_folder(tiny: Path, tmp_path: Path):
    """An image without its strip is made again."""
    assert sample(tiny, tmp_path, "--num", "2") == 0
    without = pixels(tmp_path / "00001.png")
    assert sample(tiny, tmp_path, "--num", "2", "--save-every", "1") == 0
    assert names(tmp_path) == ["00000-steps.png", "00000.png", "00001-steps.png", "00001.png"]
    assert np.array_equal(pixels(tmp_path / "00001.png"), without)


def test_labels_go_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = save_tiny(tmp_path / "model", num_class_embeds=3)
    assert sample(model, tmp_path / "both", "--num", "3", "--labels", "0", "2") == 0
    assert sample(model, tmp_path / "none.png", "--num", "2") == 1
    assert "class" in capsys.readouterr().err
    assert sample(model, tmp_path / "zero", "--num", "3", "--labels", "0") == 0
    same = [
        np.array_equal(pixels(tmp_path / "both" / name), pixels(tmp_path / "zero" / name))
        for name in names(tmp_path / "both")
    ]
    assert same == [True, False, True]
    assert provenance.read_png(tmp_path / "both" / "00000.png")["labels"] == "0 2"


@pytest.mark.parametrize(
    ("fields", "labels", "told"),
    [
        ({}, ["1"], "--labels is for models with classes, and this one has none"),
        ({"num_class_embeds": 3}, [], "give --labels, classes from 0 to 2"),
        ({"num_class_embeds": 3}, ["2", "3", "-1"], "classes from 0 to 2, got -1, 3"),
        ({"class_embed_type": "timestep"}, [], "give --labels, numbers"),
        ({"class_embed_type": "identity"}, ["1"], "vectors"),
    ],
)
def test_labels_are_checked_before_all_else(
    fields: dict[str, object],
    labels: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch,
    capsys: pytest.CaptureFixture[str],
):
    """In one line, with no bar, nothing loaded and nothing made."""
    model = save_tiny(tmp_path / "model")
    config = model / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    monkeypatch.delattr(UNet2DModel, "from_pretrained")
    argv = ["--labels", *labels] if labels else []
    assert sample(model, tmp_path / "out", *argv) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("scheduler", ["pndm", "euler-ancestral"])
def test_schedulers(scheduler: str, tiny: Path, tmp_path: Path):
    out = tmp_path / "a.png"
    assert sample(tiny, out, "--num", "1", "--scheduler", scheduler, steps=5) == 0
    assert scheduler.split("-")[0] in provenance.read_png(out)["scheduler"].lower()


def test_dtype(tiny: Path, tmp_path: Path):
    """Computed in the dtype that is asked for: near the float32 pixels, and not equal to them."""
    for name in ("float32", "bfloat16"):
        assert sample(tiny, tmp_path / f"{name}.png", "--dtype", name, "--num", "8") == 0
    near, exact = (pixels(tmp_path / f"{name}.png").astype(int) for name in ("bfloat16", "float32"))
    assert np.abs(near - exact).max() > 0
    assert np.abs(near - exact).mean() < 8  # grey levels; another seed gives 50


def test_out_of_memory_names_a_batch_size(
    tiny: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def exhausted(*_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")

    monkeypatch.setattr(drawing, "run", exhausted)
    assert sample(tiny, tmp_path / "a.png", "--num", "9", batch=8) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ddpm-jax: out of memory; try --batch-size 4"
    )
    assert sample(tiny, tmp_path / "a.png", "--num", "1") == 1
    assert "--dtype bfloat16" in capsys.readouterr().err
    assert not names(tmp_path)


def test_images_that_are_not_numbers(
    tiny: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    def broken(denoise: object, params: object, table: object, x_T: jax.Array, *_: object, **__):
        yield Progress(3, (x_T * np.float32("nan"),))

    monkeypatch.setattr(drawing, "run", broken)
    assert sample(tiny, tmp_path / "a.png", "--num", "3") == 1
    assert "finite" in capsys.readouterr().err
    assert not names(tmp_path)


def test_a_file_appears_only_when_complete(tmp_path: Path, monkeypatch):
    def half(self: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        provenance.save_png(Image.new("L", (4, 4)), tmp_path / "a.png", {}, "0")
    assert not names(tmp_path)


@contextlib.contextmanager
def running(*argv: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which is gone afterwards."""
    # A background job's children ignore SIGINT, and the tests may be one: as in a terminal, then.
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ddpm_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_interrupt(tiny: Path, tmp_path: Path):
    """Ctrl-C in the middle of a long run: exit code 130, a line to say so, whole files only."""
    argv = f"sample --no-cache --model {tiny} --scheduler ddpm --steps 1000 --num 1000000".split()
    with running(*argv, "--batch-size", "2", "--out", str(tmp_path / "out")) as run:
        while not (tmp_path / "out" / "00001.png").exists() and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, told = run.communicate()
    assert run.returncode == 130, told
    assert told.splitlines()[-1] == (
        "ddpm-jax: interrupted; the same command makes the images that are missing"
    )
    assert "Traceback" not in told
    assert all(len(name) == len("00000.png") for name in names(tmp_path / "out"))


def test_compiled_programs_are_kept(tiny: Path, tmp_path: Path):
    argv = ["sample", "--model", str(tiny), "--num", "1", "--steps", "2"]
    kept = tmp_path / "ddpm_jax" / "compiled"
    programs = []
    for out in ("a.png", "b.png"):
        with running(*argv, "--out", str(tmp_path / out), XDG_CACHE_HOME=str(tmp_path)) as run:
            _, told = run.communicate()
        assert run.returncode == 0, told
        programs.append({name for name in names(kept) if not name.endswith("-atime")})
    assert any("advance" in name for name in programs[0])
    assert programs[0] == programs[1]
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_no_cache(tiny: Path, tmp_path: Path, monkeypatch):
    asked = []
    monkeypatch.setattr(cache, "use", asked.append)
    assert sample(tiny, tmp_path / "a.png", "--num", "1") == 0
    assert not asked


def test_a_cache_that_cannot_be_written_stops_nothing(
    tiny: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cache, "folder", lambda: Path(os.devnull) / "cache")
    argv = f"sample --model {tiny} --num 1 --steps 2 --out {tmp_path / 'a.png'}"
    assert main(argv.split()) == 0
    assert capsys.readouterr().err.count("compiling without a cache") == 1
    assert names(tmp_path) == ["a.png"]
