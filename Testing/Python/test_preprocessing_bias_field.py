"""N4 takes the shading away and nothing else, in any orientation; it can be stopped, and its failure costs nothing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from head_phantom import make_head, oblique_affine

from CMBDetectorLib.errors import Cancelled
from CMBDetectorLib.preprocessing import bias_field
from CMBDetectorLib.preprocessing.bias_field import STAGE, correct_bias_field
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume


class Listener(Progress):
    """Keeps the reports; raises at the ``stop``-th."""

    def __init__(self, stop: int | None = None, error: type[BaseException] = Cancelled) -> None:
        super().__init__()
        self.steps: list[tuple[int, int]] = []
        self.stop, self.error = stop, error

    def show(self, stage: str, step: int, steps: int, fraction: float) -> None:
        assert stage == STAGE
        self.steps.append((step, steps))
        if self.stop is not None and len(self.steps) > self.stop:
            raise self.error


def test_shading_is_taken_away_and_lesions_stay_dark():
    head = make_head((4, 4, 5), "LPS", 12, bias=0.4)
    listener = Listener()
    corrected, notes = correct_bias_field(head.scan, head.brain, listener)
    assert notes == []
    assert corrected.same_grid(head.scan)
    assert corrected.array.dtype == np.float32
    inside = head.brain.array & (head.scan.array > 40)
    field = np.log(head.bias.array[inside])
    left = np.log(head.scan.array[inside] / corrected.array[inside]) - field
    assert left.std() < 0.08 * field.std()
    # Tissue contrast is kept: as near to the truth as the noise and the true field let it be.
    best = np.corrcoef((head.scan.array / head.bias.array)[inside], head.clean.array[inside])[0, 1]
    assert np.corrcoef(corrected.array[inside], head.clean.array[inside])[0, 1] > 0.98 * best
    steps = [step for step, _ in listener.steps]
    assert steps == sorted(steps)
    assert len(steps) > 5
    assert listener.steps[-1][0] == listener.steps[-1][1]


@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt])
def test_an_exception_of_the_listener_ends_the_work_at_once_and_quietly(error, capfd):
    head = make_head((4, 4, 4))
    listener = Listener(stop=3, error=error)
    with pytest.raises(error):
        correct_bias_field(head.scan, head.brain, listener)
    assert len(listener.steps) == 4
    assert capfd.readouterr().err == ""
    assert sys.excepthook is sys.__excepthook__


def test_a_signal_ends_the_work_also_where_it_comes_before_the_listener_is_called(monkeypatch, capfd):
    """A signal's exception is raised at the first line of Python that runs: often the first of SimpleITK's callback."""
    add_command = sitk.N4BiasFieldCorrectionImageFilter.AddCommand

    def interrupted() -> None:
        raise KeyboardInterrupt

    def add(self, event, command):
        add_command(self, event, interrupted)
        return add_command(self, event, command)

    monkeypatch.setattr(sitk.N4BiasFieldCorrectionImageFilter, "AddCommand", add)
    head = make_head((4, 4, 4))
    with pytest.raises(KeyboardInterrupt):
        correct_bias_field(head.scan, head.brain)
    assert capfd.readouterr().err == ""
    assert sys.excepthook is sys.__excepthook__


def test_a_small_oblique_crop_keeps_its_lesion():
    rng = np.random.default_rng(0)
    shape = (51, 51, 20)
    distance = np.linalg.norm((np.indices(shape).T - np.array([25, 25, 10])) * (0.47, 0.47, 1), axis=-1).T
    shading = 1 + 0.2 * np.linspace(-1, 1, 51)[:, None, None]
    array = (500 * shading * (1 + rng.normal(0, 0.03, shape))).astype(np.float32)
    array[distance < 2.5] *= 0.3
    scan = Volume(array, oblique_affine((0.47, 0.47, 1), "PSL", 20))
    corrected, notes = correct_bias_field(scan, scan.with_array(np.ones(shape, bool)))
    assert notes == []
    tissue = corrected.array[distance > 4]
    assert tissue.std() / tissue.mean() < 0.06 < array[distance > 4].std() / array[distance > 4].mean()
    assert corrected.array[distance < 1.5].mean() < 0.4 * tissue.mean()


def test_a_failure_of_n4_leaves_the_scan_as_it_was_with_a_note(monkeypatch):
    class Failing(sitk.N4BiasFieldCorrectionImageFilter):
        def Execute(self, *images):
            raise RuntimeError("Exception thrown in SimpleITK")

    monkeypatch.setattr(bias_field.sitk, "N4BiasFieldCorrectionImageFilter", Failing)
    head = make_head((5, 5, 5))
    corrected, notes = correct_bias_field(head.scan, head.brain)
    np.testing.assert_array_equal(corrected.array, head.scan.array)
    assert len(notes) == 1
    assert "not corrected" in notes[0]


def test_a_mask_of_a_few_voxels_leaves_the_scan_as_it_was_with_a_note():
    head = make_head((5, 5, 5))
    mask = head.brain.with_array(np.zeros(head.brain.shape, bool))
    mask.array[20, 20, 15] = True
    corrected, notes = correct_bias_field(head.scan, mask)
    np.testing.assert_array_equal(corrected.array, head.scan.array)
    assert "too small" in notes[0]
