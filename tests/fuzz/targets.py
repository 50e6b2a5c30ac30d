"""What is fuzzed: for each reader of foreign files good examples, changes of them, and the call.

A new target is a line in `TARGETS`.
"""

import contextlib
import io
import json
import pickletools
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch_files
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save
from weights import ldm_files

import ddpm_jax as dj
import weights_convert
from ddpm_jax.cli import provenance, shard_files
from ddpm_jax.export import file as export_file
from ddpm_jax.hub import class_names
from ddpm_jax.schedulers import SCHEDULERS
from ddpm_jax.training.data import decoding
from tests.fuzz.mutations import changed_bytes, changed_json
from weights_convert.files import open_file

UNET = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [4, 8],
    "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
WEIGHTS = "diffusion_pytorch_model.safetensors"
ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv.bias": np.ones(2, np.float32),
    "half": np.zeros((0, 3), np.float16),
}
KEYED = {str(key): array for key, array in enumerate(ARRAYS.values())}
TENSOR = torch_files.tensor("0", "FloatStorage", 24, 0, (2, 3, 2, 2), (12, 4, 2, 1))


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        files: a strategy for the content of the files, by name.
        read: reads the folder that has them.
        share: how many of the examples it gets, beside the others.
    """

    files: Callable[[], st.SearchStrategy[dict[str, bytes]]]
    read: Callable[[Path], object]
    share: float = 1.0
    others: Callable[[], dict[str, bytes]] = field(default=dict)
    """Files beside those, which are as they should be."""


def one(name: str, strategy: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[str, bytes]]:
    return strategy.map(lambda data: {name: data})


# Weight files


@cache
def safetensors() -> bytes:
    return save(ARRAYS, {"format": "pt"})


@cache
def header() -> dict[str, Any]:
    size = int.from_bytes(safetensors()[:8], "little")
    return json.loads(safetensors()[8 : 8 + size])


def with_header(text: bytes) -> bytes:
    """A safetensors file with another header before the same data."""
    size = int.from_bytes(safetensors()[:8], "little")
    return len(text).to_bytes(8, "little") + text + safetensors()[8 + size :]


def zip_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def zipped(pickled: bytes) -> bytes:
    """A file of torch.save."""
    data = {f"data/{key}": array.tobytes() for key, array in KEYED.items()}
    files = {"data.pkl": pickled, "byteorder": b"little", **data}
    return zip_of({f"archive/{name}": content for name, content in files.items()})


def pickled() -> bytes:
    items, _ = torch_files.entries(ARRAYS)
    return torch_files.state_dict(items)


def legacy() -> bytes:
    """A file of torch from before 1.6."""
    return torch_files.old(pickled(), KEYED)


def training() -> bytes:
    """A checkpoint of a training program, with objects that are no tensors."""
    inner = torch_files.dictionary({"conv.weight": TENSOR})
    other = torch_files.named("omegaconf.listconfig ListConfig") + b")\x81}b"
    step, floats = torch_files.number(470000), b"G" + bytes(8)
    items = {"state_dict": inner, "config": other, "global_step": step, "lr": floats}
    return torch_files.state_dict(items)


OPCODES = tuple(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)


def read_weights(folder: Path) -> None:
    path = weights_convert.find_weights(folder)
    with weights_convert.open_weights(path) as tensors:
        for name in tensors:
            tensors[name]


def read_pickles(folder: Path) -> None:
    for of_training in (False, True):
        with open_file(folder / "a.ckpt", training=of_training) as tensors:
            for name in tensors:
                tensors[name]


@cache
def single() -> dict[str, Any]:
    """The header of a Stable Diffusion in one file."""
    content = save(ldm_files.one_file(ldm_files.small()))
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])


def read_single(folder: Path) -> None:
    with weights_convert.open_single_file(folder / "a.safetensors") as file:
        for tensors in file.components.values():
            assert tensors.shapes


# Configs and folders


@cache
def network() -> dict[str, bytes]:
    """The files of a small pipeline."""
    state = ldm_files.random_state(dj.UNet2DModel(**UNET).shapes())
    scheduler = {"_class_name": "DDPMScheduler", **dj.DDPMScheduler().config}
    return {
        "model_index.json": json.dumps(INDEX).encode(),
        "unet/config.json": json.dumps({"_class_name": "UNet2DModel", **UNET}).encode(),
        f"unet/{WEIGHTS}": save(state),
        "scheduler/scheduler_config.json": json.dumps(scheduler).encode(),
    }


INDEX = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.42.1",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
}
FIELDS = tuple(dj.UNet2DModel(**UNET).config)


def schedulers() -> st.SearchStrategy[dict[str, bytes]]:
    def changed(cls: type[dj.Scheduler]) -> st.SearchStrategy[bytes]:
        config = {"_class_name": cls.__name__, **cls().config}
        return changed_json(config, tuple(config))

    return one("scheduler_config.json", st.sampled_from(SCHEDULERS).flatmap(changed))


def read_scheduler(folder: Path) -> None:
    config = json.loads((folder / "scheduler_config.json").read_text())
    name = config.get("_class_name") if isinstance(config, dict) else None
    kinds = {cls.__name__: cls for cls in SCHEDULERS}
    cls = kinds.get(name, dj.DDIMScheduler) if isinstance(name, str) else dj.DDIMScheduler
    cls.from_pretrained(folder).table(5)


# Pictures, arrays, tables


@cache
def picture() -> bytes:
    info, file = PngInfo(), io.BytesIO()
    info.add_text("Software", provenance.SOFTWARE)
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(file, "png", pnginfo=info, exif=Image.Exif())
    return file.getvalue()


def mended(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, so that changes get past them."""
    at, parts = 8, [data[:8]]
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        body = data[at + 4 : max(end - 4, at + 8)]
        parts += [data[at : at + 4], body, zlib.crc32(body).to_bytes(4)]
        at = end
    return b"".join(parts)


