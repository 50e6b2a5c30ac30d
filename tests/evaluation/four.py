"""Run by test_features in a process with four host devices; prints one JSON object."""

import importlib.util
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

import ddpm_jax as dj
from ddpm_jax.cli import main
from ddpm_jax.cli.asked import Loaded
from ddpm_jax.cli.devices import local_devices, over
from ddpm_jax.evaluation import features
from ddpm_jax.evaluation.metrics import Evidence, Likelihood, ModelEvidence
from tests.evaluation.normal import epsilon, params_of
from tests.pipelines.models import pipeline

NUM = 10
RUNS = {1: 5, 4: 6}
"""--batch-size by the number of devices; it must become 8 for four."""


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


def numbers(denoise: Any, params: Any, scheduler: Any, count: int, metric: Likelihood) -> Any:
    """A metric's on so many devices, of batches of RUNS."""
    devices, pixels = over(jax.local_devices()[:count]), images(NUM)
    size = devices.batch_size(RUNS[count], 1, NUM)
    batches = [pixels[i : i + size] for i in range(0, NUM, size)]
    placed = jax.device_put(params, devices.whole)
    place = partial(jax.device_put, device=devices.split)
    model = ModelEvidence(denoise, placed, scheduler, batches, size, None, place)
    return metric.compute(Evidence(model=model))


def of_bound(folder: Path) -> dict[str, Any]:
    """By the command on four devices, with the rows of each batch on each, and by hand on one."""
    pipe, rows, place = pipeline(dj.DDPMPipeline), list[list[int]](), Loaded._place
    pipe.save_pretrained(folder / "model")
    np.save(folder / "real.npy", images(NUM))

    def seen(self: Loaded, arrays: Any) -> Any:
        placed = place(self, arrays)
        rows.append([shard.data.shape[0] for shard in placed[0].addressable_shards])
        return placed

    command = f"evaluate {folder / 'model'} --metrics nll --no-cache --out {folder / 'r.json'}"
    options = f"--against {folder / 'real.npy'} --batch-size {RUNS[4]}"
    with patch.object(Loaded, "_place", seen):
        assert main(f"{command} {options} --metric-options nll.timesteps=3".split()) == 0
    four = json.loads((folder / "r.json").read_text())["metrics"]["nll"]
    network = (pipe.unet.denoise, pipe.params, pipe.scheduler)
    return {"one": numbers(*network, 1, Likelihood(timesteps=3)), "four": four, "rows": rows}


def of_flow() -> dict[str, Any]:
    """Of an exact network, which compiles in little time."""
    scheduler, metric = dj.DDPMScheduler(), Likelihood(method="flow", tolerance=1e-3)
    network = (epsilon, params_of(scheduler, 0.3), scheduler)
    return {name: numbers(*network, count, metric) for name, count in (("one", 1), ("four", 4))}


def run(folder: Path) -> dict[str, object]:
    solver = importlib.util.find_spec("diffrax") is not None
    flow = of_flow() if solver else {}
    return {"features": of_features(), "bound": of_bound(folder), "flow": flow}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = run(Path(temporary))
    print(json.dumps(found))
