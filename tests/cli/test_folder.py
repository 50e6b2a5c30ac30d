"""`ddpm-jax sample` into a folder: existing images stay, missing images are made."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from cli.sampling import DDIM, complaint, names, pixels, sample, save_tiny
from PIL import Image

from ddpm_jax.cli import main, provenance
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.models import UNet2DModel


def test_only_missing_images_are_made(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A restart with another batch size makes only the missing images, and they are the same."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert sample(tiny, whole, "--num", "5", batch=3) == 0
    assert sample(tiny, broken, "--num", "4") == 0
    (broken / "00001.png").unlink()
    before = {name: (broken / name).stat().st_mtime_ns for name in names(broken)}
    capsys.readouterr()
    assert sample(tiny, broken, "--num", "5") == 0
    assert "2 images" in (printed := capsys.readouterr().out)
    assert "3 already existed" in printed
    assert all((broken / name).stat().st_mtime_ns == when for name, when in before.items())
    assert names(broken) == names(whole) == [f"{i:05d}.png" for i in range(5)]
    for name in names(whole):
        assert np.array_equal(pixels(whole / name), pixels(broken / name))
        assert provenance.read_png(whole / name)["image"] == str(int(name[:5]))
    assert len({pixels(whole / name).tobytes() for name in names(whole)}) == 5


def test_nothing_is_loaded_when_nothing_is_missing(tiny: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "images"
    assert sample(tiny, out, "--num", "2") == 0
    monkeypatch.setattr(UNet2DModel, "from_pretrained", None)
    assert sample(tiny, out, "--num", "2") == 0
    assert sample(tiny, out, "--num", "3") == 1


def test_folder_of_other_settings_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = {"model": str(tiny), "steps": "3", "seed": "0", "dtype": "float32"}
    text["scheduler"] = json.dumps({"_class_name": "DDIMScheduler", **DDIM.config})
    text |= fingerprint(str(tiny), None, None)
    provenance.save_png(Image.new("L", (4, 4)), tmp_path / "00000.png", text, "0")
    before = (tmp_path / "00000.png").read_bytes()
    assert sample(tiny, tmp_path, "--num", "1") == 0  # with the settings of the file
    for options, words in {
        "--seed 1": "seed 0, not 1",
        "--eta 0.5": "eta not given, not 0.5",
        "--scheduler ddpm": "DDPMScheduler",
        "--dtype bfloat16": "dtype float32, not bfloat16",
        "--set clip_sample=false": '"clip_sample": false',
    }.items():
        argv = f"sample --no-cache --model {tiny} --out {tmp_path} --steps 3 --num 2 {options}"
        assert words in complaint(argv, capsys, 1)
    assert (tmp_path / "00000.png").read_bytes() == before


@pytest.mark.parametrize(("name", "png"), [("00003.png", True), ("00000.png", False)])
def test_files_of_other_programs_stay(
    name: str, png: bool, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A PNG file, and one of another format."""
    file = tmp_path / name
    if png:
        Image.new("L", (4, 4)).save(file)
    else:
        file.write_bytes(b"my notes")
    before = file.read_bytes()
    assert sample(tiny, tmp_path, "--num", "2") == 1
    assert name in capsys.readouterr().err
    assert names(tmp_path) == [name]
    assert file.read_bytes() == before


def test_damaged_files_are_made_again(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A file truncated in its pixels, an empty file and another image's file are made again."""
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
    assert "1 already existed" in captured.out
    assert captured.err.count("made again") == 3
    assert all(str(file) in captured.err for file in files[:3])
    assert files[3].read_bytes() == before[3]
    assert all(np.array_equal(pixels(f), e) for f, e in zip(files, expected, strict=True))


def test_a_changed_byte_anywhere_is_found(tmp_path: Path):
    """In pixels, text and structure, and a file that ends early by any number of bytes."""
    file = tmp_path / "a.png"
    provenance.save_png(Image.new("L", (4, 4), 9), file, {"seed": "0"}, "0")
    content = file.read_bytes()
    assert provenance.is_complete(file)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert not provenance.is_complete(file), place
        file.write_bytes(content[:place])
        assert not provenance.is_complete(file), place


def test_other_weights_under_the_same_name(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    """A folder has images of one model. Its name does not matter."""
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
    assert f"weights {text['weights']}, not" in capsys.readouterr().err


def test_fingerprint_of_shards(tmp_path: Path):
    """The content and name of each shard matter."""
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
    index.write_text("{}")
    with pytest.raises(ValueError, match="it has no weight_map"):
        fingerprint(str(tmp_path), None, None)


def test_strips_in_a_folder(tiny: Path, tmp_path: Path):
    """An image without its strip is made again."""
    assert sample(tiny, tmp_path, "--num", "2") == 0
    without = pixels(tmp_path / "00001.png")
    assert sample(tiny, tmp_path, "--num", "2", "--save-every", "1") == 0
    assert names(tmp_path) == ["00000-steps.png", "00000.png", "00001-steps.png", "00001.png"]
    assert np.array_equal(pixels(tmp_path / "00001.png"), without)
