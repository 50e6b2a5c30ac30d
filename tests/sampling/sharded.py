"""Run by test_sharding in a process with eight host devices; prints one JSON object.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.sampling.sharded
"""

import json

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ddpm_jax as dj
from tests.sampling.networks import PARAMS, SHAPE, denoise

BATCH = 16


def equal(a: jax.Array, b: jax.Array) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def compare(scheduler: dj.DDPMScheduler, over: NamedSharding) -> dict[str, object]:
    table = scheduler.table(6)
    keys = dj.sample_keys(jax.random.key(11), BATCH)
    spread = jax.device_put(keys, over)
    x_T, there = dj.prior(table, keys, SHAPE), dj.prior(table, spread, SHAPE)
    alone = dj.sample(denoise, PARAMS, table, x_T, keys)
    together = dj.sample(denoise, PARAMS, table, jax.device_put(x_T, over), spread)
    return {
        "prior": equal(x_T, there),
        "noise": all(equal(dj.noise(keys, i, SHAPE), dj.noise(spread, i, SHAPE)) for i in range(6)),
        "difference": float(np.abs(np.asarray(alone) - np.asarray(together)).max()),
        "devices": len(together.sharding.device_set),
        "rows": sorted({shard.data.shape[0] for shard in together.addressable_shards}),
    }


def main() -> None:
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,))
    over = NamedSharding(mesh, PartitionSpec("batch"))
    found = {
        name: compare(scheduler, over)
        for name, scheduler in {
            "DDPM": dj.DDPMScheduler(),
            "PNDM": dj.PNDMScheduler(),
            "Euler ancestral": dj.EulerAncestralDiscreteScheduler(prediction_type="v_prediction"),
        }.items()
    }
    print(json.dumps({"devices": len(devices), "runs": found}))


if __name__ == "__main__":
    main()
