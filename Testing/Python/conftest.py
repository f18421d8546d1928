"""Fixtures for the whole session: simulated crops, and one tiny model trained on them once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from CMBDetectorLib.training.cases import PreparedCase

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a test process for each core: more threads would only wait for one another.
    for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(threads, "1")
# The models that whoever runs the tests has installed are none of their business.
os.environ["CMBDETECTOR_MODELS"] = str(Path(tempfile.gettempdir()) / "cmbdetector-tests-no-models")
os.environ["CMBDETECTOR_DATA"] = str(Path(tempfile.gettempdir()) / "cmbdetector-tests-data")
# While one process makes the model of the first, the other simulates.
_SLOWEST = ["test_failures", "test_simulation_dataset", "test_simulation_head", "test_worker", "test_retrain"]
_SLOWEST += ["test_learning", "test_recipes", "test_retrain_panel"]
REAL = Path(__file__).resolve().parents[3] / "shared" / "real"


@dataclass(frozen=True)
class Run:
    """What a worker process left: exit code, events (of ``--events``) and its two outputs."""

    code: int
    events: list[dict]
    stdout: str
    stderr: str

    def last(self, kind: str) -> dict:
        """Return the last event of ``kind``."""
        return [event for event in self.events if event["event"] == kind][-1]


def run_worker(*arguments: object, events: bool = True, env: dict[str, str] | None = None) -> Run:
    """Run the real worker process to its end."""
    command = [sys.executable, "-m", "CMBDetectorLib", *map(str, arguments), *(["--events"] if events else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, encoding="utf-8", env={**os.environ, **(env or {})}
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()] if events else []
    return Run(done.returncode, lines, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def worker() -> Callable[..., Run]:
    """The worker as a function of its arguments."""
    return run_worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs in the stand-in for Slicer, and put it last; the slowest files come first of each kind.

    Slicer's libraries and TensorFlow crash each other in one process; with the others first, those tests skip there and
    say so. ``make test`` runs the two kinds by themselves. A slow file that came last would leave one process alone.
    """
    for item in items:
        if {"host", "application"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.host)
    places = {name: place for place, name in enumerate(_SLOWEST)}
    items.sort(
        key=lambda item: (item.get_closest_marker("host") is not None, places.get(item.path.stem, len(_SLOWEST)))
    )


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder ``name`` that ``make`` fills, made by the first test process that asks and shared by all."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("CMBDETECTOR_TEST_SHARED", root / "shared")) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(folder)
    return folder


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS dataset of four simulated crops with 12 microbleeds; nobody writes into it."""
    pytest.importorskip("nilearn", reason="the simulator needs nilearn")
    from CMBDetectorLib.simulation.dataset import simulate_dataset

    return made_once(tmp_path_factory, "crops", lambda folder: simulate_dataset(folder, 4, 7, "crop", 12))


@pytest.fixture(scope="session")
def prepared(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PreparedCase]:
    """The cases of :func:`crops`, preprocessed at 0.45 x 0.45 x 1 mm; nobody writes into their folders."""
    from CMBDetectorLib.datasets.bids import read_dataset
    from CMBDetectorLib.progress import Progress
    from CMBDetectorLib.training.cases import prepare_cases

    def prepare(folder: Path) -> list[PreparedCase]:
        return prepare_cases(read_dataset(crops), folder, (0.45, 0.45, 1.0), "dataset", Progress())

    return prepare(made_once(tmp_path_factory, "prepared", prepare))


@pytest.fixture(scope="session")
def tiny_model(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of tiny networks, trained by the real command on :func:`crops`; nobody writes into it."""

    def train(folder: Path) -> None:
        run = run_worker(
            "train", crops, "--output", folder, "--tiny", "--recipe", "paper", "--epochs", 3, "--steps", 20, "--seed", 1
        )
        assert run.code == 0, run.stderr[-2000:]

    return made_once(tmp_path_factory, "tiny", train)


@pytest.fixture(scope="session")
def beginner(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose CNNs have hardly been taught, so that training them further makes them better for certain."""

    def train(folder: Path) -> None:
        lengths = ["--epochs", 12, "--cnn-epochs", 1, "--steps", 5, "--seed", 1]
        run = run_worker("train", crops, "--output", folder, "--tiny", "--recipe", "paper", *lengths)
        assert run.code == 0, run.stderr[-2000:]

    return made_once(tmp_path_factory, "beginner", train)


@pytest.fixture
def real_crop() -> Path:
    """The folder of the real crop; tests that need it skip where it is absent."""
    if not (REAL / "gre_mag.nii").is_file():
        pytest.skip("the real crop ../shared/real is absent")
    return REAL


@pytest.fixture(scope="session")
def application():
    """The stand-in for 3D Slicer, started when the first test asks for it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import SlicerHost

    if SlicerHost.missing():
        pytest.skip(SlicerHost.missing())
    running = SlicerHost.start()
    yield running
    running.shutdown()


@pytest.fixture
def host(application):
    """The stand-in, as new at the end; a test fails when a slot, an event or an observer raised."""
    with application.no_slot_errors():
        yield application
        application.reset()
