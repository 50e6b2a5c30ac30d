"""From names to folders, with a hub on loopback and its cache."""

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.utils
import pytest
from hub.folders import (
    BOTH,
    CONFIG,
    FLAT,
    INDEX,
    NESTED,
    SCHED,
    SHARDED,
    STABLE_DIFFUSION,
    UNET,
    WEIGHTS,
)
from hub.server import HubServer, Repository, commit

import ddpm_jax as dj
from ddpm_jax.cli.convert import Convert
from ddpm_jax.hub import download, hub

REPOSITORIES = {
    "google/nested": NESTED,
    "google/flat": FLAT,
    "google/sharded": SHARDED,
    "google/sd": STABLE_DIFFUSION,
    "google/empty": {"README.md": b""},
    "google/weightless": {k: v for k, v in FLAT.items() if WEIGHTS not in k},
    "google/ddpm-cifar10-32": FLAT,
}


def new_sessions() -> None:
    """Before huggingface_hub 1.0 a session reads the offline switch once, when it begins."""
    getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()


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
    new_sessions()
    with HubServer(repositories) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


INDEX_FILE = "model_index.json"


def paths(repository: str, *files: str) -> list[str]:
    return sorted(f"{repository}/{file}" for file in files)


# With a network.


def test_only_the_needed_files_are_fetched(served: HubServer):
    folder = hub.pipeline("google/nested", BOTH)
    needed = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]
    assert served.downloaded == paths("google/nested", *needed, f"unet/{WEIGHTS}.safetensors")
    assert (folder / "unet" / f"{WEIGHTS}.safetensors").read_bytes() == b"safe"
    assert json.loads((folder / "model_index.json").read_text()) == json.loads(INDEX)


@pytest.mark.parametrize(
    ("repository", "options", "files"),
    [
        (
            "nested",
            {"files": UNET},
            [INDEX_FILE, "unet/config.json", f"unet/{WEIGHTS}.safetensors"],
        ),
        ("nested", {"files": UNET, "weights": False}, [INDEX_FILE, "unet/config.json"]),
        (
            "nested",
            {"files": UNET, "variant": "fp16"},
            [INDEX_FILE, "unet/config.json", f"unet/{WEIGHTS}.fp16.safetensors"],
        ),
        ("nested", {"files": SCHED}, [INDEX_FILE, "scheduler/scheduler_config.json"]),
        ("nested", {"files": UNET, "subfolder": "unet", "weights": False}, ["unet/config.json"]),
        ("flat", {"files": UNET}, ["config.json", f"{WEIGHTS}.bin", INDEX_FILE]),
        ("flat", {"files": SCHED}, [INDEX_FILE, "scheduler_config.json"]),
        (
            "sharded",
            {"files": UNET},
            [
                name
                for name in SHARDED
                if name == INDEX_FILE or (name.startswith("unet/") and not name.endswith(".bin"))
            ],
        ),
    ],
)
def test_files_of_a_component(served: HubServer, repository: str, options: dict, files: list[str]):
    folder = hub.component(f"google/{repository}", **options)
    assert served.downloaded == paths(f"google/{repository}", *files)
    assert (folder / options["files"].config).is_file()


def test_pipeline_without_its_scheduler(served: HubServer):
    hub.pipeline("google/flat", (UNET,))
    files = ["config.json", f"{WEIGHTS}.bin", "model_index.json"]
    assert served.downloaded == paths("google/flat", *files)


def test_second_load_downloads_nothing(served: HubServer):
    first = hub.pipeline("google/nested", BOTH)
    served.requests.clear()
    assert hub.pipeline("google/nested", BOTH) == first
    assert served.downloaded == []
    assert len(served.requests) <= 2  # the listing, and the branch's commit


def test_revision(served: HubServer):
    for revision in ("old", commit(served.repositories["google/nested"].tags["old"])):
        folder = hub.component("google/nested", UNET, revision=revision)
        assert (folder / "config.json").read_bytes() == b'{"old": 1}'
    newest = hub.component("google/nested", UNET, revision="main")
    assert (newest / "config.json").read_bytes() == CONFIG


def test_cache_dir(served: HubServer, tmp_path: Path):
    folder = hub.component("google/flat", SCHED, cache_dir=tmp_path / "elsewhere")
    assert folder.is_relative_to(tmp_path / "elsewhere")
    assert not (tmp_path / "cache").exists()


def test_token(served: HubServer):
    assert hub.component("google/private", UNET, token="secret").is_dir()
    with pytest.raises(download.HubError, match="does not exist or is private"):
        hub.component("google/private", UNET, token="wrong")


def refused(message: str, name: str, **options: Any) -> None:
    """One error of one line, without those of the network's libraries before it."""
    with pytest.raises(download.HubError, match=message) as caught:
        hub.pipeline(name, BOTH, **options)
    assert "\n" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback (most recent call last)") == 1


