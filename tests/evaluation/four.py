"""Run by test_features in a process with four host devices; prints one JSON object."""

import json

import jax
import numpy as np

import ddpm_jax as dj
from ddpm_jax.cli.devices import local_devices
from ddpm_jax.evaluation import features


def run() -> dict[str, object]:
    images = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 1)).astype(np.uint8)
    alone = dj.collect_features(dj.digits_features(), [images])
    devices = local_devices()
    network = dj.digits_features(sharding=devices.whole)
    size, split = devices.batch_size(None, 3, len(images)), devices.split
    batches = [images[:12], images[12:]]
    found = dj.collect_features(network, batches, batch_size=size, split=split)
    outputs = features._start(network, images[:5], size, split).features
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


if __name__ == "__main__":
    print(json.dumps(run()))
