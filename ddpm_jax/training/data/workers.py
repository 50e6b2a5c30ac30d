"""What grain's worker processes need beside grain: to outlive signals, but not their parent.

A terminal sends Ctrl-C, and a scheduler SIGTERM, to all processes of a job. The training process
answers by saving, and may want one more batch for that, so workers ignore both; it ends them when
it closes its iterator, or exits. Should it be killed, they notice and leave.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def begin_worker(_index: int, _count: int) -> None:
    """Runs first in each worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent.sentinel,), daemon=True).start()


def _leave_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def settle_flags() -> None:
    """Lets grain start workers in programs that do not parse absl's flags, which most do not.

    grain 0.2.17 and 0.2.18 ask for this flag without a fallback (google/grain issue 1355).
    """
    from absl import flags

    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS and not flags.FLAGS.is_parsed():
        flags.FLAGS[name].present = True
