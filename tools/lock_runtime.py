"""Makes the lock files of the isolated runtime anew from Resources/Runtime/needs.json.

    python3.12 tools/lock_runtime.py [--part detector|hd-bet] [--platform NAME] [--wheels FOLDER]

Run it with the Python version to lock for and a recent pip; pip's own configuration says where packages come from.
Every file is fetched and compared with its checksum before it is written down.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from CMBDetectorLib.files import sha256, write_text
from CMBDetectorLib.runtime.locks import DETECTOR, FOLDER, PARTS, Package, lock_file, read_lock
from CMBDetectorLib.runtime.platforms import PLATFORMS, Platform

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
# pip asks for tags of another platform, but evaluates markers (sys_platform == 'win32') for the one it runs on.
_PIP = """
import json, runpy, sys
from pip._vendor.packaging import markers
values, original = json.loads(sys.argv.pop(1)), markers.default_environment
markers.default_environment = lambda: {**original(), **values}
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_FOR_NVIDIA = ("nvidia-", "cuda-", "triton")
# A source of pure Python becomes about as much on disk as its archive unpacked.
_UNPACKED = 5


def main() -> None:
    """Make the locks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--platform", choices=PLATFORMS, action="append")
    parser.add_argument("--wheels", type=Path, help="keep what was fetched here, and use what is there")
    parser.add_argument("--lean", action="store_true", help="only the lean locks, from the others")
    options = parser.parse_args()
    needs = json.loads((FOLDER / "needs.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "sources"
        # The detector first: HD-BET takes the versions that are there.
        for part in options.part or PARTS:
            if part != DETECTOR and not sources.exists() and not options.lean:
                pip({}, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(sources), *needs["source-only"])
            for name in options.platform or PLATFORMS:
                platform = PLATFORMS[name]
                wheels = (options.wheels or Path(scratch) / "wheels") / name
                wheels.mkdir(parents=True, exist_ok=True)
                if not options.lean:
                    lock(part, platform, needs[part][name], wheels, sources, Path(scratch))
                if PYTHON in needs["lean"].get(part, {}).get(name, {}):
                    lock_lean(part, platform, needs["lean"][part][name][PYTHON])


def lock(part: str, platform: Platform, needs: list[str], wheels: Path, sources: Path, scratch: Path) -> None:
    """Resolve ``needs``, fetch every file, and write the lock file of ``part``."""
    known = {}
    options = []
    if part != DETECTOR:
        detector = read_lock(DETECTOR, platform, PYTHON)
        known = {package.name: package for package in detector.packages}
        pins = scratch / "pins.txt"
        pins.write_text("".join(f"{package.name}=={package.version}\n" for package in detector.packages))
        options = ["--constraint", str(pins), "--find-links", str(sources)]
    report = scratch / "report.json"
    pip(
        platform.markers, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report),
        "--target", str(scratch / "nowhere"), "--only-binary=:all:", *platform.pip_options(PYTHON), *options, *needs,
    )  # fmt: skip
    resolved = {}
    for entry in json.loads(report.read_text(encoding="utf-8"))["install"]:
        name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
        if name not in known:
            resolved[name] = entry
    packages = [fetched(name, entry, platform, wheels) for name, entry in sorted(resolved.items())]
    head = f"# {PARTS[part]}: {platform.words}, Python {PYTHON}. Made by tools/lock_runtime.py.\n"
    head += "# After each checksum: bytes to fetch, bytes once installed, and how it is published.\n"
    if any(package.name.startswith("nvidia-") for package in packages):
        head += "# With NVIDIA's libraries: for indexes that have no build of PyTorch for processors alone.\n"
    write_text(lock_file(part, platform, PYTHON), head + "".join(f"{package.line}\n" for package in packages))
    sizes = [sum(sizes) / 1e6 for sizes in zip(*((p.bytes, p.installed_bytes) for p in packages), strict=True)]
    print(
        f"{part} {platform.name}: {len(packages)} packages, {sizes[0]:.0f} MB, installed {sizes[1]:.0f} MB", flush=True
    )


def lock_lean(part: str, platform: Platform, others: list[dict]) -> None:
    """Write the lean lock of ``part`` beside its lock: ``others`` instead of the packages of these names, and without
    the libraries that only the larger ones need. They are written down in needs.json, since the index that has PyTorch
    for processors alone is none that pip knows by itself."""
    replaced = [Package(o["name"], o["version"], o["sha256"], o["bytes"], o["installed_bytes"]) for o in others]
    names = {package.name for package in replaced}
    kept = [p for p in read_lock(part, platform, PYTHON).packages if not p.name.startswith(_FOR_NVIDIA)]
    packages = sorted([*replaced, *(p for p in kept if p.name not in names)], key=lambda p: p.name)
    head = f"# {PARTS[part]}, for processors alone: {platform.words}, Python {PYTHON}. Made by tools/lock_runtime.py.\n"
    write_text(lock_file(part, platform, PYTHON, is_lean=True), head + "".join(f"{p.line}\n" for p in packages))


def fetched(name: str, entry: dict, platform: Platform, wheels: Path) -> Package:
    """Return what is to be written down about one resolved package, whose file is fetched to ``wheels``."""
    version = entry["metadata"]["version"]
    place = entry["download_info"]
    is_source = "/sources/" in place["url"]
    if is_source:
        report = wheels / "source.json"
        pip(
            {}, "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--no-binary", name,
            "--report", str(report), f"{name}=={version}",
        )  # fmt: skip
        place = json.loads(report.read_text(encoding="utf-8"))["install"][0]["download_info"]
        report.unlink()
    checksum = place["archive_info"]["hashes"]["sha256"]
    file = wheels / place["url"].rpartition("/")[2].partition("#")[0].replace("%2B", "+")
    if not file.is_file() or sha256(file) != checksum:
        line = wheels / "one.txt"
        line.write_text(f"{name}=={version} --hash=sha256:{checksum}\n")
        how = ["--no-binary", name] if is_source else ["--only-binary=:all:", *platform.pip_options(PYTHON)]
        options = ["--quiet", "--no-deps", "--no-cache-dir", "--require-hashes", "--dest", str(wheels)]
        if is_source:
            # Metadata would be built, for which pip wants build tools without checksums; the file itself is enough.
            options.remove("--require-hashes")
            line.write_text(f"{name}=={version}\n")
        pip(platform.markers, "download", *options, *how, "--requirement", str(line))
        line.unlink()
    if sha256(file) != checksum:
        raise SystemExit(f"{file.name} is not what its index says")
    size = file.stat().st_size
    return Package(name, version, checksum, size, size * _UNPACKED if is_source else _unpacked(file), is_source)


def _unpacked(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def pip(markers: dict[str, str], *arguments: str) -> None:
    """Run pip as if on the platform of ``markers``."""
    subprocess.run([sys.executable, "-c", _PIP, json.dumps(markers), *arguments], check=True)


if __name__ == "__main__":
    main()
