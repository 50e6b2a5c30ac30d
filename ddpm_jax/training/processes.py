"""Starting a run of several processes, each with devices of its own, as one.

Or, for work that divides without a word between them, finding the place of this one.
"""

import os

import jax

NAMES = ("coordinator", "processes", "index")
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that stand in for the arguments."""

LAUNCHERS = {
    "Slurm's srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "PMI": ("PMI_SIZE", "PMI_RANK"),
}
"""Programs that start processes, and the variables with their number and the index of each. Of
Slurm's numbers this one is absent where a batch script runs alone, without srun."""


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
    if faults:
        raise ValueError("; ".join(faults))
    try:
        jax.distributed.initialize(address, count, place, initialization_timeout=timeout)
    except ValueError as error:
        raise ValueError(
            f"jax cannot connect the processes: {error}; give coordinator, processes and index"
        ) from error
    return True


def find_place(*, detect: bool = False) -> tuple[int, int]:
    """This process's index and the number of processes, from the environment; none is connected.

    For work that divides without a word between processes. Connected ones end together: jax stops
    all when one dies, or when the first leaves 300 s before the last.

    Args:
        detect: read the variables of a program that starts processes (`LAUNCHERS`) unless
            JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.

    Returns:
        (index, number): (0, 1) if nothing says that there are several.

    Raises:
        ValueError: one of the two is missing or out of range, or `detect` finds nothing.

    >>> find_place()
    (0, 1)
    """
    given = {name: text for name in VARIABLES if (text := os.environ.get(name, "").strip())}
    names = VARIABLES[1:]
    if not given and not detect:
        return 0, 1
    if not given:
        names = next((pair for pair in LAUNCHERS.values() if set(pair) <= os.environ.keys()), None)
        if names is None:
            raise ValueError(
                f"no cluster is found: start the processes by {', '.join(LAUNCHERS)}, or set "
                f"{' and '.join(VARIABLES[1:])}"
            )
        given = {name: os.environ[name].strip() for name in names}
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"several processes need {' and '.join(names)}; missing: {missing[0]}")
    faults: list[str] = []
    count = _number(names[0], given[names[0]], 1, faults)
    index = _number(names[1], given[names[1]], 0, faults)
    if count is not None and index is not None and index >= count:
        faults.append(f"{names[1]} must be below {count}, the number of processes; got {index}")
    if faults or count is None or index is None:
        raise ValueError("; ".join(faults))
    return index, count


def _number(name: str, value: str | int | None, least: int, faults: list[str]) -> int | None:
    if value is None or (str(value).isdecimal() and int(value) >= least):
        return None if value is None else int(value)
    faults.append(f"{name} must be a whole number of at least {least}, got {value!r}")
    return None
