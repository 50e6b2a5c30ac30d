"""Sources by name: the digits and folders of image files."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training.data.sources import image, opened

from ddpm_jax.training.data import Data, Source, UnreadableImage
from ddpm_jax.training.data.files import SUFFIXES


def write(folder: Path, images: Mapping[str, Image.Image]) -> Path:
    for name, made in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        made.save(folder / name)
    return folder


def names(source: Source, folder: Path) -> list[str]:
    return [os.path.relpath(source.name_of(i), folder) for i in range(len(source))]


def test_the_other_spelling_of_center():
    assert Data(crop="centre") == Data(crop="center")


def test_digits():
    source = opened("digits", labels=True)
    assert (len(source), source.shape, source.num_classes) == (1797, (8, 8, 1), 10)
    first = source[0]
    assert first["image"].dtype == np.float32
    assert (first["image"].min(), first["image"].max()) == (-1, pytest.approx(15 / 8 - 1, abs=4e-3))
    assert first["label"] == 0
    assert first["label"].dtype == np.int32
    assert opened("digits").num_classes is None
    assert opened("digits", resolution=16).shape == (16, 16, 1)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"needs sklearn: pip install 'ddpm-jax\[train\]'"):
        opened("digits")


def test_folder_of_all_kinds_in_order(tmp_path: Path):
    made = {name: image() for name in ("b/2.PNG", "b/1.webp", "a/x.JpEg", "c.jpg", "a/y/z.png")}
    write(tmp_path, made)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "._x.png").write_text("a Mac's shadow of a file")
    with pytest.warns(UserWarning, match=r"5 images; other files are left out: 1 with \.txt$"):
        source = opened(tmp_path)
    assert names(source, tmp_path) == ["a/x.JpEg", "a/y/z.png", "b/1.webp", "b/2.PNG", "c.jpg"]
    assert source.shape == (8, 8, 3)
    lossless = np.asarray(made["a/y/z.png"]) / 127.5 - 1
    np.testing.assert_allclose(source[1]["image"], lossless, atol=1e-6)
    with pytest.raises(IndexError, match="5 images"):
        source[5]


def test_labels_are_the_first_folders(tmp_path: Path):
    write(tmp_path, {name: image() for name in ("dog/1.png", "cat/1.png", "cat/more/2.png")})
    source = opened(tmp_path, labels=True)
    assert source.classes == ("cat", "dog")
    assert [int(source[i]["label"]) for i in range(3)] == [0, 0, 1]
    write(tmp_path, {"loose.png": image()})
    with pytest.raises(ValueError, match=r"1 images are directly in .*loose\.png"):
        opened(tmp_path, labels=True)
    assert "label" not in opened(tmp_path)[0]


def test_links_are_followed_once(tmp_path: Path):
    write(tmp_path / "far", {"1.png": image()})
    write(tmp_path / "near", {"2.png": image()})
    try:
        (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
        (tmp_path / "near" / "3.png").symlink_to(tmp_path / "far" / "1.png")
        for name in ("circle", "round"):  # either alone ends at the system's limit of 40 links
            (tmp_path / "near" / name).symlink_to(tmp_path / "near")
    except OSError:
        pytest.skip("this system makes no links")
    assert names(opened(tmp_path / "near"), tmp_path / "near") == ["2.png", "3.png", "link/1.png"]


def test_a_folder_by_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is still found after the working folder has changed."""
    write(tmp_path / "digits", {"1.png": image()})
    monkeypatch.chdir(tmp_path)
    source = opened("./digits")
    monkeypatch.chdir("/")
    assert source[0]["image"].shape == (8, 8, 3)


def test_mixed_sizes(tmp_path: Path):
    write(tmp_path, {"1.png": image((17, 23))})
    assert opened(tmp_path).shape == (23, 17, 3)
    write(tmp_path, {"2.png": image((9, 4)), "3.png": image()})
    with pytest.raises(ValueError, match=r"17x23 .*1\.png.*9x4 .*resolution"):
        opened(tmp_path)
    source = opened(tmp_path, resolution=12)  # larger than some, smaller than others
    assert source.shape == (12, 12, 3)
    assert all(source[i]["image"].shape == (12, 12, 3) for i in range(3))
    with pytest.raises(ValueError, match=r"after resizing, 12x16 .*crop"):
        opened(tmp_path, resolution=12, crop="none")
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").unlink()
    assert opened(tmp_path, resolution=12, crop="none").shape == (16, 12, 3)


