"""Brain mask by HD-BET 2 (Isensee et al. 2019, doi 10.1002/hbm.24750), run in a process of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from CMBDetectorLib.errors import CMBDetectorError, MissingPackageError, ModelError, OutOfMemoryError
from CMBDetectorLib.files import output_error
from CMBDetectorLib.models.hd_bet import package_version, weights_folder, weights_present
from CMBDetectorLib.nifti import looks_whole
from CMBDetectorLib.preprocessing.hd_bet_process import NOTE
from CMBDetectorLib.progress import Progress
from CMBDetectorLib.volume import Volume, from_sitk, resample_onto, write_volume

STAGE = "brain mask"
PACKAGE_HINT = "Set it up with: cmbdetector runtime setup --part hd-bet - or use --brain-mask simple."
WEIGHTS_HINT = (
    "Fetch the HD-BET 2 weights and run: cmbdetector models install --hd-bet FILE - or use --brain-mask simple."
)

# HD-BET works at about 1 mm; giving it finer voxels would cost minutes in nnU-Net's resampling there and back.
_FINEST_MM = 0.8
_WORKING_MM = 1.0
_POLL_S = 0.2
_LOG_TAIL = 4096


def hd_bet_available() -> bool:
    """Tell whether HD-BET 2 and its weights are installed (nothing is imported)."""
    try:
        check_hd_bet()
    except CMBDetectorError:
        return False
    return True


def check_hd_bet() -> None:
    """Raise what is missing of HD-BET 2.

    Raises:
        MissingPackageError: the package is absent or of version 1.
        ModelError: its weights are absent.
    """
    version = package_version()
    if version is None:
        raise MissingPackageError("HD-BET, which finds the brain, is not installed.", PACKAGE_HINT)
    if not version.startswith("2"):
        raise MissingPackageError(
            f"HD-BET {version} is installed (by another Slicer extension, perhaps); version 2 is needed.", PACKAGE_HINT
        )
    if not weights_present():
        raise ModelError(f"The weights of HD-BET are not installed in {weights_folder()}.", WEIGHTS_HINT)


def hd_bet_mask(
    scan: Volume, progress: Progress | None = None, device: str = "auto", tta: bool = False
) -> tuple[Volume, list[str]]:
    """Return HD-BET's brain mask (bool, on the grid of ``scan``) and notes for the user.

    The network gets a copy with axes nearest to R, A, S and voxels of 1 mm where they are finer than 0.8 mm; its mask
    is interpolated back. ``device`` is ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``, with the CPU to fall back on;
    ``tta`` adds test-time mirroring (8 times slower).

    ``progress`` is told at least every second as stage ``"brain mask"``; on whatever it raises, and on any other
    exception here, the process and its children are killed.

    Raises:
        MissingPackageError: HD-BET 2 is not installed.
        ModelError: its weights are missing or damaged.
        OutOfMemoryError: it needs more memory than there is.
        OutputError: the disk of temporary files is full.
        CMBDetectorError: it failed for another reason.
    """
    check_hd_bet()
    progress = progress or Progress()
    progress.report(STAGE)
    # Windows cannot remove a file that a process just killed has not let go of yet.
    with tempfile.TemporaryDirectory(prefix="cmbdetector-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        source, result, log = folder / "scan.nii.gz", folder / "mask.nii.gz", folder / "log.txt"
        write_volume(source, _copy_for_network(scan))
        command = [sys.executable, "-m", "CMBDetectorLib.preprocessing.hd_bet_process", str(source), str(result)]
        command += ["--device", device, "--weights", str(weights_folder()), "--stop-with-stdin"]
        command += ["--tta"] if tta else []
        code = _run(command, log, progress)
        text = log.read_text(encoding="utf-8", errors="replace")
        if code != 0 or not result.is_file():
            raise _error(code, text)
        if not looks_whole(result):
            # ITK takes what a full disk has cut off for air.
            raise output_error(OSError(errno.ENOSPC, ""), result)
        mask = from_sitk(sitk.ReadImage(str(result)) > 0)
    mask = mask.with_array(mask.array.astype(np.float32))
    return scan.with_array(resample_onto(scan, mask).array >= 0.5), _notes(text)


def _copy_for_network(scan: Volume) -> Volume:
    canonical = scan.with_array(np.asarray(scan.array, np.float32)).canonical()
    spacing = [_WORKING_MM if s < _FINEST_MM else s for s in canonical.spacing]
    return canonical.resampled(spacing) if spacing != list(canonical.spacing) else canonical


def _run(command: list[str], log: Path, progress: Progress) -> int:
    """Run ``command`` with its output in ``log``; returns its exit code (negative: the signal that ended it)."""
    environment = dict(os.environ)
    # The child must find this package also where only the parent's sys.path has it (an extension's folder).
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    environment["PYTHONIOENCODING"] = "utf-8"
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=environment, creationflags=flags
        )
        try:
            while process.poll() is None:
                progress.report(STAGE, *_tiles(log))
                time.sleep(_POLL_S)
            return process.returncode
        finally:
            kill_tree(process)
            process.stdin.close()


def kill_tree(process: subprocess.Popen) -> None:
    """Kill ``process`` and all its descendants and wait for them; nothing happens where it has ended."""
    import psutil

    if process.poll() is not None:
        return
    try:
        root = psutil.Process(process.pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=5)
    process.wait()


def _tiles(log: Path) -> tuple[int, int]:
    """Return (done, all) of the tiles that nnU-Net's progress bar last spoke of, (0, 0) before."""
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - _LOG_TAIL))
        found = re.findall(rb"\| (\d+)/(\d+) \[", stream.read())
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def _notes(text: str) -> list[str]:
    return [line.removeprefix(NOTE) for line in text.splitlines() if line.startswith(NOTE)]


def _error(code: int, text: str) -> CMBDetectorError:
    """Return the error for a process that ended with ``code`` and wrote ``text``."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    tail = " | ".join(lines[-3:])[-400:]
    said = f" HD-BET said: {tail}" if tail else ""
    if code == ModelError.exit_code:
        return ModelError(f"The weights of HD-BET in {weights_folder()} are damaged.", WEIGHTS_HINT + said)
    # Linux ends what takes too much memory with SIGKILL.
    if code in (OutOfMemoryError.exit_code, -9):
        return OutOfMemoryError("HD-BET ran out of memory.", "Close other programs, or use --brain-mask simple.")
    if "ModuleNotFoundError" in text or "ImportError" in text:
        return MissingPackageError("HD-BET is not completely installed.", PACKAGE_HINT + said)
    return CMBDetectorError("HD-BET failed on this scan.", "Use --brain-mask simple or a mask file." + said)
