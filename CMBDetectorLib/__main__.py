"""``python -m CMBDetectorLib`` and the console script ``cmbdetector``.

With ``--events`` the stream of events owns a duplicate of descriptor 1, taken here before any other import, and
whatever others print to standard output (HD-BET, TensorFlow, ITK) goes to standard error.
"""

import os
import sys


def main() -> int:
    """Run one command and return its exit code."""
    events = None
    if "--events" in sys.argv[1:]:
        sys.stdout.flush()
        events = os.dup(1)
        os.dup2(2, 1)
    from CMBDetectorLib.worker.cli import CANCELLED, run

    code = run(sys.argv[1:], events)
    if code == CANCELLED:
        # Everything is cleaned up; waiting for the threads of the back end would keep the user waiting.
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
