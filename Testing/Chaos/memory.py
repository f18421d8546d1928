"""Too little memory, in steps: a detection ends well, also at the second attempt, or with a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import real_worker
from memory_group import MemoryGroup
from outcome import Chaos, Outcome

from CMBDetectorLib.gui.job import WorkerJob
from CMBDetectorLib.runtime.interpreter import Interpreter
from CMBDetectorLib.worker.options import LOW_MEMORY

_MB = 1 << 20
# A detection in a small crop takes about 500 MB, most of which is TensorFlow itself.
_LIMITS_MB = (60, 150, 250, 330, 400, 480, 600, 900)


def limit(chaos: Chaos) -> Outcome:
    """The kernel ends whatever takes more than the limit; every other time allocations fail instead."""
    outcome = Outcome("memory limit: detections, from 60 to 900 MB")
    chance, top = chaos.random("memory"), chaos.place("memory")
    counts = {"done": 0, "at the second attempt": 0, "with a sentence": 0}
    expected = None
    for number in range(chaos.times(8)):
        outcome.tries += 1
        step = _LIMITS_MB[(number * len(_LIMITS_MB)) // chaos.times(8)]
        limit_bytes = round(step * chance.uniform(0.9, 1.1)) * _MB
        output = top / f"o-{number}"
        with MemoryGroup(limit_bytes) as group:
            command = real_worker.arguments(chaos.scan, chaos.model, output)
            job = WorkerJob(command, _python(top / f"python-{number}", group), when_memory_is_short=[LOW_MEMORY])
            ended = real_worker.follow(job)
        try:
            found = real_worker.result_of(output)
        except ValueError as error:
            outcome.losses.append(str(error))
            continue
        if ended.state == "done":
            counts["at the second attempt" if ended.notes else "done"] += 1
            expected = expected or found
            outcome.check(bool(found), "a result without candidates")
        else:
            counts["with a sentence"] += 1
            # The loader of a library says in its own words that there is no room for it.
            loss = real_worker.words_are_missing(ended, ["memory", "killed"])
            outcome.check(not loss, f"{limit_bytes // _MB} MB: {loss}")
            outcome.check(found is None, "a result is there though it failed")
        left = [path.name for path in top.glob(".partial-*")]
        outcome.check(not left and not ended.left, f"leftovers {left}, processes {ended.left}")
    with MemoryGroup(_MB) as group:
        how = group.how
    outcome.note = ", ".join(f"{count} {name}" for name, count in counts.items()) + f"; {how}"
    return outcome


def _python(path: Path, group: MemoryGroup) -> Interpreter:
    """Return an interpreter that is the own one in the group."""
    command = group.command([sys.executable])
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in command)
    path.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return Interpreter(path)
