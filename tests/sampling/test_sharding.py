"""A batch over eight host devices: the same noise bit for bit, the same images up to rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The network's rounding, in vector loops of another length.
ROUNDING = 1e-5


def test_a_sharded_batch_is_the_same_batch() -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.sampling.sharded"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8
    for name, run in found["runs"].items():
        assert run["prior"], name
        assert run["noise"], name
        assert run["difference"] <= ROUNDING, name
        assert run["devices"] == 8, name  # the images stay where they were made
        assert run["rows"] == [2], name
