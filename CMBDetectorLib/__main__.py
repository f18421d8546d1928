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
    if sys.argv[1:2] == ["runtime"]:
        return _run_bare(events)
    from CMBDetectorLib.runtime.using import prefer_packages

    prefer_packages()
    try:
        if events is None:
            # The listener of the terminal needs it.
            import rich  # noqa: F401
        from CMBDetectorLib.worker.cli import CANCELLED, run
        from CMBDetectorLib.worker.commands import COMMANDS
    except ImportError as error:
        from CMBDetectorLib.doctor.bare import run_without_packages

        return run_without_packages(sys.argv[1:], events, error)

    code = run(sys.argv[1:], events, COMMANDS)
    if code == CANCELLED:
        from CMBDetectorLib.worker.stopping import leave

        leave(code)
    return code


def _run_bare(events: int | None) -> int:
    """Run the command that sets packages up, for which none may be needed."""
    from CMBDetectorLib.worker import runtime_command
    from CMBDetectorLib.worker.cli import run

    return run(sys.argv[1:], events, (runtime_command,))


if __name__ == "__main__":
    sys.exit(main())
