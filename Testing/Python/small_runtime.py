"""A runtime in small: wheels made by hand, a lock that names them, and a bare Python that sets them up."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from CMBDetectorLib.runtime.locks import DETECTOR, HD_BET, Package, lock_file
from CMBDetectorLib.runtime.platforms import this_platform, this_python

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class SmallRuntime:
    """``wheels`` holds the files that the lock in ``locks`` names; ``folder`` is to be set up."""

    wheels: Path
    locks: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of a user whose pip knows the folder of wheels alone: nothing reaches the network."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "CMBDETECTOR_"))}
        own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        data = {"CMBDETECTOR_LOCKS": str(self.locks), "CMBDETECTOR_DATA": str(self.folder.parent)}
        return {**kept, **own, **data, "PYTHONPATH": str(ROOT)}

    def command(self, action: str, *arguments: object) -> list[str]:
        """The command line of ``cmbdetector runtime ACTION``, in this folder."""
        where = [] if action == "download" else ["--folder", str(self.folder)]
        return [sys.executable, "-m", "CMBDetectorLib", "runtime", action, *map(str, arguments), *where, "--events"]

    def run(self, action: str, *arguments: object, **variables: str) -> tuple[int, dict]:
        """Run it to its end; return the exit code and the last event."""
        done = subprocess.run(
            self.command(action, *arguments), env={**self.environment, **variables}, capture_output=True, timeout=120
        )
        events = [json.loads(line) for line in done.stdout.splitlines()]
        last = [event for event in events if event["event"] in ("result", "error")]
        assert len(last) == 1, done.stderr.decode(errors="replace")[-2000:]
        return done.returncode, last[0]

    def value(self) -> str | None:
        """What the package that is set up says, loaded as the worker would load it; ``None`` where none is."""
        code = (
            "from CMBDetectorLib.runtime.using import prefer_packages as p\np()\n"
            "import probe_detector\nprint(probe_detector.value)"
        )
        # A Python that has TensorFlow does not look for a runtime by itself: it is named, as the host does.
        folders = os.pathsep.join(map(str, self.place().packages()))
        done = subprocess.run(
            [sys.executable, "-c", code], env={**self.environment, "CMBDETECTOR_PACKAGES": folders},
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else None

    def place(self):
        """The folder as the program reads it."""
        from CMBDetectorLib.runtime.place import Place

        return Place(self.folder)

    def lock_detector(self, value: str, *more: Package) -> None:
        """Make the wheel of the detector's package say ``value``, and lock it."""
        content = {"probe_detector/__init__.py": f"value = {value!r}\n", "probe_detector/data.bin": "0" * 300_000}
        packages = [make_wheel(self.wheels, "probe-detector", value, content), *more]
        self.write_lock(DETECTOR, packages)

    def write_lock(self, part: str, packages: list[Package], lean: bool = False) -> None:
        """Lock ``packages`` for ``part``."""
        path = lock_file(part, this_platform(), this_python(), self.locks, lean)
        path.write_text("".join(f"{package.line}\n" for package in packages))


def make_small_runtime(top: Path, folder: Path | None = None) -> SmallRuntime:
    """Return one below ``top``: the detector is ``probe-detector`` and ``probe-plain``, HD-BET is ``probe-bet``."""
    made = SmallRuntime(top / "wheels", top / "locks", folder or top / "user" / "runtime")
    made.wheels.mkdir(parents=True)
    made.locks.mkdir()
    plain = make_wheel(
        made.wheels, "probe-plain", "2.0",
        {"probe_plain.py": "import probe_detector\n", "probe_plain-2.0.data/purelib/probe_more.py": "",
         "probe_plain-2.0.data/scripts/program": "#!python\n"},
    )  # fmt: skip
    bet = make_wheel(made.wheels, "probe-bet", "1.0", {"probe_bet.py": "import probe_plain\n"})
    made.lock_detector("1", plain)
    made.write_lock(HD_BET, [bet])
    modules = {DETECTOR: ["probe_detector", "probe_plain", "probe_more"], HD_BET: ["probe_bet"]}
    (made.locks / "needs.json").write_text(json.dumps({"modules": modules}))
    return made


def make_wheel(folder: Path, name: str, version: str, content: dict[str, str]) -> Package:
    """Write a real wheel, with metadata and checksums of its files; return how it is locked."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    files = {
        **content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{file},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file), text)
    whole = path.read_bytes()
    size = sum(len(text.encode()) for text in files.values())
    return Package(name, version, hashlib.sha256(whole).hexdigest(), len(whole), size)
