"""Fuzzing of every reader: whatever a file holds, it is read or refused in a sentence, soon and in little memory.

Files are valid ones, changed by hypothesis: bits and numbers set to extremes, pieces taken out, doubled or put in,
JSON with other values anywhere in it.
"""

from __future__ import annotations

import copy
import json
import resource
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import samples
from grids import CENTRE_RAS, write_dicom
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from local_datasets import scan_of
from outcome import Chaos, Outcome
from reviews import KEY, Clock

from CMBDetectorLib.candidate import read_detection, write_detection
from CMBDetectorLib.datasets.annotations import read_annotations
from CMBDetectorLib.datasets.bids import read_points
from CMBDetectorLib.datasets.local import list_scans
from CMBDetectorLib.errors import CMBDetectorError, OutOfMemoryError
from CMBDetectorLib.models.activation import read_state
from CMBDetectorLib.models.bundle import read_card
from CMBDetectorLib.models.package import check_bundle
from CMBDetectorLib.models.registry import Registry
from CMBDetectorLib.report.markups import MarkupPoint, write_point_list
from CMBDetectorLib.review.export import write_review_table
from CMBDetectorLib.review.log import ReviewLog, read_review
from CMBDetectorLib.volume import read_grid, read_volume, write_volume

_CAP_S = 25.0
"""No reader is fuzzed for longer, however slow the machine: then fewer files than planned are tried."""
_LONGEST_S = 5.0
_MOST_BYTES = 600 << 20
_HANGS_AFTER_S = 300.0

