"""The weights of FID's Inception-v3: the file that pytorch-fid and torch-fidelity publish.

Both projects have the same file under two names. It is downloaded once into the user's cache
folder, and its SHA-256 sum is checked whenever it is read. It is read without torch.
"""

import hashlib
import os
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding

import weights_convert
from ddpm_jax.evaluation.inception.model import InceptionV3
from ddpm_jax.hub.files import cache_folder, file_sum, first_line, replacing

NAME = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the file under both names, as several projects that pin it state it."""

TIMEOUT = 30
"""Seconds without a byte after which the download fails."""
BLOCK = 2**18


def cached_file() -> Path:
    """Where the download is kept, in the user's cache folder."""
    return cache_folder() / "weights" / NAME


def weights_file(url: str = URL, sha256: str = SHA256) -> Path:
    """The published file in the cache. It is downloaded if it is not there, or damaged.

    Raises:
        OSError: it cannot be downloaded, or what is downloaded has another checksum. The message
            says what to do.
    """
    file = cached_file()
    if file.is_file() and file_sum(file) == sha256:
        return file
    try:
        _download(url, file, sha256)
    except OSError as error:
        raise OSError(
            f"{url} could not be downloaded ({first_line(error)}): pass the path of a copy as "
            f"weights, or put it at {file}"
        ) from None
    return file


def read_weights(
    path: str | os.PathLike[str] | None = None, sharding: Sharding | None = None
) -> tuple[dict[str, Any], str]:
    """The params of `InceptionV3`, and the SHA-256 sum of their file.

    Args:
        path: a file of torch or safetensors with the names of torchvision's Inception-v3. None:
            the published file, see `weights_file`.
        sharding: placement of the params. None: the default device.

    Warns if the file is not the published one: then no published number compares with its.

    Raises:
        ValueError: the file is damaged, or of another network.
        OSError: it does not exist or cannot be downloaded.
    """
    file = weights_file() if path is None else Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file with weights of Inception-v3")
    found = file_sum(file)
    if found != SHA256:
        warnings.warn(
            f"{file} is not the published file of Inception-v3: its numbers compare only with "
            "others from the same file",
            stacklevel=2,
        )
    with weights_convert.open_weights(file) as tensors:
        try:
            params = weights_convert.to_flax(
                tensors,
                InceptionV3().shapes(),
                put=lambda _, array: jax.device_put(array.astype("float32"), sharding),
                rename=_kept,
            )
        except ValueError as error:
            raise ValueError(f"{file} is not of FID's Inception-v3: {error}") from None
    return params, found


def _kept(name: str) -> str | None:
    """A tensor's name; None for the counters that newer versions of torch store."""
    return None if name.endswith(".num_batches_tracked") else name


def _download(url: str, file: Path, sha256: str) -> None:
    """Writes the file when it is complete and has this sum."""
    from tqdm import tqdm

    file.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, replacing(file) as partial:
        total = int(answer.headers.get("Content-Length", 0)) or None
        bar = tqdm(total=total, unit="B", unit_scale=True, desc=file.name)
        with bar, partial.open("wb") as out:
            while block := answer.read(BLOCK):
                out.write(block)
                digest.update(block)
                bar.update(len(block))
        if digest.hexdigest() != sha256:
            raise OSError(
                f"its SHA-256 sum is {digest.hexdigest()}, not {sha256}: the download is damaged "
                "or the file was changed"
            )
