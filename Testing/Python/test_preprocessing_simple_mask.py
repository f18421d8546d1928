"""The simple brain mask covers the brain with its dark spots and leaves scalp and air outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from head_phantom import make_head

from CMBDetectorLib.errors import BadInputError
from CMBDetectorLib.preprocessing.simple_mask import simple_brain_mask
from CMBDetectorLib.volume import Volume, from_sitk

REAL = Path(__file__).resolve().parents[3] / "shared" / "real" / "gre_mag.nii"


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(
    "head",
    [
        {"csf": 2.0},
        {"csf": 0.8},
        {"axes": "LPS", "degrees": 15, "csf": 0.8},
        {"spacing": (1.8, 3.0, 1.8), "axes": "RSA", "degrees": 8},
        {"spacing": (1.2, 1.2, 4.0), "axes": "LAS"},
        {"noise": 0.12, "bias": 0.45},
    ],
    ids=["T2*", "SWI", "oblique", "coronal", "thick slices", "noisy and shaded"],
)
def test_the_mask_holds_the_brain_and_little_else(head):
    phantom = make_head(**head)
    mask = simple_brain_mask(phantom.scan)
    assert mask.array.dtype == bool
    assert mask.same_grid(phantom.scan)
    assert (mask.array & phantom.brain.array).sum() > 0.985 * phantom.brain.array.sum()
    # The rest is fluid around the brain and, in this phantom, a wide neck.
    assert dice(mask.array, phantom.cranium.array) > 0.9
    centres = np.rint(phantom.scan.to_ijk(phantom.lesions_ras_mm)).astype(int)
    assert all(mask.array[tuple(centre)] for centre in centres)


def test_scalp_and_air_are_left_out_above_the_skull_base():
    phantom = make_head(axes="LPS", degrees=10)
    ijk = np.stack(np.meshgrid(*[np.arange(n) for n in phantom.scan.shape], indexing="ij"), -1)
    beyond = ~phantom.cranium.array & (phantom.scan.to_ras(ijk)[..., 2] > -30)
    outside = simple_brain_mask(phantom.scan).array & beyond & (phantom.clean.array > 250)
    assert outside.sum() < 0.002 * phantom.brain.array.sum()


@pytest.mark.parametrize("csf", [2.0, 0.8])
def test_a_stripped_scan_is_kept_whole(csf):
    phantom = make_head(stripped=True, csf=csf, axes="LAS")
    mask = simple_brain_mask(phantom.scan)
    assert (mask.array & phantom.brain.array).sum() > 0.995 * phantom.brain.array.sum()
    assert dice(mask.array, phantom.brain.array) > 0.97


def test_a_crop_inside_the_brain_is_kept_whole():
    phantom = make_head((0.5, 0.5, 1.0), extent_mm=(24, 24, 41), axes="LPS", degrees=10)
    assert phantom.brain.array.all()
    assert simple_brain_mask(phantom.scan).array.all()


@pytest.mark.skipif(not REAL.is_file(), reason="the real gradient-echo crop is not there")
@pytest.mark.parametrize("echo", [0, 2])
def test_the_real_crop_is_kept_whole(echo):
    scan = from_sitk(sitk.ReadImage(str(REAL))[:, :, :, echo])
    assert simple_brain_mask(scan).array.mean() > 0.98


def test_an_image_of_zeros_has_no_brain():
    with pytest.raises(BadInputError) as caught:
        simple_brain_mask(Volume(np.zeros((30, 30, 20), np.float32), np.eye(4)))
    assert "--brain-mask" in caught.value.hint