_EXTREMES = [0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**62]
_FLOATS = [0.0, -0.0, 1e-38, 1e-12, 1e12, 3e38, float("inf"), float("nan"), -1.0]
_NUMBERS = [
    *(struct.pack(f"<{kind}", n) for kind in "hiq" for n in _EXTREMES if -(2 ** (8 * struct.calcsize(kind) - 1)) <= n
      < 2 ** (8 * struct.calcsize(kind) - 1)),
    *(struct.pack(f"<{kind}", n) for kind in "fd" for n in _FLOATS),
]  # fmt: skip
_TEXTS = [
    b"9" * 400, b"-1", b"1e309", b"NaN", b"Infinity", b"[" * 5000, b'{"a":' * 3000, b"\x00", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\r", b"\n\n", b"\t", b'"', b"=cmd|' /C calc'!A0", b"../../etc/passwd",
    b"100000 100000 100000", b"4294967296",
]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader: ``name`` for the table, a valid file, the name under which its changed copy is read, and ``read``."""

    name: str
    sample: Path
    place: Path
    read: Callable[[Path], Any]
    planned: int = 300


def readers(chaos: Chaos) -> Outcome:
    """Every reader, for a bounded time."""
    outcome = Outcome("fuzzing of readers: NIfTI, NRRD, DICOM, TSV, CSV, mrk.json, model card, review log, registry, …")
    top = chaos.place("fuzz")
    made = forks.run(lambda say: _prepare(top))
    outcome.check(not made.error, made.error[-800:])
    counts = []
    for number, reader in enumerate(_readers(top)):
        planned = chaos.times(reader.planned)
        ended = forks.run(
            lambda say, r=reader, n=number, p=planned: _fuzz(r, chaos.seed * 100 + n, p, say),
            timeout_s=_CAP_S + _HANGS_AFTER_S,
        )
        tried = ended.said[-1] if ended.said else 0
        counts.append(f"{reader.name} {tried}")
        outcome.tries += tried
        outcome.check(not ended.hung, f"{reader.name}: it hangs")
        outcome.check(ended.hung or not ended.signal, f"{reader.name}: it crashes (signal {ended.signal})")
        outcome.check(not ended.error, f"{reader.name}: {_gist(ended.error)}")
        outcome.losses += [f"{reader.name}: {loss}" for loss in ended.value or []]
        outcome.check(tried > 0, f"{reader.name}: nothing was tried")
    outcome.note = ", ".join(counts)
    return outcome


def _fuzz(reader: Reader, number: int, planned: int, say: forks.Say) -> list[str]:
    sample = reader.sample.read_bytes()
    lost: dict[str, str] = {}
    tried, end = 0, time.monotonic() + _CAP_S
    # Beyond what is there already: an allocation that a file only claims fails, and is counted as a loss.
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + _MOST_BYTES, resource.RLIM_INFINITY))

    @seed(number)
    @settings(
        max_examples=planned, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(_changed(sample))
    def examine(data: bytes) -> None:
        nonlocal tried
        if time.monotonic() > end:
            return
        tried += 1
        if tried % 10 == 1:
            say(tried)
        reader.place.write_bytes(data)
        _keep(reader, data, "last")
        started = time.process_time()
        try:
            reader.read(reader.place)
        except OutOfMemoryError as error:
            lost.setdefault("memory", f"a giant allocation: {error.message}")
            _keep(reader, data)
        except CMBDetectorError as error:
            if wrong := samples.sentence_of(error):
                lost.setdefault(wrong[:20], wrong)
        except Exception as error:
            lost.setdefault(type(error).__name__, f"{type(error).__name__}: {str(error)[:300]}")
            _keep(reader, data)
        # Of the processor, not by the clock: others may need it, too.
        if (took := time.process_time() - started) > _LONGEST_S:
            lost.setdefault("time", f"{took:.0f} s for {len(data)} bytes")

    examine()
    say(tried)
    return list(lost.values())


def _gist(error: str) -> str:
    """Return the lines of a traceback without the values in them, which may be long."""
    return "\n".join(line[:200] for line in error.splitlines()[-40:])


def _keep(reader: Reader, data: bytes, what: str = "") -> None:
    """Keep what a reader could not take, for whoever looks for the reason."""
    import os

    if folder := os.environ.get("CMBDETECTOR_CHAOS_KEEP"):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / f"{reader.name}-{what or len(data)}{''.join(reader.place.suffixes)}").write_bytes(data)


def _changed(sample: bytes) -> st.SearchStrategy[bytes]:
    """Return changed copies of ``sample``; the first kilobyte, where headers are, is changed most."""
    near = st.integers(0, min(len(sample), 1024))
    place = st.one_of(near, near, st.integers(0, len(sample)))
    piece = st.one_of(st.sampled_from(_NUMBERS), st.sampled_from(_TEXTS), st.binary(max_size=12))
    edit = st.tuples(st.sampled_from(["set", "set", "flip", "insert", "delete", "double", "cut"]), place, piece,
                     st.integers(1, 200))  # fmt: skip
    edited = st.lists(edit, min_size=1, max_size=6).map(lambda edits: _edited(sample, edits))
    try:
        values = json.loads(sample)
    except ValueError:
        return edited
    return st.one_of(edited, st.lists(st.tuples(st.integers(0, 10_000), _json()), min_size=1, max_size=3).map(
        lambda changes: _with_values(values, changes)))  # fmt: skip


def _json() -> st.SearchStrategy[Any]:
    plain = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20),
        st.sampled_from(["../../x", "=1+1", "\ud800", "a" * 5000, 10**400, [], {}, [[]] * 3]),
    )  # fmt: skip
    return st.recursive(plain, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(
        st.text(max_size=8), inner, max_size=4)), max_leaves=8)  # fmt: skip


def _with_values(values: Any, changes: list[tuple[int, Any]]) -> bytes:
    changed = json.loads(json.dumps(values))
    for number, value in changes:
        places: list[tuple[Any, Any]] = []

        def collect(node: Any, places: list = places) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
                places.append((node, key))
                collect(node[key])

        collect(changed)
        if not places:
            changed = value
            continue
        node, key = places[number % len(places)]
        # A copy: what is sampled again must not hold itself.
        node[key] = copy.deepcopy(value)
    return json.dumps(changed).encode("utf-8", "surrogatepass")


def _edited(sample: bytes, edits: list[tuple[str, int, bytes, int]]) -> bytes:
    data = bytearray(sample)
    for what, place, piece, length in edits:
        place = min(place, len(data))
        if what == "set":
            data[place : place + len(piece)] = piece
        elif what == "flip" and place < len(data):
            data[place] ^= 1 << (length % 8)
        elif what == "insert":
            data[place:place] = piece
        elif what == "delete":
            del data[place : place + length]
        elif what == "double":
            data[place:place] = data[place : place + length]
        elif what == "cut":
            del data[place:]
    return bytes(data)


def _data_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[5]) * resource.getpagesize()


def _prepare(top: Path) -> None:
    scan = scan_of(0)
    for name in ("scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha"):
        write_volume(top / name, scan)
    write_dicom(top / "dicom", scan)
    review = samples.new_review()
    with ReviewLog.create(top / "reviews", KEY, review, Clock()) as log:
        review.changed.append(log.append)
        for act in samples.changes(3, 6):
            act(review)
    shutil.copyfile(log.path, top / "review.jsonl")
    write_detection(top / "candidates.json", review.detection)
    samples.export(top / "dataset", 1, 2)
    for what in ("cmb_points.tsv", "review.json"):
        shutil.copyfile(next((top / "dataset" / "derivatives").rglob(f"*{what}")), top / what)
    (source,) = samples.make_models(top, 1)
    check_bundle(source)
    Registry(top / "registry").install(source)
    Registry(top / "registry").activate("local@1")
    judged = samples.judged_as(2)
    write_review_table(top / "review.csv", judged)
    places = [tuple(CENTRE_RAS + offset) for offset in ((3, 0, 0), (0, 4, 0))]
    points = [MarkupPoint(f"{n}", f"p{n}", "", place) for n, place in enumerate(places)]
    write_point_list(top / "points.mrk.json", points, "points")
    (top / "points.fcsv").write_text(
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        "1,-12,7,20,0,0,0,1,1,1,0,F-1,,\n",
        encoding="utf-8",
    )
    work = top / "work"
    work.mkdir()
    shutil.copytree(top / "dicom", work / "dicom")
    shutil.copytree(top / "source-1", work / "model")
    shutil.copytree(top / "dataset", work / "dataset")
    (work / "registry").mkdir()


def _readers(top: Path) -> list[Reader]:
    work, scan = top / "work", scan_of(0)
    slice_ = next((top / "dicom").iterdir()).name

    def annotations(path: Path) -> Any:
        return read_annotations(path, scan)

    def image(path: Path) -> Any:
        return read_grid(path), read_volume(path)

    note = next((work / "dataset" / "derivatives").rglob("*review.json"))
    return [
        Reader("NIfTI", top / "scan.nii", work / "scan.nii", image),
        Reader("NIfTI packed", top / "scan.nii.gz", work / "scan.nii.gz", image, 100),
        Reader("NRRD", top / "scan.nrrd", work / "scan.nrrd", image),
        Reader("MetaImage", top / "scan.mha", work / "scan.mha", image),
        Reader("DICOM", top / "dicom" / slice_, work / "dicom" / slice_, lambda p: read_volume(p.parent), 150),
        Reader("TSV of a dataset", top / "cmb_points.tsv", work / "points.tsv", read_points),
        Reader("TSV", top / "cmb_points.tsv", work / "other.tsv", annotations),
        Reader("CSV", top / "review.csv", work / "review.csv", annotations),
        Reader("mrk.json", top / "points.mrk.json", work / "points.mrk.json", annotations),
        Reader("fcsv", top / "points.fcsv", work / "points.fcsv", annotations),
        Reader("label map", top / "scan.nrrd", work / "labels.nrrd", annotations, 100),
        Reader("model card", top / "source-1" / "model.json", work / "model" / "model.json", _card, 400),
        Reader("network", top / "source-1" / "unet.keras", work / "model" / "unet.keras", _network),
        Reader("review log", top / "review.jsonl", work / "review.jsonl", read_review),
        Reader("registry", top / "registry" / "active.json", work / "registry" / "active.json", _registry),
        Reader("note of a review", top / "review.json", note, lambda p: list_scans(work / "dataset")),
        Reader("result", top / "candidates.json", work / "candidates.json", read_detection),
    ]


def _card(path: Path) -> Any:
    card = read_card(path.parent)
    return card, check_bundle(path.parent)


def _network(path: Path) -> Any:
    from CMBDetectorLib.models.keras_file import check_network

    return check_network(path)


def _registry(path: Path) -> Any:
    state = read_state(path.parent)
    registry = Registry(path.parent)
    return state, registry.active_reference(), registry.load()
