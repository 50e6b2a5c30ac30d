"""Names to folders: local ones, the bundled model, and a hub on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Repository, commit

from ddpm_jax import download, hub

CONFIG = b'{"_class_name": "UNet2DModel"}'
SCHEDULER = b'{"_class_name": "DDPMScheduler"}'
INDEX = b'{"_class_name": "DDPMPipeline"}'
WEIGHTS = "diffusion_pytorch_model"

NESTED = {
    "README.md": b"read me",
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": SCHEDULER,
    "unet/config.json": CONFIG,
    f"unet/{WEIGHTS}.bin": b"torch",
    f"unet/{WEIGHTS}.fp16.safetensors": b"half",
    f"unet/{WEIGHTS}.safetensors": b"safe",
    "images/sample.png": b"png",
}
FLAT = {
    "config.json": CONFIG,
    f"{WEIGHTS}.bin": b"torch",
    "model_index.json": INDEX,
    "sample.png": b"png",
    "scheduler_config.json": SCHEDULER,
}
SHARDED = {
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": SCHEDULER,
    "unet/config.json": CONFIG,
    f"unet/{WEIGHTS}-00001-of-00002.safetensors": b"one",
    f"unet/{WEIGHTS}-00002-of-00002.safetensors": b"two",
    f"unet/{WEIGHTS}.safetensors.index.json": b"{}",
    f"unet/{WEIGHTS}.bin": b"torch",
}
REPOSITORIES = {
    "google/nested": NESTED,
    "google/flat": FLAT,
    "google/sharded": SHARDED,
    "google/empty": {"README.md": b""},
    "google/weightless": {k: v for k, v in FLAT.items() if WEIGHTS not in k},
    "google/ddpm-cifar10-32": FLAT,
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub on loopback, and an empty cache."""
    from huggingface_hub import constants

    repositories = {name: Repository(files) for name, files in REPOSITORIES.items()}
    repositories["google/nested"].tags["old"] = {**NESTED, "unet/config.json": b'{"old": 1}'}
    repositories["google/gated"] = Repository(NESTED, gated=True)
    repositories["google/private"] = Repository(NESTED, token="secret")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer(repositories) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def paths(repository: str, *files: str) -> list[str]:
    return sorted(f"{repository}/{file}" for file in files)


# Local folders.


@pytest.mark.parametrize(
    ("files", "name", "kind", "found"),
    [
        (NESTED, ".", "unet", "unet"),
        (NESTED, ".", "scheduler", "scheduler"),
        (NESTED, "unet", "unet", "unet"),
        (NESTED, "scheduler", "scheduler", "scheduler"),
        (FLAT, ".", "unet", "."),
        (FLAT, ".", "scheduler", "."),
        ({"unet/config.json": CONFIG}, ".", "unet", "unet"),
        ({"scheduler/scheduler_config.json": SCHEDULER}, ".", "scheduler", "scheduler"),
    ],
)
def test_layouts(tmp_path: Path, files: dict[str, bytes], name: str, kind: hub.Kind, found: str):
    write(tmp_path, files)
    assert hub.component(tmp_path / name, kind) == tmp_path / found
    assert hub.component(str(tmp_path / name), kind) == tmp_path / found


def test_subfolder_is_the_only_place(tmp_path: Path):
    write(tmp_path, {"config.json": CONFIG, "unet/config.json": CONFIG, "ema/config.json": CONFIG})
    assert hub.component(tmp_path, "unet", subfolder="ema") == tmp_path / "ema"
    with pytest.raises(
        ValueError, match=r"no other/config.json; it holds: config.json, ema/, unet/"
    ):
        hub.component(tmp_path, "unet", subfolder="other")


def test_pipeline_folder(tmp_path: Path):
    assert hub.pipeline(write(tmp_path, NESTED)) == tmp_path
    with pytest.raises(ValueError, match=r"no model_index.json; it holds: config.json"):
        hub.pipeline(tmp_path / "unet")


def test_folder_without_config_says_what_is_there(tmp_path: Path):
    write(tmp_path, {"weights.bin": b"", "notes/a.txt": b""})
    expected = (
        rf"{tmp_path} has no scheduler/scheduler_config.json or scheduler_config.json; "
        "it holds: notes/, weights.bin"
    )
    with pytest.raises(ValueError, match=expected):
        hub.component(tmp_path, "scheduler")


def test_revision_of_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="revision='main' is for hub repositories"):
        hub.component(write(tmp_path, NESTED), "unet", revision="main")


