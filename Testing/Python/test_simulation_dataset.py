"""A simulated data set on disk: BIDS files, positions, resuming, refusing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from CMBDetectorLib.errors import BadInputError, Cancelled, OutputError
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.simulation.dataset import simulate_dataset
from CMBDetectorLib.volume import read_mask, read_volume

pytest.importorskip("nilearn", reason="the simulator needs nilearn")
AROUND = np.array([11, 11, 5])


class CancelAfter(Progress):
    """Stops the work when ``scans`` scans are done, as a user does."""

    def __init__(self, scans: int) -> None:
        super().__init__()
        self._scans = scans

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        if steps < 100 and step == self._scans:
            raise Cancelled


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a TSV."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file below ``folder``."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three crops with seven microbleeds, in a folder whose name has a space and a letter beyond ASCII."""
    return simulate_dataset(tmp_path_factory.mktemp("sim") / "Köpfe 3", 3, 11, "crop", 7)


def test_files_and_counts(dataset: Path) -> None:
    description = json.loads((dataset / "dataset_description.json").read_text(encoding="utf-8"))
    assert description["Simulated"] is True
    assert description["BIDSVersion"]
    people = rows(dataset / "participants.tsv")
    assert [p["participant_id"] for p in people] == ["sub-01", "sub-02", "sub-03"]
    assert sum(int(p["microbleeds"]) for p in people) == 7
    for person in people:
        name = person["participant_id"]
        sidecar = json.loads((dataset / name / "swi" / f"{name}_swi.json").read_text(encoding="utf-8"))
        assert sidecar["EchoTime"] == 0.024
        assert sidecar["MagneticFieldStrength"] == 3.0
        points = rows(dataset / "derivatives" / "cmbdetector" / name / f"{name}_desc-cmb_points.tsv")
        assert len(points) == int(person["microbleeds"]) >= 1
        assert {point["source"] for point in points} == {"simulated"}


def test_points_on_disk_are_dark_on_the_scan_on_disk(dataset: Path) -> None:
    for name in ("sub-01", "sub-02", "sub-03"):
        derived = dataset / "derivatives" / "cmbdetector" / name
        scan = read_volume(dataset / name / "swi" / f"{name}_swi.nii.gz")
        brain = read_mask(derived / f"{name}_desc-brain_mask.nii.gz", scan)
        for row in rows(derived / f"{name}_desc-cmb_points.tsv"):
            ijk = np.round(scan.to_ijk(np.array([float(row[axis]) for axis in "xyz"]))).astype(int)
            assert brain.array[tuple(ijk)]
            near = scan.cropped(ijk - 1, ijk + 2).array.min()
            assert near < 0.85 * np.median(scan.cropped(ijk - AROUND, ijk + AROUND + 1).array)
        for row in rows(derived / f"{name}_desc-mimic_points.tsv"):
            assert row["mimic_class"] not in ("", "n/a")


def test_a_stopped_run_is_finished_by_the_next(dataset: Path, tmp_path: Path) -> None:
    target = tmp_path / "again"
    with pytest.raises(Cancelled):
        simulate_dataset(target, 3, 11, "crop", 7, CancelAfter(1))
    assert [p.name for p in sorted(target.glob("sub-*"))] == ["sub-01"]
    (target / ".partial-left").mkdir()
    first = target / "sub-01" / "swi" / "sub-01_swi.nii.gz"
    written = first.stat().st_mtime_ns
    simulate_dataset(target, 3, 11, "crop", 7)
    assert first.stat().st_mtime_ns == written
    assert contents(target) == contents(dataset)


def test_varied_scans_have_their_own_protocols(tmp_path: Path) -> None:
    simulate_dataset(tmp_path, 2, 3, "crop", vary=True)
    description = json.loads((tmp_path / "dataset_description.json").read_text(encoding="utf-8"))
    assert description["GeneratedBy"][0]["Settings"]["vary"] is True
    names = ("sub-01", "sub-02")
    sidecars = [json.loads((tmp_path / n / "swi" / f"{n}_swi.json").read_text(encoding="utf-8")) for n in names]
    scans = [read_volume(tmp_path / n / "swi" / f"{n}_swi.nii.gz") for n in names]
    assert sidecars[0]["EchoTime"] != sidecars[1]["EchoTime"]
    assert sidecars[0]["ProtocolName"] == sidecars[1]["ProtocolName"] == "crop"
    assert not np.allclose(scans[0].spacing, scans[1].spacing)
    for sidecar, scan in zip(sidecars, scans, strict=True):
        assert scan.spacing[2] == pytest.approx(sidecar["SpacingBetweenSlices"], abs=1e-4)
    with pytest.raises(OutputError, match="another data set"):
        simulate_dataset(tmp_path, 2, 3, "crop")


def test_other_folders_and_settings_are_refused(dataset: Path, tmp_path: Path) -> None:
    before = contents(dataset)
    with pytest.raises(OutputError, match="another data set"):
        simulate_dataset(dataset, 3, 12, "crop", 7)
    assert contents(dataset) == before
    (tmp_path / "thesis.docx").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputError, match=r"thesis\.docx"):
        simulate_dataset(tmp_path, 1, 1, "crop")
    (tmp_path / "thesis.docx").rename(tmp_path / "sub-77")
    with pytest.raises(OutputError, match="sub-77"):
        simulate_dataset(tmp_path, 1, 1, "crop")
    assert [p.name for p in tmp_path.iterdir()] == ["sub-77"]


@pytest.mark.parametrize(
    ("scans", "total", "protocol"), [(0, None, "crop"), (3, 2, "crop"), (1, 84, "crop"), (1, 1, "t1")]
)
def test_impossible_wishes_are_refused_before_anything_is_written(
    tmp_path: Path, scans: int, total: int | None, protocol: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        simulate_dataset(tmp_path / "new", scans, 1, protocol, total)
    assert caught.value.hint
    assert not (tmp_path / "new").exists()