def test_what_the_hub_refuses(served: HubServer):
    missing = r"no local folder 'google/nothing', and http.*/google/nothing does not exist or is"
    refused(missing, "google/nothing")
    refused("google/gated is gated: accept its terms at", "google/gated")
    refused("google/nested has no revision 'v7'", "google/nested", revision="v7")


def test_what_a_repository_lacks(served: HubServer):
    with pytest.raises(ValueError, match=r"google/empty.*model_index.json; it contains: README"):
        hub.pipeline("google/empty", BOTH)
    with pytest.raises(ValueError, match=r"google/weightless: no weights"):
        hub.component("google/weightless", UNET)
    with pytest.raises(ValueError, match="google/nested: no weights of variant 'ema'"):
        hub.component("google/nested", UNET, variant="ema")
    assert served.downloaded == []


def test_a_component_without_the_variant_is_fetched_as_it_is(served: HubServer):
    parts = [dj.UNet2DConditionModel.files, dj.AutoencoderKL.files, dj.CLIPTextModel.files, SCHED]
    hub.pipeline("google/sd", parts, variant="fp16")
    weights = [f"unet/{WEIGHTS}.fp16.safetensors", f"vae/{WEIGHTS}.bin"]
    weights.append("text_encoder/pytorch_model.fp16.bin")
    configs = [name for name in STABLE_DIFFUSION if name.endswith("x.json") or "config" in name]
    assert served.downloaded == paths("google/sd", *configs, *weights)
    for wanted, variant in ((parts, "ema"), ([dj.AutoencoderKL.files, SCHED], "fp16")):
        with pytest.raises(ValueError, match=f"google/sd: no weights of variant '{variant}'"):
            hub.pipeline("google/sd", wanted, variant=variant)
    with pytest.raises(ValueError, match="google/sd: no weights of variant 'fp16'"):
        hub.component("google/sd", dj.AutoencoderKL.files, variant="fp16")


def test_convert_fetches_every_component_of_the_index(served: HubServer, tmp_path: Path):
    folder = Convert(src="google/sd", dst=tmp_path / "out")._source()
    weights = [
        f"unet/{WEIGHTS}.safetensors",
        f"vae/{WEIGHTS}.bin",
        "text_encoder/model.safetensors",
    ]
    others = [name for name in STABLE_DIFFUSION if not name.endswith((".safetensors", ".bin"))]
    assert served.downloaded == paths("google/sd", *others, *weights)
    assert (folder / "tokenizer" / "merges.txt").is_file()
    served.requests.clear()
    cached = Convert(src="google/sd", dst=tmp_path / "out", component="vae", variant="fp16")
    with pytest.raises(ValueError, match="no weights of variant 'fp16'"):
        cached._source()
    assert served.downloaded == []


# Without a network.


def test_offline_from_the_cache(served: HubServer, monkeypatch: pytest.MonkeyPatch):
    online = {name: hub.pipeline(f"google/{name}", BOTH) for name in ("nested", "flat", "sharded")}
    served.requests.clear()
    for name, folder in online.items():
        assert hub.pipeline(f"google/{name}", BOTH, local_files_only=True) == folder
        assert hub.component(f"google/{name}", UNET, local_files_only=True).is_relative_to(folder)
    assert served.requests == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert hub.pipeline("google/nested", BOTH) == online["nested"]


def test_hub_offline_switch(served: HubServer, monkeypatch: pytest.MonkeyPatch):
    online = hub.pipeline("google/nested", BOTH)
    served.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    new_sessions()
    assert hub.pipeline("google/nested", BOTH) == online
    assert served.requests == []


def test_offline_and_not_cached(served: HubServer, monkeypatch: pytest.MonkeyPatch):
    absent = "and google/nested is not in the cache"
    refused(f"local_files_only is set, {absent}", "google/nested", local_files_only=True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(rf"google/nested could not be fetched \(.*\), {absent}", "google/nested")
    assert served.requests == []


def test_what_the_cache_lacks(served: HubServer):
    hub.component("google/nested", SCHED)
    offline: dict[str, Any] = {"local_files_only": True}
    refused("cached copy of google/nested is incomplete: .*unet", "google/nested", **offline)
    refused("not in the cache at revision old", "google/nested", revision="old", **offline)


def test_note_on_weights_without_ema_is_shown_once(served: HubServer):
    name = "google/ddpm-cifar10-32"
    hub.component(name, SCHED)
    with pytest.warns(UserWarning, match=f"{name} has the weights of the last"):
        hub.pipeline(name, BOTH)
    hub.component(name, UNET)  # here a second warning is an error
    hub.pipeline(name, [UNET])
