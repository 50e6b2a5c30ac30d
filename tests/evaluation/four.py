"""Run by test_features in a process with four host devices; prints one JSON object."""

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.cli.asked import Loaded
from ddpm_jax.cli.devices import local_devices
from ddpm_jax.evaluation import features
from tests.pipelines.models import pipeline

NUM = 10
METHODS = {"bound": "nll.timesteps=3", "flow": "nll.tolerance=1e-3"}
RUNS = {  # devices, --batch-size
    "one": (1, 5),
    "four": (4, 6),  # becomes 8
}


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)


def of_features() -> dict[str, object]:
    pixels = images(22)
    alone = dj.collect_features(dj.digits_features(), [pixels])
    devices = local_devices()
    network = dj.digits_features(sharding=devices.whole)
    size, split = devices.batch_size(None, 3, len(pixels)), devices.split
    batches = [pixels[:12], pixels[12:]]
    found = dj.collect_features(network, batches, batch_size=size, split=split)
    outputs = features._start(network, pixels[:5], size, split).features
    assert alone.statistics is not None
    assert found.statistics is not None
    return {
        "devices": jax.device_count(),
        "batch": size,
        "rows": [shard.data.shape[0] for shard in outputs.addressable_shards],
        "count": found.count,
        "difference": float(np.abs(found.features - alone.features).max()),
        "fid": dj.frechet_distance(found.statistics, alone.statistics),
    }


def likelihood(folder: Path, method: str, count: int, batch: int) -> dict[str, Any]:
    """The command's numbers on so many devices, and the rows of each batch on each of them."""
    rows: list[list[int]] = []
    place, some = Loaded._place, jax.local_devices()[:count]

    def seen(self: Loaded, arrays: Any) -> Any:
        placed = place(self, arrays)
        rows.append([shard.data.shape[0] for shard in placed[0].addressable_shards])
        return placed

    always = f"evaluate {folder / 'model'} --metrics nll --no-cache --out {folder / 'r.json'}"
    given = f"--against {folder / 'real.npy'} --batch-size {batch} --metric-options"
    options = f"nll.method={method} nll.num={NUM} {METHODS[method]}"
    with patch.object(jax, "local_devices", lambda: some), patch.object(Loaded, "_place", seen):
        assert main(f"{always} {given} {options}".split()) == 0
    return {**json.loads((folder / "r.json").read_text())["metrics"]["nll"], "rows": rows}


def of_likelihoods(folder: Path) -> dict[str, object]:
    """Of a network of small outputs: where steps are adaptive, rounding would move them."""
    pipe = pipeline(dj.DDPMPipeline)
    last = jax.tree.map(lambda leaf: 0.02 * leaf, pipe.params["conv_out"])
    pipe.params = pipe.params | {"conv_out": last}
    pipe.save_pretrained(folder / "model")
    np.save(folder / "real.npy", images(13))
    return {
        method: {name: likelihood(folder, method, *run) for name, run in RUNS.items()}
        for method in METHODS
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = {"features": of_features(), "likelihoods": of_likelihoods(Path(temporary))}
    print(json.dumps(found))
