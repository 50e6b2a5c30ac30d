"""How busy the machine is with what is not ours.

Over a stretch of time, in seconds of CPU:

    (1)  others = busy - own

busy is the growth of all counters of /proc/stat but idle and iowait; time stolen by a hypervisor is
in it. own is the growth of user and system time of this process and all its descendants, those that
have ended and were waited for included. Counters advance in hundredths of a second.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

IDLE_SHARE = 0.05
"""The machine counts as idle while others use at most this share of its cores."""

PROC = Path("/proc")


class Snapshot(NamedTuple):
    """Seconds of CPU since some start."""

    busy: float
    own: float


def snapshot(root: int | None = None, proc: Path = PROC) -> Snapshot | None:
    """The counters now, for the process `root` (this one) and its descendants; None off Linux."""
    try:
        stat = (proc / "stat").read_text()
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    processes = _processes(proc)
    own = sum(processes[pid][1] for pid in _family(root or os.getpid(), processes))
    return Snapshot(busy_ticks(stat) / tick, own / tick)


def others_share(
    stretches: Iterable[tuple[Snapshot | None, Snapshot | None, float]], cores: int
) -> float | None:
    """Share of the cores that others used, equation (1), over stretches (before, after, seconds).

    None where it is not known.
    """
    used = available = 0.0
    for before, after, seconds in stretches:
        if before is None or after is None:
            return None
        used += (after.busy - before.busy) - (after.own - before.own)
        available += seconds * cores
    return min(max(used / available, 0.0), 1.0) if available else None


def busy_ticks(stat: str) -> int:
    """Busy ticks of all cores in the text of /proc/stat: user nice system - - irq softirq steal."""
    fields = [int(field) for field in stat.splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, *rest = fields
    return user + nice + system + sum(rest)


def _processes(proc: Path) -> dict[int, tuple[int, int]]:
    """Of each process, its parent and its ticks; those of children that it waited for are in."""
    found = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        fields = text.rpartition(")")[2].split()  # the name before may hold anything
        found[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    return found


def _family(root: int, processes: dict[int, tuple[int, int]]) -> set[int]:
    """The pids of a process and its descendants."""
    family, grew = {root} & set(processes), True
    while grew:
        more = {pid for pid, (parent, _) in processes.items() if parent in family} - family
        family, grew = family | more, bool(more)
    return family
