"""Data sets of Hugging Face: saved on disk, and by the id of one on the hub."""

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from training.data.sources import assert_same, image, opened

from ddpm_jax.training.data import UnreadableImage


@pytest.fixture
def hf() -> ModuleType:
    return pytest.importorskip("datasets", reason="needs datasets: pip install -e '.[train]'")


def table(hf: ModuleType, rows: int = 4):
    images = [image() for _ in range(rows)]
    features = hf.Features(
        {
            "img": hf.Image(),
            "fine": hf.ClassLabel(names=["owl", "asp"]),
            "word": hf.Value("string"),
            "age": hf.Value("float32"),
        }
    )
    columns = {
        "img": images,
        "fine": [i % 2 for i in range(rows)],
        "word": ["b", "a", "b", "c"][:rows],
        "age": [1.0] * rows,
    }
    return hf.Dataset.from_dict(columns, features=features), images


@pytest.mark.parametrize("place", ["one.parquet", "clone/data/train-00000-of-00001.parquet"])
def test_parquet(tmp_path: Path, hf: ModuleType, place: str, monkeypatch: pytest.MonkeyPatch):
    """One file, or a data set that was cloned from the hub."""
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made, images = table(hf)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    made.to_parquet(str(tmp_path / place))
    source = opened(tmp_path / place.partition("/")[0], labels=True)
    assert (len(source), source.shape, source.classes) == (4, (8, 8, 3), ("owl", "asp"))
    np.testing.assert_allclose(
        source[2]["image"], np.asarray(images[2]) / np.float32(127.5) - 1, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["int64", "string", "bool"])
def test_missing_labels_are_counted(tmp_path: Path, hf: ModuleType, kind: str):
    value = {"int64": 1, "string": "a", "bool": True}[kind]
    features = hf.Features({"img": hf.Image(), "label": hf.Value(kind)})
    columns = {"img": [image() for _ in range(3)], "label": [value, None, value]}
    hf.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "d")
    with pytest.raises(ValueError, match=r"1 of 3 labels of .* are missing"):
        opened(tmp_path / "d", labels=True)


def test_saved_data_set(tmp_path: Path, hf: ModuleType):
    made, images = table(hf)
    made.save_to_disk(tmp_path / "d")
    source = opened(tmp_path / "d", labels=True)
    assert (len(source), source.shape, source.classes) == (4, (8, 8, 3), ("owl", "asp"))
    for index in range(4):
        expected = np.asarray(images[index]) / 127.5 - 1
        np.testing.assert_allclose(source[index]["image"], expected, atol=1e-6)
        assert source[index]["label"] == index % 2
    assert source.name_of(2) == f"row 2 of {tmp_path / 'd'}"
    assert_same(pickle.loads(pickle.dumps(source)), source)
    words = opened(tmp_path / "d", labels=True, label_column="word")
    assert words.classes == ("a", "b", "c")
    assert [int(words[i]["label"]) for i in range(4)] == [1, 0, 1, 2]
    with pytest.raises(ValueError, match="4 whole numbers; got float32"):
        opened(tmp_path / "d", labels=True, label_column="age")
    with pytest.raises(ValueError, match=r"no column 'kind'; its columns: .*word \(string\)"):
        opened(tmp_path / "d", labels=True, label_column="kind")
    with pytest.raises(ValueError, match="no image column 'word'"):
        opened(tmp_path / "d", image_column="word")


def test_splits(tmp_path: Path, hf: ModuleType):
    made, _ = table(hf)
    short, _ = table(hf, 2)
    hf.DatasetDict(train=made, test=short).save_to_disk(tmp_path / "two")
    assert len(opened(tmp_path / "two")) == 4
    assert len(opened(tmp_path / "two", split="test")) == 2
    with pytest.raises(ValueError, match="no split 'valid': give one of train, test"):
        opened(tmp_path / "two", split="valid")
    hf.DatasetDict(all=made).save_to_disk(tmp_path / "one")
    assert len(opened(tmp_path / "one")) == 4
    hf.DatasetDict(a=made, b=made).save_to_disk(tmp_path / "ab")
    with pytest.raises(ValueError, match="no split 'train': give one of a, b"):
        opened(tmp_path / "ab")


def test_columns_that_are_not_clear(tmp_path: Path, hf: ModuleType):
    made, _ = table(hf)
    again = made.select_columns("img").rename_column("img", "img2")
    hf.concatenate_datasets([made, again], axis=1).save_to_disk(tmp_path / "two")
    with pytest.raises(ValueError, match=r"2 image columns; its columns: .*image_column"):
        opened(tmp_path / "two")
    assert len(opened(tmp_path / "two", image_column="img2")) == 4
    made.remove_columns("img").save_to_disk(tmp_path / "none")
    with pytest.raises(ValueError, match="0 image columns"):
        opened(tmp_path / "none")
    made.remove_columns("fine").save_to_disk(tmp_path / "unlabelled")
    with pytest.raises(ValueError, match="no column that is clearly its labels"):
        opened(tmp_path / "unlabelled", labels=True)
    two = made.cast_column("word", hf.ClassLabel(names=["a", "b", "c"]))
    two.save_to_disk(tmp_path / "birds")
    with pytest.raises(ValueError, match="no column that is clearly its labels"):
        opened(tmp_path / "birds", labels=True)
    two.rename_column("word", "label").save_to_disk(tmp_path / "usual")
    assert opened(tmp_path / "usual", labels=True).classes == ("a", "b", "c")
    made.rename_column("fine", "x").rename_column("word", "label").save_to_disk(tmp_path / "typed")
    assert opened(tmp_path / "typed", labels=True).classes == ("owl", "asp")


def test_rows_without_a_readable_image(tmp_path: Path, hf: ModuleType):
    for value, why in ({"bytes": b"x", "path": None}, "not an image"), (None, "holds no image"):
        made = hf.Dataset.from_dict({"image": [value]}, features=hf.Features({"image": hf.Image()}))
        made.save_to_disk(tmp_path / why)
        with pytest.raises(UnreadableImage, match=f"row 0 of .* cannot be read: .*{why}"):
            opened(tmp_path / why)


def test_damaged_saved_data_set(tmp_path: Path, hf: ModuleType):
    made, _ = table(hf)
    made.save_to_disk(tmp_path / "d")
    next((tmp_path / "d").glob("*.arrow")).unlink()
    with pytest.raises(ValueError, match="cannot be read: "):
        opened(tmp_path / "d")


def test_hub_id(hf: ModuleType, monkeypatch: pytest.MonkeyPatch):
    asked = []
    made, _ = table(hf)

    def load_dataset(*names: object, **options: object):
        asked.append((names, options))
        return hf.DatasetDict(train=made, test=made.select([0]))

    monkeypatch.setattr(hf, "load_dataset", load_dataset)
    source = opened("owner/birds", subset="small", revision="v1", split="test", labels=True)
    assert asked == [(("owner/birds", "small"), {"revision": "v1"})]
    assert (len(source), source.name_of(0)) == (1, "row 0 of owner/birds")


def test_hub_without_a_network(hf: ModuleType, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"no local file or folder 'no/such'.* cannot be loaded from the hub: "
    ):
        opened("no/such")


def test_missing_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ImportError, match=r"hub id, needs datasets: pip install 'ddpm-jax\[train\]'"
    ):
        opened("owner/birds")