def read_picture(folder: Path) -> None:
    path = folder / "00000.png"
    provenance.is_complete(path)
    provenance.is_truncated(path)
    decoding.read_header(path)
    decoding.decode(path, 3)
    provenance.read_png(path)


@cache
def arrays() -> bytes:
    file = io.BytesIO()
    settings = json.dumps({"Software": provenance.SOFTWARE, "seed": "0"})
    about = json.dumps({"format": export_file.FORMAT})
    pixels = np.zeros((2, 4, 4, 1), np.uint8)
    np.savez(file, arr_0=pixels, settings=np.array(settings), about=np.array(about))
    return file.getvalue()


def members() -> st.SearchStrategy[bytes]:
    """An .npz file of members that are changed, with the checksums of what they hold."""
    with zipfile.ZipFile(io.BytesIO(arrays())) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    marks = (b"|O", b"<f8", b"(1000000000000,)", b"(2,-1)", b"<U99999999", b"True", b"[('a','O')]")
    return st.fixed_dictionaries(
        {name: st.just(data) | changed_bytes(data, marks) for name, data in content.items()}
    ).map(zip_of)


def read_arrays(folder: Path) -> None:
    path = folder / "a.npz"
    shard = shard_files.Shard(0, 1)
    shard_files.is_damaged(path)
    shard_files.holds(path, shard, None)
    with contextlib.suppress(ValueError):
        shard_files.read_settings(path)
    export_file.read(path)


@cache
def table() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "table.json"
        dj.save_table(path, dj.DDPMScheduler().table(3))
        return json.loads(path.read_text())


@cache
def tokenizer() -> dict[str, Any]:
    letters = [*"abc", *(f"{letter}</w>" for letter in "abc"), "ab</w>"]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    return {"vocab": {token: i for i, token in enumerate([*letters, *ends])}}


