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
    _prefer_packages()
    try:
        if events is None:
            # The listener of the terminal needs it.
            import rich  # noqa: F401
        from CMBDetectorLib.worker.cli import CANCELLED, run
    except ImportError as error:
        from CMBDetectorLib.doctor.bare import run_without_packages

        return run_without_packages(sys.argv[1:], events, error)

    code = run(sys.argv[1:], events)
    if code == CANCELLED:
        from CMBDetectorLib.worker.stopping import leave

        leave(code)
    return code


def _prefer_packages() -> None:
    """Put the folder of the extension's own packages before all others, here and in children.

    PYTHONPATH holds it, too, but the launcher of Slicer's Python puts Slicer's packages before that.
    """
    folder = os.environ.get("CMBDETECTOR_PACKAGES")
    if folder:
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))


if __name__ == "__main__":
    sys.exit(main())
