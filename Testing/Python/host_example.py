"""What the tests of the stand-in host share: the example module, a scan of a ball, and a look at what is painted."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "SlicerHost" / "Example" / "HostExample.py"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright ball of 20 mm around the origin, written as NIfTI."""
    ijk = np.indices((40, 40, 40)) - 19.5
    path = tmp_path_factory.mktemp("host") / "ball.nii.gz"
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -39
    nib.save(nib.Nifti1Image((1000.0 * (np.linalg.norm(ijk, axis=0) < 10)).astype(np.float32), affine), path)
    return path


def middle(host, view: str) -> int:
    """How bright the middle of a slice view is painted, 0 to 255."""
    host.process_events()
    place = host.view(view)
    return place.grab().toImage().pixelColor(place.width // 2, place.height // 2).value()
