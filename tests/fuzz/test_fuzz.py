"""Readers of foreign files: changed files, files that once broke one, and bombs.

`PYTHONPATH=tests python -m tests.fuzz.run` makes any number of changed files; here are some for
each reader.
"""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch_files as tf

from tests.fuzz import guard
from tests.fuzz.run import fuzz, write
from tests.fuzz.targets import (
    ARRAYS,
    KEYED,
    TARGETS,
    Target,
    legacy,
    read,
    with_header,
    zip_of,
    zipped,
)

pytestmark = [
    pytest.mark.usefixtures("as_users_run"),
    pytest.mark.skipif(sys.platform != "linux", reason="the guard reads memory from Linux's /proc"),
]
FEW, MANY = 40, 400


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    assert fuzz(target, max(2, round(FEW * min(target.share, 1))), start=7).total() > 0


@pytest.mark.slow  # its fast twin is the test above
@pytest.mark.parametrize("name", TARGETS)
def test_many_changed_files(name: str) -> None:
    target = TARGETS[name]
    seen = fuzz(target, max(2, round(MANY * target.share)), start=2026)
    assert seen[False] > 0  # changes do matter


def refused(name: str, files: dict[str, bytes], folder: Path) -> str:
    """The error of a reader for such files, within the guard's limits."""
    target: Target = TARGETS[name]
    write(folder, target.others() | files)
    said: list[str] = []

    def reading(folder: Path) -> None:
        try:
            read(target, folder)
        except ValueError as error:
            said.append(str(error))
            raise

    assert not guard.check(reading, folder)
    return said[0]


SAFE, TORCH = "diffusion_pytorch_model.safetensors", "a.ckpt"


def of_header(header: dict[str, object]) -> dict[str, bytes]:
    return {SAFE: with_header(json.dumps(header).encode())}


def of_pickle(opcodes: bytes) -> dict[str, bytes]:
    return {TORCH: zipped(b"\x80\x02" + opcodes + b".")}


LEVELS = (b"h%c" % i + b"h%c" % i + b"\x86q%c" % (i + 1) + b"0" for i in range(60))
DEEP = b"K\x01q\x000" + b"".join(LEVELS) + b"h\x3c"
"""A tuple of 2^60 paths: each level is a pair of the level below, twice."""


def deep_shape() -> bytes:
    """A tensor whose shape is such a tuple: a message must not spell it out."""
    storage = tf.storage("0", "FloatStorage", 24) + tf.number(0)
    named = tf.named("torch._utils _rebuild_tensor_v2")
    view = storage + DEEP + tf.numbers((1,)) + b"\x89" + b"}"
    return b"}" + tf.text("a") + named + b"(" + view + b"tRs"


def deep_legacy(part: object, opcodes: bytes) -> dict[str, bytes]:
    """A file from before torch 1.6 with other opcodes in place of one of its pickles."""
    return {TORCH: legacy().replace(pickle.dumps(part, 2), b"\x80\x02" + opcodes + b".")}


def repeated(shape: tuple[int, ...]) -> bytes:
    tensor = tf.tensor("0", "FloatStorage", 24, 0, shape, (0,) * len(shape))
    return tf.dictionary({"a": tensor})


def twice_named(count: int) -> dict[str, bytes]:
    entry = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    names = ",".join(f'"{i}":{entry},"{i}":{entry}' for i in range(count))
    return {SAFE: with_header(b"{" + names.encode() + b"}")}


def overstated() -> dict[str, bytes]:
    """A zip whose directory says that a storage has a terabyte."""
    content = tf.dictionary({"a": tf.tensor("0", "FloatStorage", 2**38, 0, (2**38,), (1,))})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("archive/data/0", bytes(8))
        (entry,) = [one for one in archive.infolist() if one.filename.endswith("/0")]
        entry.file_size = entry.compress_size = 2**40
    return {TORCH: file.getvalue()}


def npz_of(shape: str) -> dict[str, bytes]:
    """An .npz file with a member whose header states a shape."""
    array = io.BytesIO()
    np.save(array, np.zeros((2, 2), np.uint8))
    member = array.getvalue().replace(b"(2, 2), }", f"({shape}), }}".encode())
    return {"a.npz": zip_of({"about.npy": member})}


BOMBS: dict[str, tuple[str, Callable[[], dict[str, bytes]], str]] = {
    "a hash of 2^60 paths": ("pickle", lambda: of_pickle(b"}" + DEEP + b"K\x01s"), "damaged"),
    "a message of 2^60 paths": ("pickle", lambda: of_pickle(deep_shape()), "damaged"),
    "a name of 2^60 paths": ("pickle", lambda: of_pickle(DEEP + b"h\x3c\x93"), "damaged"),
    "a version of 2^60 paths": (
        "torch before 1.6",
        lambda: deep_legacy(1001, DEEP),
        "version unknown",
    ),
    "a key of 2^60 paths": (
        "torch before 1.6",
        lambda: deep_legacy(list(KEYED), b"](" + DEEP + b"e"),
        "its list of storages is damaged",
    ),
    "a terabyte from one item": ("pickle", lambda: of_pickle(repeated((10**12,))), "repeats"),
    "a terabyte in the directory": ("torch zip", overstated, "beyond the end of the file"),
    "15,000 names twice": ("safetensors", lambda: twice_named(15_000), "duplicate names"),
    "a terabyte in a header": (
        "safetensors header",
        lambda: of_header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}),
        "bytes, not",
    ),
    "tensors that overlap": (
        "safetensors header",
        lambda: of_header(
            {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in ("a", "b")}
        ),
        "overlaps",
    ),
    "a number of 5,000 digits": (
        "unet config",
        lambda: {"config.json": b'{"layers_per_block": 1' + b"0" * 5000 + b"}"},
        "config.json cannot be read",
    ),
    "lists 100,000 deep": (
        "table",
        lambda: {"table.json": b"[" * 100_000},
        "nested too deeply",
    ),
    "a terabyte in an .npz file": ("npz", lambda: npz_of("1000000, 1000000"), "Unable to allocate"),
    "a negative size in an .npz file": ("npz", lambda: npz_of("-2, -2"), "cannot be read"),
    "a shard outside of the folder": (
        "index of shards",
        lambda: {
            f"{SAFE}.index.json": json.dumps(
                {"weight_map": dict.fromkeys(ARRAYS, "../../etc/passwd")}
            ).encode()
        },
        "outside its folder",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused(bomb: str, tmp_path: Path) -> None:
    name, files, words = BOMBS[bomb]
    assert words in refused(name, files(), tmp_path)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda folder: subprocess.run(["true"]), "subprocess.Popen"),
        (lambda folder: Path("/etc/hostname").read_text(), "opened"),
        (lambda folder: np.ones(40 << 20, np.uint8), "bytes of memory"),
        (lambda folder: {}["a"], "KeyError"),
        (lambda folder: __import__("pickle").loads(b"cos\ngetcwd\n)R."), "find_class"),
    ],
)
def test_the_guard_sees(bad: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(guard.Fault, match=said):
        guard.check(bad, tmp_path)


def test_the_guard_sees_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.05)

    def hang(folder: Path) -> None:
        while True:
            pass

    with pytest.raises(guard.Fault, match="more than"):
        guard.check(hang, tmp_path)


def test_the_guard_lets_readers_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert guard.check(lambda folder: (folder / "a").read_bytes(), tmp_path)
    assert not guard.check(lambda folder: (folder / "b").read_bytes(), tmp_path)