def tokenizers() -> st.SearchStrategy[dict[str, bytes]]:
    merges = b"#version: 0.2\na b</w>\n"
    config = {"model_max_length": 8, "pad_token": "<|endoftext|>", "_class_name": "CLIPTokenizer"}
    return st.fixed_dictionaries(
        {
            "vocab.json": changed_json(tokenizer()["vocab"]),
            "merges.txt": st.just(merges) | changed_bytes(merges),
            "tokenizer_config.json": st.just(json.dumps(config).encode()) | changed_json(config),
        }
    )


def read_tokenizer(folder: Path) -> None:
    dj.CLIPTokenizer.from_pretrained(folder)(["ab c", "a" * 50])


ZIP_MARKS = (b"PK\3\4", b"PK\1\2", b"PK\5\6")
CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL")
SHARDS = {"weight_map": dict.fromkeys(ARRAYS, WEIGHTS), "metadata": {"total_size": 1}}

TARGETS: dict[str, Target] = {
    "safetensors": Target(lambda: one(WEIGHTS, changed_bytes(safetensors())), read_weights),
    "safetensors header": Target(
        lambda: one(WEIGHTS, changed_json(header(), ("a", "shape", "dtype")).map(with_header)),
        read_weights,
    ),
    "torch zip": Target(
        lambda: one("a.ckpt", changed_bytes(zipped(pickled()), ZIP_MARKS)),
        read_pickles,
    ),
    "pickle": Target(
        lambda: one(
            "a.ckpt",
            (changed_bytes(pickled(), OPCODES) | changed_bytes(training(), OPCODES)).map(zipped),
        ),
        read_pickles,
        share=2.0,
    ),
    "torch before 1.6": Target(
        lambda: one("a.ckpt", changed_bytes(legacy(), OPCODES)), read_pickles
    ),
    "ermongroup list": Target(
        lambda: one(
            "a.ckpt",
            changed_bytes(b"\x80\x02](" + 2 * pickled()[2:-1] + b"K\x05e.", OPCODES).map(zipped),
        ),
        read_pickles,
    ),
    "index of shards": Target(
        lambda: one(f"{WEIGHTS}.index.json", changed_json(SHARDS)),
        read_weights,
        others=lambda: {WEIGHTS: safetensors()},
    ),
    "single file": Target(
        lambda: one("a.safetensors", changed_json(single()).map(single_file_of)),
        read_single,
        share=0.05,
    ),
    "unet config": Target(
        lambda: one("config.json", changed_json(UNET, FIELDS)),
        lambda folder: dj.UNet2DModel.read_model(folder),
    ),
    "unet folder": Target(
        lambda: one("unet/config.json", changed_json(UNET, FIELDS)),
        lambda folder: dj.UNet2DModel.from_pretrained(folder),
        share=0.02,
        others=network,
    ),
    "scheduler config": Target(schedulers, read_scheduler),
    "model_index.json": Target(
        lambda: one("model_index.json", changed_json(INDEX, ("vae", "../unet", "unet"))),
        lambda folder: dj.DiffusionPipeline.from_pretrained(folder),
        share=0.1,
        others=network,
    ),
    "class names": Target(
        lambda: one("id2label.json", changed_json({"0": "cat", "1": "dog"})),
        class_names.read,
        share=0.3,
    ),
    "png": Target(lambda: one("00000.png", changed_bytes(picture())), read_picture),
    "png with checksums": Target(
        lambda: one("00000.png", changed_bytes(picture(), CHUNKS).map(mended)),
        read_picture,
    ),
    "npz": Target(lambda: one("a.npz", changed_bytes(arrays())), read_arrays),
    "npz with checksums": Target(lambda: one("a.npz", members()), read_arrays),
    "table": Target(
        lambda: one("table.json", changed_json(table())),
        lambda folder: dj.load_table(folder / "table.json"),
    ),
    "tokenizer": Target(tokenizers, read_tokenizer, share=0.3),
}  # fmt: skip


def single_file_of(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def read(target: Target, folder: Path) -> None:
    """Reads the folder, as users do who ignore warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.read(folder)
