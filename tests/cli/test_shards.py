"""`ddpm-jax sample --format npz`: many images in a file."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from cli.sampling import DDIM, names, pixels, sample
from pipelines.models import tiny as tiny_model

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.cli.image_files import SampledImage
from ddpm_jax.cli.shard_files import read_settings
from ddpm_jax.cli.shards import Shards
from ddpm_jax.cli.share import ALL
from ddpm_jax.models import UNet2DModel

NPZ = ("--format", "npz", "--shard-size", "4")
FILES = ["00000-00003.npz", "00004-00007.npz", "00008-00009.npz"]


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("made")
    assert sample(tiny, out, *NPZ, "--num", "10", batch=3) == 0
    return {name: (out / name).read_bytes() for name in names(out)}


@pytest.fixture
def out(made: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as found:
        return dict(found)


def test_shards_have_the_images_of_the_png_files(
    tiny: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """And say how they were made, which `info` shows."""
    assert names(out) == FILES
    assert sample(tiny, tmp_path / "png", "--num", "10", batch=3) == 0
    found = [arrays(out / name) for name in FILES]
    stacked = np.concatenate([one["arr_0"] for one in found])
    assert stacked.shape == (10, 8, 8, 1)
    assert stacked.dtype == np.uint8
    for number, image in enumerate(stacked):
        np.testing.assert_array_equal(image[..., 0], pixels(tmp_path / f"png/{number:05d}.png"))
    assert all("arr_1" not in one for one in found)
    settings = read_settings(out / FILES[1])
    assert settings["image"] == "4-7"
    assert (settings["seed"], settings["steps"]) == ("0", "3")
    assert json.loads(settings["versions"])["numpy"] == np.__version__
    assert main(["info", str(out / FILES[1])]) == 0
    printed = capsys.readouterr().out
    assert all(value in printed for value in settings.values())


def test_classes_stand_beside_the_pixels(classes: Path, tmp_path: Path):
    argv = ("--num", "5", "--labels", "2", "0")
    assert sample(classes, tmp_path / "out", *NPZ, *argv) == 0
    found = [
        arrays(tmp_path / "out" / name)["arr_1"] for name in ("00000-00003.npz", "00004-00004.npz")
    ]
    assert [one.tolist() for one in found] == [[2, 0, 2, 0], [2]]
    assert found[0].dtype == np.int64


def test_nothing_is_loaded_when_nothing_is_missing(tiny: Path, out: Path, monkeypatch):
    monkeypatch.setattr(UNet2DModel, "from_pretrained", None)
    for num in ("10", "8"):  # fewer images leave later shards alone
        assert sample(tiny, out, *NPZ, "--num", num) == 0
    assert names(out) == FILES


def test_only_missing_and_damaged_shards_are_made(
    tiny: Path, made: dict[str, bytes], out: Path, capsys: pytest.CaptureFixture[str]
):
    """A truncated file, a changed byte, another shard's content and an empty file, in turn."""
    before = {name: arrays(out / name) for name in FILES}
    changed = bytearray(made[FILES[0]])
    changed[len(changed) // 4] ^= 1  # a pixel
    damages = {
        "truncated": (FILES[0], made[FILES[0]][:300]),
        "changed": (FILES[0], bytes(changed)),
        "another": (FILES[1], made[FILES[0]]),
        "empty": (FILES[2], b""),
    }
    for damage, (name, content) in damages.items():
        (out / name).write_bytes(content)
        kept = next(other for other in FILES if other != name)
        stamp = (out / kept).stat().st_mtime_ns
        capsys.readouterr()
        assert sample(tiny, out, *NPZ, "--num", "10", batch=3) == 0, damage
        captured = capsys.readouterr()
        assert f"{out / name} is damaged or another shard: it is made again" in captured.err
        assert captured.err.count("made again") == 1
        assert f"{10 - len(before[name]['arr_0'])} already existed" in captured.out
        assert (out / kept).stat().st_mtime_ns == stamp
        np.testing.assert_array_equal(arrays(out / name)["arr_0"], before[name]["arr_0"])
    assert names(out) == FILES


@pytest.mark.parametrize(
    "change",
    [
        lambda given: {"arr_0": given["arr_0"][:3]},
        lambda given: {"arr_0": given["arr_0"].astype(np.float32)},
        lambda given: {"arr_0": given["arr_0"].reshape(4, -1)},
        lambda given: {"arr_1": np.zeros(4, np.int64)},
    ],
    ids=["fewer", "floats", "flat", "classes"],
)
def test_a_whole_shard_of_other_arrays_is_made_again(tiny: Path, out: Path, made, change):
    given = arrays(out / FILES[0])
    np.savez(out / FILES[0], **{**given, **change(given)})
    assert sample(tiny, out, *NPZ, "--num", "10", batch=3) == 0
    again = arrays(out / FILES[0])
    assert again.keys() == given.keys()
    np.testing.assert_array_equal(again["arr_0"], given["arr_0"], strict=True)


def test_a_run_that_was_killed_loses_the_shard_under_way(tiny: Path, out: Path, made):
    (out / FILES[2]).unlink()
    (out / f".{FILES[2]}.abc.partial").mkdir()  # what a killed process leaves
    assert sample(tiny, out, *NPZ, "--num", "10", batch=3) == 0
    assert set(FILES) < set(names(out))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--seed 1", "seed 0, not 1"),
        ("--eta 0.5", "eta not given, not 0.5"),
        ("--scheduler ddpm", "DDPMScheduler"),
    ],
)
def test_other_settings_are_refused(
    argv: str, words: str, tiny: Path, out: Path, capsys: pytest.CaptureFixture[str]
):
    """Of planned shards, and of those beyond --num."""
    assert sample(tiny, out, *NPZ, "--num", "10", *argv.split()) == 1
    assert words in capsys.readouterr().err
    for name in FILES[:2]:
        (out / name).unlink()
    assert sample(tiny, out, *NPZ, "--num", "8", *argv.split()) == 1
    assert words in capsys.readouterr().err
    assert names(out) == FILES[2:]


