"""Inception-v3 against recorded outputs of pytorch-fid; its weights from a file and from a server.

tests/parity runs it beside pytorch-fid and torch-fidelity, at 299x299.
"""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch_files
from evaluation.inception_weights import random_params
from goldens import metric_goldens as cases

import ddpm_jax as dj
import weights_convert
from ddpm_jax.evaluation.inception import InceptionV3, read_weights, weights, weights_file

CLOSE = 1e-5
"""Relative to the largest: 94 convolutions in float32."""


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return random_params()


def test_features_and_logits_of_pytorch_fid(params: dict[str, Any]) -> None:
    found: Any = jax.jit(InceptionV3().apply)({"params": params}, cases.images())
    with np.load(cases.FILE) as file:
        for name in ("features", "logits"):
            wanted, ours = file[name], getattr(found, name)
            assert ours.shape == wanted.shape
            assert np.abs(ours - wanted).max() < CLOSE * np.abs(wanted).max()
    bias = params["fc"]["bias"]
    np.testing.assert_allclose(found.products + bias[None], found.logits, atol=1e-5)


def test_number_of_parameters() -> None:
    """The published file has 95,628,359 bytes, of which pickles and counters are a few."""
    count = sum(leaf.size for leaf in jax.tree.leaves(InceptionV3().shapes()))
    assert count == 23_885_392
    assert 0 < 95_628_359 - 4 * count < 90_000


def test_weights_from_a_file(params: dict[str, Any], tmp_path: Path) -> None:
    """In the published file's format, which is from before torch 1.6; counters are left out."""
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(3)}
    state = weights_convert.to_torch(params) | counters
    file = torch_files.save_old(tmp_path / "weights.pth", state)
    with pytest.warns(UserWarning, match="is not the published file of Inception-v3"):
        found, checksum = read_weights(file)
    assert checksum == hashlib.sha256(file.read_bytes()).hexdigest()
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.filterwarnings("ignore:.*is not the published file")
def test_weights_of_another_network(tmp_path: Path) -> None:
    file = torch_files.save_old(tmp_path / "w.pth", {"a.bias": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match=r"w\.pth is not of FID's Inception-v3: .*missing"):
        read_weights(file)
    with pytest.raises(FileNotFoundError, match="no such file with weights"):
        dj.inception_features(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="one of pytorch-fid, torch-fidelity, clean-fid, none"):
        dj.inception_features(file, resize="bilinear")


# The download.

CONTENT = bytes(range(256)) * 3000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder with the file; downloads go to an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file.pth").write_bytes(CONTENT)
    monkeypatch.setattr(Quiet, "requests", [], raising=False)
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=[0.01], daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_the_file_is_downloaded_once(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged copy is downloaded again."""
    weights.cached_file().parent.mkdir(parents=True)
    weights.cached_file().write_bytes(CONTENT[:1000])
    for _ in range(2):
        file = weights_file(f"{server}/file.pth", SHA256)
        assert file == weights.cached_file()
        assert file.read_bytes() == CONTENT
    assert Quiet.requests == ["/file.pth"]
    assert "768k/768k" in capsys.readouterr().err  # the progress bar


def test_another_file_is_not_kept(server: str) -> None:
    with pytest.raises(OSError, match=f"its SHA-256 sum is {SHA256}, not 00.*pass the path"):
        weights_file(f"{server}/file.pth", "0" * 64)
    assert list(weights.cached_file().parent.iterdir()) == []


def test_errors_say_what_to_do(server: str) -> None:
    with pytest.raises(OSError, match=r"\(HTTP Error 404.*pass the path of a copy as weights"):
        weights_file(f"{server}/none.pth", SHA256)
    with pytest.raises(OSError, match=r"could not be downloaded \(.*refused.*or put it at .*cache"):
        weights_file("http://127.0.0.1:9/file.pth", SHA256)


def test_the_published_file() -> None:
    """The first eight digits of its checksum are in its name, as torch's hub has it."""
    assert weights.SHA256.startswith(weights.NAME.rpartition("-")[2].removesuffix(".pth"))
    assert weights.URL.endswith(weights.NAME)