def test_channels_as_found(tmp_path: Path):
    write(tmp_path / "grey", {"1.png": image(mode="L"), "2.png": image(mode="1")})
    assert opened(tmp_path / "grey").shape == (8, 8, 1)
    assert opened(tmp_path / "grey", channels=3).shape == (8, 8, 3)
    grey = image(mode="L")
    write(tmp_path / "some", {"1.png": image(), "2.png": grey})
    source = opened(tmp_path / "some")
    assert source.shape == (8, 8, 3)
    expected = np.repeat(np.asarray(grey)[..., None], 3, -1) / 127.5 - 1
    np.testing.assert_allclose(source[1]["image"], expected, atol=1e-6)
    assert opened(tmp_path / "some", channels=1).shape == (8, 8, 1)


def test_alpha(tmp_path: Path):
    write(tmp_path, {"1.png": image(mode="RGBA")})
    assert opened(tmp_path).shape == (8, 8, 4)
    write(tmp_path, {"2.png": image()})
    with pytest.raises(ValueError, match=r"1\.png, and some do not, such as .*2\.png: set chan"):
        opened(tmp_path)
    assert opened(tmp_path, channels=3)[0]["image"].shape == (8, 8, 3)
    added = opened(tmp_path, channels=4)[1]["image"]
    assert (added[..., 3] == 1).all()
    with pytest.raises(ValueError, match="channels must be 1, 3 or 4 for image files, got 2"):
        opened(tmp_path, channels=2)


def test_which_headers_are_read(tmp_path: Path):
    """None where the settings say all, and a hundred where they give the channels."""
    write(tmp_path, {f"{i:03}.png": image() for i in range(101)})
    (tmp_path / "100.png").write_bytes(b"broken")
    assert opened(tmp_path, channels=3).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match=r"100\.png cannot be read: .*set skip_unreadable"):
        opened(tmp_path)
    (tmp_path / "000.png").write_bytes(b"broken")
    assert opened(tmp_path, resolution=8, channels=3).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match=r"000\.png cannot be read"):
        opened(tmp_path, channels=3)


@pytest.mark.parametrize(
    ("files", "message"),
    [((), "the folder is empty"), (("a.psd", "b.psd", "c"), "2 with .psd, 1 with no suffix")],
)
def test_folder_without_images(tmp_path: Path, files: tuple[str, ...], message: str):
    for file in files:
        (tmp_path / file).write_text("")
    with pytest.raises(ValueError, match=f"holds no image .*{message}"):
        opened(tmp_path)


def test_unknown_names(tmp_path: Path):
    for name in (tmp_path / "nothing", "./nothing", "nothing.npy", "a/b/c"):
        with pytest.raises(ValueError, match=f"there is no file or folder {name}"):
            opened(name)
    (tmp_path / "film.mp4").write_text("")
    with pytest.raises(ValueError, match=r"not \.npy, \.npz or \.parquet"):
        opened(tmp_path / "film.mp4")
    (tmp_path / "images.zip").write_text("")
    with pytest.raises(ValueError, match="is an archive: unpack it and give the folder"):
        opened(tmp_path / "images.zip")


def test_what_pillow_reads_is_read(tmp_path: Path):
    """As far as it writes it, too."""
    Image.init()
    kinds = {suffix: Image.registered_extensions().get(suffix) for suffix in SUFFIXES}
    files = {f"{suffix[1:]}{suffix}": image() for suffix in SUFFIXES if kinds[suffix] in Image.SAVE}
    source = opened(write(tmp_path, files))
    assert source.shape == (8, 8, 3)
    assert names(source, tmp_path) == sorted(files)
    assert all(source[i]["image"].shape == (8, 8, 3) for i in range(len(source)))
    assert len(files) > 15


def test_parts_of_a_data_set_are_no_classes(tmp_path: Path):
    write(tmp_path, {f"{part}/{i}.png": image() for part in ("train", "test") for i in range(2)})
    with pytest.warns(UserWarning, match=r"the classes of .* are test and train: to train on one"):
        assert opened(tmp_path, labels=True).classes == ("test", "train")


def test_options_that_mean_nothing_are_refused(tmp_path: Path):
    write(tmp_path, {"1.png": image()})
    with pytest.raises(ValueError, match=r"split and revision cannot be chosen for .* a folder"):
        opened(tmp_path, split="train", revision="main")
    with pytest.raises(ValueError, match="image_column cannot be chosen for digits"):
        opened("digits", image_column="x")