@pytest.mark.parametrize(
    "name", ["digit", "a/b/c", "./missing", "/missing", "", "a b/c", Path("a/b")]
)
def test_unknown_names_list_what_is_accepted(name: str | Path):
    with pytest.raises(ValueError, match=r"local folder, a hub id .* or a bundled name \(digits\)"):
        hub.component(name, "unet")


def test_file_in_place_of_a_folder(tmp_path: Path):
    write(tmp_path, {"model.safetensors": b""})
    with pytest.raises(ValueError, match="is a file, not a folder"):
        hub.component(tmp_path / "model.safetensors", "unet")


def test_bundled_name_and_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "digits", NESTED)
    monkeypatch.chdir(tmp_path)
    assert hub.bundled_names() == ["digits"]
    assert hub.pipeline("digits") == hub.BUNDLED / "digits"
    assert hub.pipeline("./digits") == hub.pipeline(Path("digits")) == Path("digits")


def test_local_folders_need_no_hub_package(tmp_path: Path):
    """Neither the network nor huggingface_hub: its import is made to fail."""
    program = f"""
import sys
sys.modules["huggingface_hub"] = None
import socket
socket.socket.connect = None
from ddpm_jax import hub
hub.component({str(write(tmp_path, NESTED))!r}, "unet")
hub.pipeline("digits", local_files_only=True)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# The hub.


def test_only_the_needed_files_are_fetched(served: HubServer):
    folder = hub.pipeline("google/nested")
    needed = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]
    assert served.downloaded == paths("google/nested", *needed, f"unet/{WEIGHTS}.safetensors")
    assert (folder / "unet" / f"{WEIGHTS}.safetensors").read_bytes() == b"safe"
    assert json.loads((folder / "model_index.json").read_text()) == json.loads(INDEX)


@pytest.mark.parametrize(
    ("repository", "options", "files"),
    [
        ("nested", {"kind": "unet"}, ["unet/config.json", f"unet/{WEIGHTS}.safetensors"]),
        ("nested", {"kind": "unet", "weights": False}, ["unet/config.json"]),
        (
            "nested",
            {"kind": "unet", "variant": "fp16"},
            ["unet/config.json", f"unet/{WEIGHTS}.fp16.safetensors"],
        ),
        ("nested", {"kind": "scheduler"}, ["scheduler/scheduler_config.json"]),
        ("nested", {"kind": "unet", "subfolder": "unet", "weights": False}, ["unet/config.json"]),
        ("flat", {"kind": "unet"}, ["config.json", f"{WEIGHTS}.bin"]),
        ("flat", {"kind": "scheduler"}, ["scheduler_config.json"]),
        (
            "sharded",
            {"kind": "unet"},
            [name for name in SHARDED if name.startswith("unet/") and not name.endswith(".bin")],
        ),
    ],
)
def test_files_of_a_component(served: HubServer, repository: str, options: dict, files: list[str]):
    folder = hub.component(f"google/{repository}", **options)
    assert served.downloaded == paths(f"google/{repository}", *files)
    assert (folder / hub.CONFIG[options["kind"]]).is_file()


def test_pipeline_without_its_scheduler(served: HubServer):
    hub.pipeline("google/flat", components=("unet",))
    files = ["config.json", f"{WEIGHTS}.bin", "model_index.json"]
    assert served.downloaded == paths("google/flat", *files)


def test_second_load_downloads_nothing(served: HubServer):
    first = hub.pipeline("google/nested")
    served.requests.clear()
    assert hub.pipeline("google/nested") == first
    assert served.downloaded == []
    assert len(served.requests) <= 2  # the listing, and the branch's commit


def test_revision(served: HubServer):
    for revision in ("old", commit(served.repositories["google/nested"].tags["old"])):
        folder = hub.component("google/nested", "unet", revision=revision)
        assert (folder / "config.json").read_bytes() == b'{"old": 1}'
    newest = hub.component("google/nested", "unet", revision="main")
    assert (newest / "config.json").read_bytes() == CONFIG


def test_cache_dir(served: HubServer, tmp_path: Path):
    folder = hub.component("google/flat", "scheduler", cache_dir=tmp_path / "elsewhere")
    assert folder.is_relative_to(tmp_path / "elsewhere")
    assert not (tmp_path / "cache").exists()


def test_token(served: HubServer):
    assert hub.component("google/private", "unet", token="secret").is_dir()
    with pytest.raises(download.NoSuchRepository, match="does not exist or is private"):
        hub.component("google/private", "unet", token="wrong")


def test_no_such_repository(served: HubServer):
    expected = (
        r"there is no local folder 'google/nothing', and http.*/google/nothing does not "
        r"exist or is private"
    )
    with pytest.raises(download.NoSuchRepository, match=expected) as caught:
        hub.pipeline("google/nothing")
    assert "\n" not in str(caught.value)


def test_gated(served: HubServer):
    with pytest.raises(
        download.GatedRepository, match="google/gated is gated: accept its terms at"
    ):
        hub.pipeline("google/gated")


def test_no_such_revision(served: HubServer):
    with pytest.raises(download.NoSuchRevision, match="google/nested has no revision 'v7'"):
        hub.pipeline("google/nested", revision="v7")


def test_repository_without_a_model(served: HubServer):
    with pytest.raises(ValueError, match=r"google/empty.*no model_index.json; it holds: README.md"):
        hub.pipeline("google/empty")
    with pytest.raises(ValueError, match=r"google/weightless: no weights"):
        hub.component("google/weightless", "unet")
    assert served.downloaded == []


def test_missing_variant(served: HubServer):
    with pytest.raises(ValueError, match="google/nested: no weights of variant 'ema'"):
        hub.component("google/nested", "unet", variant="ema")


def test_names_of_variants():
    names = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model-00001-of-00002.bin",
    ]
    assert hub.other_variants(names) == ""
    names += ["diffusion_pytorch_model.fp16-00001-of-00002.bin"]
    names += ["diffusion_pytorch_model.bin.index.fp16.json"]
    assert hub.other_variants(names) == "; found variant fp16: pass variant='fp16'"
    names += ["diffusion_pytorch_model.non_ema.bin"]
    assert hub.other_variants(names) == "; found variants fp16, non_ema: pass variant='fp16'"


# Without a network.


def test_offline_from_the_cache(served: HubServer, monkeypatch: pytest.MonkeyPatch):
    online = {name: hub.pipeline(f"google/{name}") for name in ("nested", "flat", "sharded")}
    served.requests.clear()
    for name, folder in online.items():
        assert hub.pipeline(f"google/{name}", local_files_only=True) == folder
        assert hub.component(f"google/{name}", "unet", local_files_only=True).is_relative_to(folder)
    assert served.requests == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert hub.pipeline("google/nested") == online["nested"]


def test_hub_offline_switch(served: HubServer, monkeypatch: pytest.MonkeyPatch):
    online = hub.pipeline("google/nested")
    served.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.pipeline("google/nested") == online
    assert served.requests == []


def test_offline_and_not_cached(served: HubServer, monkeypatch: pytest.MonkeyPatch):
    expected = "local_files_only is set, and google/nested is not in the cache"
    with pytest.raises(download.NotCached, match=expected):
        hub.pipeline("google/nested", local_files_only=True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    expected = r"google/nested could not be fetched \(.*\), and google/nested is not in the cache"
    with pytest.raises(download.NotCached, match=expected) as caught:
        hub.pipeline("google/nested")
    assert "\n" not in str(caught.value)
    assert served.requests == []


def test_cache_that_holds_too_little(served: HubServer):
    hub.component("google/nested", "scheduler")
    with pytest.raises(
        download.NotCached, match=r"cached copy of google/nested is not enough: .*unet"
    ):
        hub.component("google/nested", "unet", local_files_only=True)


def test_revision_that_is_not_cached(served: HubServer):
    hub.pipeline("google/nested")
    with pytest.raises(download.NotCached, match="not in the cache at revision old"):
        hub.pipeline("google/nested", revision="old", local_files_only=True)


def test_note_on_weights_without_ema_is_shown_once(served: HubServer):
    program = """
import warnings
from ddpm_jax import hub
hub.component("google/ddpm-cifar10-32", "scheduler")
print("before the weights", file=__import__("sys").stderr)
for load in (hub.pipeline, lambda name: hub.component(name, "unet"), hub.pipeline):
    load("google/ddpm-cifar10-32")
    with warnings.catch_warnings():  # which makes Python forget what it has shown
        warnings.simplefilter("default")
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": served.endpoint},
    )
    assert result.returncode == 0, result.stderr
    before, _, after = result.stderr.partition("before the weights")
    assert (before + after).count("UserWarning: google/ddpm-cifar10-32 holds") == 1
    assert "UserWarning" not in before
