"""From a stored scan to the networks' image: same head whatever the orientation, geometry kept, bad input refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from head_phantom import make_head, oblique_affine

from CMBDetectorLib.errors import BadInputError, Cancelled
from CMBDetectorLib.preprocessing.pipeline import MARGIN, Preprocessed, preprocess, preprocessing_stages
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume, from_sitk, write_volume

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "gre_mag.nii"
# Coarser than the models' 0.45 x 0.45 x 1 mm, so that the tests are quick; nothing depends on it.
SPACING = (4.0, 4.0, 4.0)


class Listener(Progress):
    """Keeps the stages; raises at the first report of ``stop``."""

    def __init__(self, stop: str | None = None) -> None:
        super().__init__()
        self.stages: list[str] = []
        self.fractions: list[float] = []
        self.stop = stop

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        self.fractions.append(fraction)
        if stage not in self.stages:
            self.stages.append(stage)
        if stage == self.stop:
            raise Cancelled


def check_contract(result: Preprocessed, scan: Volume, spacing: tuple[float, float, float] = SPACING) -> None:
    """Check everything that holds for any preprocessed scan."""
    image, mask = result.image, result.mask
    assert image.array.dtype == np.float32
    assert np.isfinite(image.array).all()
    assert mask.array.dtype == bool
    assert result.brain_mask.array.dtype == bool
    assert image.same_grid(mask)
    assert result.brain_mask.same_grid(scan)
    assert image.orientation == "RAS"
    np.testing.assert_allclose(image.spacing, spacing, rtol=0.05)
    assert not image.array[~mask.array].any()
    found = np.argwhere(mask.array)
    assert (found.min(0) >= MARGIN).all()
    assert (np.array(mask.shape) - 1 - found.max(0) >= MARGIN).all()


def darkest(volume: Volume, ras_mm: np.ndarray) -> np.ndarray:
    """Return the smallest intensity of ``volume`` among the voxels next to each position (n, 3)."""
    centres = np.rint(volume.to_ijk(ras_mm)).astype(int)
    return np.array([volume.array[tuple(slice(max(0, c - 1), c + 2) for c in centre)].min() for centre in centres])


@pytest.mark.parametrize(
    ("axes", "degrees", "spacing"),
    [
        ("RAS", 0, (4.0, 4.0, 4.0)),
        ("LAS", 18, (4.0, 4.0, 4.0)),
        ("SRP", 8, (4.0, 3.0, 4.0)),
        ("LPS", 5, (2.0, 2.0, 5.0)),
    ],
)
def test_the_same_head_comes_out_of_every_orientation(axes, degrees, spacing):
    phantom = make_head(spacing, axes, degrees)
    listener = Listener()
    listener.plan(preprocessing_stages("simple"))
    result = preprocess(phantom.scan, "simple", SPACING, listener)
    check_contract(result, phantom.scan)
    assert listener.stages == ["brain mask", "bias field", "normalisation"]
    assert listener.fractions == sorted(listener.fractions)
    assert listener.fractions[-1] == pytest.approx(1)
    # White matter is the phantom's largest class, the mimics of microbleeds its darkest spots.
    truth = phantom.clean.canonical()
    inside = phantom.brain.canonical()
    white = np.abs(truth.array / 400 - 1) < 0.05
    positions = np.rint(result.image.to_ijk(truth.to_ras(np.argwhere(white & inside.array)[::97]))).astype(int)
    values = result.image.array[tuple(positions.T)]
    assert np.median(values) == pytest.approx(0.5, abs=0.05)
    # The lesions lie where they were, as dark as the voxels of both grids let them be.
    coarse = phantom.clean.canonical().resampled(SPACING)
    expected = darkest(coarse, phantom.lesions_ras_mm) / 800
    np.testing.assert_allclose(darkest(result.image, phantom.lesions_ras_mm), expected, atol=0.12)
    assert (expected < 0.4).any()
    assert result.notes == []


def test_equal_spacing_is_not_interpolated_and_positions_stay():
    phantom = make_head(axes="LPI", bias=0.0, noise=0.02)
    result = preprocess(phantom.scan, phantom.brain, (1.75, 1.85, 3.0))
    check_contract(result, phantom.scan, (1.8, 1.8, 3.0))
    assert result.brain_mask.array.sum() == result.mask.array.sum() == phantom.brain.array.sum()
    voxels = np.argwhere(phantom.brain.array)[::503]
    ijk = result.image.to_ijk(phantom.scan.to_ras(voxels))
    np.testing.assert_allclose(ijk, np.rint(ijk), atol=1e-6)
    values = result.image.array[tuple(np.rint(ijk).astype(int).T)]
    assert np.corrcoef(values, phantom.scan.array[tuple(voxels.T)])[0, 1] > 0.99


@pytest.mark.parametrize(("orientation", "angle"), [("RAS", 0), ("SPL", 12)])
def test_voxels_coarser_than_the_model_knows_are_noted(orientation, angle):
    phantom = make_head((5.0, 5.0, 11.0) if orientation == "RAS" else (11.0, 5.0, 5.0), orientation, angle)
    result = preprocess(phantom.scan, phantom.brain, (5.0, 5.0, 5.0), coarsest_mm=(6, 6, 10))
    check_contract(result, phantom.scan, (5.0, 5.0, 5.0))
    assert len(result.notes) == 1
    assert "5 x 5 x 11 mm" in result.notes[0]
    assert "6 x 6 x 10 mm" in result.notes[0]
    for known in ((5, 5, 11), (5, 5, 10.6), None):
        assert not preprocess(phantom.scan, phantom.brain, (5.0, 5.0, 5.0), coarsest_mm=known).notes


def test_negative_values_become_zero_with_a_note():
    phantom = make_head((6, 6, 6), "LPS")
    array = phantom.scan.array.copy()
    array[::7, 0, 0] = -500
    result = preprocess(phantom.scan.with_array(array), phantom.brain, (6, 6, 6))
    assert result.image.array.min() == 0
    assert any("below 0" in note for note in result.notes)
    phase = phantom.scan.with_array(phantom.scan.array - phantom.scan.array.mean())
    assert any("phase image" in note for note in preprocess(phase, phantom.brain, (6, 6, 6)).notes)


def test_no_mask_takes_all_above_zero_and_says_so():
    phantom = make_head((6, 6, 6), "LPS", 10)
    result = preprocess(phantom.scan, "none", (6, 6, 6))
    check_contract(result, phantom.scan, (6, 6, 6))
    assert result.brain_mask.array.mean() > 0.99
    assert len(result.notes) == 1
    tissue = np.abs(phantom.clean.array / 400 - 1) < 0.05
    positions = np.rint(result.image.to_ijk(phantom.scan.to_ras(np.argwhere(tissue)[::31]))).astype(int)
    # Air is most of the image and its noise the highest peak of the histogram; tissue must be the one at 0.5.
    assert np.median(result.image.array[tuple(positions.T)]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.skipif(not REAL.is_file(), reason="the real gradient-echo crop is not there")
@pytest.mark.parametrize("brain_mask", ["none", "simple"])
def test_the_real_crop_at_the_models_spacing(brain_mask):
    scan = from_sitk(sitk.ReadImage(str(REAL))[:, :, :, 2])
    result = preprocess(scan, brain_mask)
    check_contract(result, scan, (0.45, 0.45, 1.0))
    values = result.image.array[result.mask.array]
    assert 0.42 < np.median(values) < 0.58
    # Veins stay dark: the correction did not follow them.
    assert np.percentile(values, 1) < 0.35


def test_a_mask_file_is_used_as_it_is_and_another_grid_is_refused(tmp_path):
    phantom = make_head((6, 6, 6), "LAS", 10)
    path = tmp_path / "maske größer.nii.gz"
    write_volume(path, phantom.brain)
    result = preprocess(phantom.scan, path, (6, 6, 6))
    np.testing.assert_array_equal(result.brain_mask.array, phantom.brain.array)
    write_volume(path, phantom.brain.cropped((0, 0, 0), (30, 30, 30)))
    with pytest.raises(BadInputError):
        preprocess(phantom.scan, str(path), (6, 6, 6))
    moved = Volume(phantom.brain.array, phantom.brain.ijk_to_ras + np.diag([0, 0, 0.2, 0]))
    with pytest.raises(BadInputError):
        preprocess(phantom.scan, moved, (6, 6, 6))


def test_a_mask_that_is_no_brain_is_refused():
    phantom = make_head((6, 6, 6))
    mask = phantom.brain.with_array(np.zeros(phantom.brain.shape, bool))
    with pytest.raises(BadInputError, match="empty"):
        preprocess(phantom.scan, mask)
    mask.array[20, 20, 20] = True
    with pytest.raises(BadInputError, match="too small") as caught:
        preprocess(phantom.scan, mask)
    assert caught.value.hint


def test_a_ball_in_air_is_too_small_to_be_a_brain():
    rng = np.random.default_rng(0)
    array = np.abs(rng.normal(0, 5, (80, 80, 60))).astype(np.float32)
    array[38:44, 38:44, 28:34] = 500
    with pytest.raises(BadInputError, match="too small"):
        preprocess(Volume(array, oblique_affine((3, 3, 3), "LPS", 10)), "simple")


@pytest.mark.parametrize("stage", ["brain mask", "bias field", "normalisation"])
def test_it_can_be_cancelled_in_every_stage(stage):
    phantom = make_head((6, 6, 6))
    with pytest.raises(Cancelled):
        preprocess(phantom.scan, phantom.brain, (6, 6, 6), Listener(stop=stage))
