"""All faults, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable

import clock
import damage
import disks
import fuzz
import host_kills
import instances
import memory
import paths
import set_ups
import worker_kills
from outcome import Chaos, Outcome

Fault = Callable[[Chaos], Outcome]

NEED_A_WORKER: list[Fault] = [
    worker_kills.worker,
    worker_kills.host,
    disks.full_for_detections,
    memory.limit,
    paths.detections,
]
FAULTS: list[Fault] = [
    host_kills.review,
    host_kills.dataset,
    host_kills.registry,
    worker_kills.worker,
    worker_kills.host,
    disks.full_for_verdicts,
    disks.full_for_exports,
    disks.full_for_models,
    disks.full_for_detections,
    disks.read_only,
    memory.limit,
    clock.set_back,
    instances.at_once,
    damage.cut_and_flipped,
    paths.names,
    paths.detections,
    set_ups.killed,
    set_ups.on_a_full_disk,
    set_ups.from_damaged_wheels,
    fuzz.readers,
]
