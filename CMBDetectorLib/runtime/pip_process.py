"""The process in which pip runs: ``python -m CMBDetectorLib.runtime.pip_process ARGUMENTS``.

It ends, with all it has started, once its standard input closes: nothing goes on fetching for a set-up that was killed.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

from CMBDetectorLib.worker.stopping import wait_for_end


def main() -> None:
    """Run pip with the arguments of this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv[0] = "pip"
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    wait_for_end(0)
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
