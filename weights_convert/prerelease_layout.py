"""The layout of a folder of diffusers before its first release: the pipeline that it becomes."""

from pathlib import Path

from weights_convert.errors import faults_of, listed
from weights_convert.files import open_weights
from weights_convert.json_files import read_json
from weights_convert.layout import (
    CONFIG,
    INDEX,
    NETWORK,
    SCHEDULER_CONFIG,
    Layout,
    Network,
    averaged,
    unconditional_index,
)
from weights_convert.layouts import prerelease
from weights_convert.names import without_wrappers
from weights_convert.tensors import Checkpoint


def old_network(src: Path) -> Path | None:
    """The folder of the network of a pre-release of diffusers, if this is a folder of one."""
    for folder in (src / NETWORK, src):
        config = folder / CONFIG
        if config.is_file() and read_json(config).get("_class_name") == prerelease.CLASS:
            return folder
    return None


def prerelease_layout(src: Path, folder: Path, variant: str | None, ema: bool) -> Layout:
    """The layout of such a folder's result.

    Args:
        src: the folder.
        folder: that of its network.
        variant: None; it has none.
        ema: take the moving average, where the file has both.

    Raises:
        ValueError: the weights are not such a network, or differ from its config.
        FileNotFoundError: there are none.
    """
    if variant is not None:
        raise ValueError(f"variant={variant!r}, but {src} is older than variants")
    names = [name for name in prerelease.WEIGHTS if (folder / name).is_file()]
    if not names:
        raise FileNotFoundError(f"no weights in {folder}: looked for {listed(prerelease.WEIGHTS)}")
    weights = folder / names[0]
    configs = [src / place / SCHEDULER_CONFIG for place in prerelease.SCHEDULER_FOLDERS]
    scheduler = next((read_json(path) for path in configs if path.is_file()), None)
    config = read_json(folder / CONFIG)

    def read(checkpoint: Checkpoint) -> prerelease.Network:
        with faults_of(weights):
            return prerelease.network(without_wrappers(checkpoint.stored), config, scheduler or {})

    def opened() -> Checkpoint:
        checkpoint = open_weights(weights, ema=ema)
        return Checkpoint(read(checkpoint).tensors, checkpoint.close)

    with open_weights(weights, ema=ema) as checkpoint:
        found = read(checkpoint)
        found.config.update(averaged(checkpoint.is_average))
    network = Network(weights=weights, open=opened, config=found.config, subfolder=NETWORK)
    made = {
        f"{NETWORK}/{CONFIG}": found.config,
        f"scheduler/{SCHEDULER_CONFIG}": found.scheduler,
        INDEX: unconditional_index(found.scheduler["_class_name"]),
    }
    note = "no scheduler_config.json: the paper's noise schedule is assumed"
    return Layout(networks=(network,), made=made, notes=() if scheduler else (note,))
