"""Starting a run of several processes, each with devices of its own, as one."""

import os

import jax

NAMES = ("coordinator", "processes", "index")
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that stand in for the arguments."""


def start_processes(
    coordinator: str | None = None,
    processes: int | None = None,
    index: int | None = None,
    *,
    detect: bool = False,
    timeout: int = 300,
) -> bool:
    """Connects this process with the others; `jax.devices()` then lists the devices of all.

    Call it before anything else of jax. It does nothing unless an argument, an environment variable
    or `detect` asks for it. jax itself reports an address that does not answer or is taken: it
    raises, or ends the process, after `timeout`.

    Args:
        coordinator: "host:port" of process 0, any free port; or JAX_COORDINATOR_ADDRESS.
        processes: how many there are; or JAX_NUM_PROCESSES.
        index: of this one, 0 to `processes` - 1; or JAX_PROCESS_ID.
        detect: let jax find what is not given, which it can under Slurm, Open MPI, Kubernetes and
            on Cloud TPU.
        timeout: seconds to wait for the others.

    Returns:
        Whether the processes were connected.

    Raises:
        ValueError: some but not all of the three are given, or they are out of range (all faults
            are listed); or `detect` found nothing.
        RuntimeError: from jax, such as when it has been used before.

    >>> from ddpm_jax.training import start_processes
    >>> start_processes()  # nothing asks for it
    False
    """
    found = [os.environ.get(name, "").strip() or None for name in VARIABLES]
    address = found[0] if coordinator is None else coordinator
    count = found[1] if processes is None else processes
    place = found[2] if index is None else index
    missing = [
        name for name, value in zip(NAMES, (address, count, place), strict=True) if value is None
    ]
    if not detect and len(missing) == 3:
        return False
    faults: list[str] = []
    if missing and not detect:
        faults.append(
            f"several processes need coordinator, processes and index ({', '.join(VARIABLES)}); "
            f"missing: {', '.join(missing)}"
        )
    if address is not None and not address.rpartition(":")[2].isdecimal():
        faults.append(f'coordinator must be "host:port", got {address!r}')
    count, place = (
        _number("processes (or JAX_NUM_PROCESSES)", count, 1, faults),
        _number("index (or JAX_PROCESS_ID)", place, 0, faults),
    )
    if count is not None and place is not None and place >= count:
        faults.append(f"index must be below {count}, the number of processes; got {place}")
    if timeout < 1:
        faults.append(f"timeout must be at least 1 second, got {timeout}")
    if faults:
        raise ValueError("; ".join(faults))
    try:
        jax.distributed.initialize(address, count, place, initialization_timeout=timeout)
    except ValueError as error:
        raise ValueError(
            f"jax cannot connect the processes: {error}; give coordinator, processes and index"
        ) from error
    return True


def _number(name: str, value: str | int | None, least: int, faults: list[str]) -> int | None:
    if value is None or (str(value).isdecimal() and int(value) >= least):
        return None if value is None else int(value)
    faults.append(f"{name} must be a whole number of at least {least}, got {value!r}")
    return None