@pytest.mark.parametrize("argv", ["--num 12 --shard-size 4", "--num 10 --shard-size 5"])
def test_images_are_not_made_twice_under_another_name(
    argv: str, tiny: Path, out: Path, capsys: pytest.CaptureFixture[str]
):
    assert sample(tiny, out, "--format", "npz", *argv.split()) == 1
    error = capsys.readouterr().err
    assert "which this --num and --shard-size make: remove the file" in error
    assert names(out) == FILES


@pytest.mark.parametrize("content", [b"my notes", None])
def test_files_of_other_programs_stay(
    content: bytes | None, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / FILES[0]
    if content is None:
        np.savez(file, np.zeros(3))
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    assert sample(tiny, tmp_path, *NPZ, "--num", "4") == 1
    assert str(file) in capsys.readouterr().err
    assert file.read_bytes() == before


def test_prompts_of_a_shard_are_those_of_its_images(tmp_path: Path):
    def shards(*prompts: str) -> Shards:
        each = [{"prompt": prompt} for prompt in prompts].__getitem__
        return Shards(tmp_path, {"seed": "0"}, size=2, each=each, classes=(), share=ALL)

    out = shards("a cat", "dog", "hat")
    black = np.zeros((1, 1, 3), np.uint8)
    out.save([SampledImage(number, black, ()) for number in out.missing(3)])
    assert names(tmp_path) == ["00000-00001.npz", "00002-00002.npz"]
    assert json.loads(read_settings(tmp_path / "00000-00001.npz")["prompts"]) == ["a cat", "dog"]
    assert shards("a cat", "dog", "hat").missing(3) == []
    said = r'prompts \["a cat", "dog"\], not \["a cat", "hat"\]'
    with pytest.raises(ValueError, match=said):
        shards("a cat", "hat", "hat").missing(3)


def test_images_that_png_cannot_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two channels: refused before anything is made, but in shards."""
    one, _ = tiny_model()
    model = dj.UNet2DModel.from_config({**one.config, "in_channels": 2, "out_channels": 2})
    params = model.init_params(jax.random.key(0))
    folder = tmp_path / "model"
    dj.DDIMPipeline(unet=model, params=params, scheduler=DDIM).save_pretrained(folder)
    assert sample(folder, tmp_path / "png", "--num", "2") == 2
    assert "images of 2 channels need --format npz" in capsys.readouterr().err
    assert names(tmp_path) == ["model"]
    assert sample(folder, tmp_path / "npz", *NPZ, "--num", "2") == 0
    assert arrays(tmp_path / "npz/00000-00001.npz")["arr_0"].shape == (2, 8, 8, 2)
