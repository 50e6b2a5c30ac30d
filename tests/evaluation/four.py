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
RUNS = {"one": (1, 5), "four": (4, 6)}
"""Devices, and --batch-size, which must become 8 for four devices."""


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


def of_command(folder: Path, count: int, batch: int) -> dict[str, Any]:
    """The bound by the command on so many devices, and the rows of each batch on each of them."""
    rows: list[list[int]] = []
    place, some = Loaded._place, jax.local_devices()[:count]

    def seen(self: Loaded, arrays: Any) -> Any:
        placed = place(self, arrays)
        rows.append([shard.data.shape[0] for shard in placed[0].addressable_shards])
        return placed

    always = f"evaluate {folder / 'model'} --metrics nll --no-cache --out {folder / 'r.json'}"
    given = f"--against {folder / 'real.npy'} --batch-size {batch}"
    options = f"--metric-options nll.num={NUM} nll.timesteps=3"
    with patch.object(jax, "local_devices", lambda: some), patch.object(Loaded, "_place", seen):
        assert main(f"{always} {given} {options}".split()) == 0
    return {**json.loads((folder / "r.json").read_text())["metrics"]["nll"], "rows": rows}


def of_flow(count: int, batch: int) -> dict[str, float]:
    """The flow's numbers on so many devices, of an exact network: it compiles in little time."""
    devices, scheduler = over(jax.local_devices()[:count]), dj.DDPMScheduler()
    params = jax.device_put(params_of(scheduler, 0.3), devices.whole)
    size, pixels = devices.batch_size(batch, 1, NUM), images(NUM)
    batches = [pixels[i : i + size] for i in range(0, NUM, size)]
    place = partial(jax.device_put, device=devices.split)
    model = ModelEvidence(epsilon, params, scheduler, batches, size, None, place)
    return Likelihood(method="flow", tolerance=1e-3).compute(Evidence(model=model))


def run(folder: Path) -> dict[str, object]:
    pipeline(dj.DDPMPipeline).save_pretrained(folder / "model")
    np.save(folder / "real.npy", images(13))
    bound = {name: of_command(folder, *given) for name, given in RUNS.items()}
    solver = importlib.util.find_spec("diffrax") is not None
    flow = {name: of_flow(*given) for name, given in RUNS.items()} if solver else {}
    return {"features": of_features(), "bound": bound, "flow": flow}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = run(Path(temporary))
    print(json.dumps(found))
