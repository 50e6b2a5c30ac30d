"""Starting a run of several processes, each with devices of its own, as one."""

import os
import socket
import time
from dataclasses import asdict, astuple, dataclass

import jax

COORDINATOR, PROCESSES, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Environment variables that stand in for arguments."""
BIND = "JAX_COORDINATOR_BIND_ADDRESS"
"""jax's own: where process 0 listens, if not on the coordinator's port."""


@dataclass(frozen=True)
class Place:
    """This process among the others; None: not given.

    Attributes:
        coordinator: "host:port" of process 0.
        processes: how many there are.
        index: of this one.
    """

    coordinator: str | None
    processes: int | None
    index: int | None


def start_processes(
    coordinator: str | None = None,
    processes: int | None = None,
    index: int | None = None,
    *,
    detect: bool = False,
    timeout: int = 300,
) -> bool:
    """Connects this process with the others; `jax.devices()` then lists the devices of all.

    Call it before anything else of jax. Where nothing is asked for, nothing happens.

    jax ends a process, without an exception, when others do not come in time or die later.

    Args:
        coordinator: "host:port" of process 0, any free port; or JAX_COORDINATOR_ADDRESS.
        processes: how many there are; or JAX_NUM_PROCESSES.
        index: of this one, 0 to `processes` - 1; or JAX_PROCESS_ID.
        detect: let jax find out what is not given, which it can under Slurm, Open MPI, Kubernetes
            and on Cloud TPU.
        timeout: seconds to wait for the others.

    Returns:
        Whether the processes were connected.

    Raises:
        ValueError: some but not all of the three are given, or they are no such numbers (all
            faults are listed); or `detect` found nothing.
        OSError: process 0 does not answer in time, or, in process 0, the port is taken.
        RuntimeError: jax has been used before.

    >>> from ddpm_jax.training import start_processes
    >>> start_processes()  # nothing is asked for
    False
    """
    place, faults = _given(coordinator, processes, index)
    if not (detect or faults or place != Place(None, None, None)):
        return False
    faults += _faults(place, detect)
    if timeout < 1:
        faults.append(f"timeout must be at least 1 second, got {timeout}")
    if faults:
        raise ValueError("; ".join(faults))
    _check_way(place, timeout)
    try:
        jax.distributed.initialize(*astuple(place), initialization_timeout=timeout)
    except ValueError as error:
        raise ValueError(
            "detect found no cluster that jax knows (Slurm, Open MPI, Kubernetes, Cloud TPU): "
            f"give coordinator, processes and index; {error}"
        ) from error
    return True


def _given(
    coordinator: str | None, processes: int | None, index: int | None
) -> tuple[Place, list[str]]:
    """Arguments, else the environment's; and what of the latter is no number."""
    numbers: list[int | None] = []
    faults: list[str] = []
    for value, variable in ((processes, PROCESSES), (index, INDEX)):
        text = os.environ.get(variable, "").strip()
        if value is None and text and not text.isdecimal():
            faults.append(f"{variable} must be a whole number, got {text!r}")
        numbers.append(int(text) if value is None and text.isdecimal() else value)
    return Place(coordinator or os.environ.get(COORDINATOR) or None, *numbers), faults


def _faults(place: Place, detect: bool) -> list[str]:
    coordinator, processes, index = astuple(place)
    faults: list[str] = []
    missing = [name for name, value in asdict(place).items() if value is None]
    if missing and not detect:
        faults.append(
            "several processes need coordinator, processes and index "
            f"({COORDINATOR}, {PROCESSES}, {INDEX}); missing: {', '.join(missing)}"
        )
    if coordinator is not None and _address(coordinator) is None:
        faults.append(f'coordinator must be "host:port", got {coordinator!r}')
    if processes is not None and processes < 1:
        faults.append(f"processes must be at least 1, got {processes}")
    if index is not None and (index < 0 or (processes is not None and index >= processes)):
        below = "" if processes is None else f" and below {processes}, the number of processes"
        faults.append(f"index must be at least 0{below}; got {index}")
    return faults


def _address(coordinator: str) -> tuple[str, int] | None:
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        return None
    return host.strip("[]"), int(port)


def _check_way(place: Place, timeout: int) -> None:
    """What else would end the process inside jax, without saying why."""
    address = None if place.coordinator is None else _address(place.coordinator)
    if address is None or place.index is None:
        return
    if place.index > 0:
        _wait_for(address, timeout)
    elif BIND not in os.environ:
        _check_free(address[1])


def _wait_for(address: tuple[str, int], timeout: int) -> None:
    """Until process 0 listens."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(address, timeout=timeout).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"process 0 does not answer at {address[0]}:{address[1]} within {timeout} "
                    f"seconds: is it started, and can this machine reach that port? ({error})"
                ) from error
        time.sleep(0.1)


def _check_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise OSError(
                f"process 0 cannot listen on port {port}; take another for coordinator ({error})"
            ) from error
