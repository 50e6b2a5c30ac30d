"""Python processes with host devices of their own: jax fixes their number at its start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(*words: object, devices: int = 1, **environment: str) -> subprocess.Popen[str]:
    """Starts Python with these arguments; programs are compiled as those of the tests."""
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    given = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | given | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What a process printed that came to a good end."""
    try:
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


def printed(*words: object, devices: int) -> str:
    """What such a process prints."""
    return finished(launch(*words, devices=devices))


def two(*words: object, devices: int = 1) -> list[str]:
    """What each of two processes of one run printed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    given = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [
        launch(*words, devices=devices, JAX_PROCESS_ID=str(index), **given) for index in range(2)
    ]
    return [finished(process) for process in both]
