"""Files from strangers: what they may not do here. Archives and cards of models are in test_registry_refused."""

from __future__ import annotations

import ast
import csv
import gzip
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from grids import phantom, write_dicom

from CMBDetectorLib.candidate import Candidate, Detection
from CMBDetectorLib.errors import BadInputError, ModelError
from CMBDetectorLib.files import harmless_cell, write_table
from CMBDetectorLib.image_headers import MOST_VOXELS
from CMBDetectorLib.models.hd_bet import WEIGHTS_VARIABLE, check_plans, install_weights
from CMBDetectorLib.review.export import write_review_table
from CMBDetectorLib.review.finding import State
from CMBDetectorLib.review.review import Review
from CMBDetectorLib.volume import Volume, read_volume

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*sorted((ROOT / "CMBDetectorLib").rglob("*.py")), *sorted((ROOT / "CMBDetector").glob("*.py"))]
# Only the set-up that a user has asked for may go to the network.
SET_UP = ROOT / "CMBDetectorLib" / "runtime"
NETWORK = {
    "socket", "ssl", "urllib.request", "urllib3", "http", "http.client", "requests", "httpx", "aiohttp", "ftplib",
    "smtplib", "telnetlib", "webbrowser", "xmlrpc", "websocket", "websockets",
}  # fmt: skip
# What runs what it reads.
RUNNING = {"marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml", "xml.etree.ElementTree", "imp"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "torch.load", "pickle.load",
    "pickle.loads", "pickle.Unpickler", "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(tree: ast.AST, may_use_network: bool = False) -> list[str]:
    """Return what the source does that no file of this program may do."""
    found = []
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [module for module in modules if module in RUNNING]
        found += [module for module in modules if module in NETWORK and not may_use_network]
        if not isinstance(node, ast.Call):
            continue
        name, words = name_of(node.func), {word.arg: word.value for word in node.keywords}
        found += [name] if name in CALLS else []
        shell = words.get("shell")
        found += ["shell"] if shell is not None and getattr(shell, "value", True) is not False else []
        pickled = words.get("allow_pickle")
        found += ["allow_pickle"] if pickled is not None and getattr(pickled, "value", True) is not False else []
        if name.endswith("load_model") and getattr(words.get("safe_mode"), "value", None) is not True:
            found.append("load_model without safe mode")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_what_it_reads_or_goes_to_the_network(path):
    assert faults(ast.parse(path.read_text(encoding="utf-8")), path.is_relative_to(SET_UP)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import socket", "from urllib import request", "import requests", "import yaml", "eval('1')",
        "subprocess.run('x', shell=True)", "subprocess.Popen(c, shell=wish)", "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=wish)", "pickle.load(f)", "torch.load(f)", "keras.saving.load_model(p)",
        "load_model(p, safe_mode=False)", "os.system('x')", "tempfile.mktemp()",
    ],
)  # fmt: skip
def test_the_look_at_the_sources_would_notice(source):
    assert faults(ast.parse(source))


# Headers


def nifti(dim, pixdim=(1, 0.5, 0.5, 1, 1, 1, 1, 1), offset=352.0, datatype=4, bits=16, body=bytes(10_000)) -> bytes:
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *dim)
    struct.pack_into("<2h", header, 70, datatype, bits)
    struct.pack_into("<8f", header, 76, *pixdim)
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(4) + body


def nifti2(size: int) -> bytes:
    header = bytearray(540)
    struct.pack_into("<i8s2h8q", header, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16, 3, size, size, size, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 0.01, 0.01, 0.01, 1, 1, 1, 1)
    struct.pack_into("<q", header, 168, 544)
    return bytes(header) + bytes(10_000)


def nrrd(size: int, encoding="raw", more="") -> bytes:
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {size} {size} {size}\nencoding: {encoding}\nendian: little\n"
    return (head + more + "\n").encode() + bytes(10_000)


def meta(size: int, data="LOCAL") -> bytes:
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {size} {size} {size}\nElementType = MET_SHORT\n"
    return f"{head}ElementSpacing = 0.01 0.01 0.01\nElementDataFile = {data}\n".encode() + bytes(10_000)


CLAIMS = {
    "a.nii": nifti((3, 10_000, 10_000, 10_000, 1, 1, 1, 1)),
    "a.nii.gz": gzip.compress(nifti((3, 10_000, 10_000, 10_000, 1, 1, 1, 1))),
    "echoes.nii.gz": gzip.compress(nifti((4, 30_000, 30_000, 10_000, 30_000, 1, 1, 1))),
    "below the limit.nii": nifti((3, 800, 800, 800, 1, 1, 1, 1), datatype=64, bits=64),
    "offset.nii": nifti((3, 20, 20, 20, 1, 1, 1, 1), offset=1e30),
    "no offset.nii.gz": gzip.compress(nifti((3, 20, 20, 20, 1, 1, 1, 1), offset=float("nan"))),
    "two.nii": nifti2(10_000),
    "a.nrrd": nrrd(10_000),
    "packed.nrrd": nrrd(10_000, "gzip"),
    "below the limit.nrrd": nrrd(800),
    "overflow.nrrd": nrrd(1 << 62),
    "a.mha": meta(10_000),
    "below the limit.mha": meta(800),
}


def test_small_files_that_claim_much_are_refused_unread(tmp_path):
    for name, data in CLAIMS.items():
        (tmp_path / name).write_bytes(data)
    # 1 GB more than the program itself: whatever is allocated for a claim ends in another error.
    program = (
        "import json, resource, sys, time\nfrom pathlib import Path\n"
        "from CMBDetectorLib.errors import BadInputError\nfrom CMBDetectorLib.volume import read_grid, read_volume\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        "told = {}\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    for read in (read_volume, read_grid):\n"
        "        try:\n            read(path); told[path.name + read.__name__] = 'read'\n"
        "        except BadInputError as error: told[path.name + read.__name__] = error.message\n"
        "        except BaseException as error: told[path.name + read.__name__] = f'!{type(error).__name__}: {error}'\n"
        "print(json.dumps(told))\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is limited as on Linux")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert len(told) == 2 * len(CLAIMS)
    for name, message in told.items():
        # A header alone takes no memory: what lies below the limit is refused once the voxels are wanted.
        if name.endswith("read_grid") and "offset" in name:
            continue
        assert message != "read", name
        assert not message.startswith("!"), (name, message)
    huge = [told[f"{name}read_volume"] for name in ("a.nii", "a.nii.gz", "a.nrrd", "packed.nrrd", "a.mha")]
    assert all("1e+12 voxels, more than any scan" in message for message in huge), huge


def test_what_unpacks_to_more_than_its_header_says_is_not_unpacked_to_its_end(tmp_path):
    bomb = gzip.compress(nifti((3, 20, 20, 20, 1, 1, 1, 1), body=bytes(160 << 20)), 1)
    assert len(bomb) < 1 << 20
    (tmp_path / "bomb.nii.gz").write_bytes(bomb)
    with pytest.raises(BadInputError, match="longer than its header says"):
        read_volume(tmp_path / "bomb.nii.gz")


def test_the_largest_scans_that_there_are_can_be_read():
    assert MOST_VOXELS > 640 * 880 * 880


@pytest.mark.parametrize("where", ["/etc/passwd", "../secret.raw", "link.raw", "sub/../../secret.raw", "fifo.raw"])
@pytest.mark.parametrize("kind", ["nhdr", "nrrd", "mhd", "mha", "list", "numbered"])
def test_headers_may_not_name_files_elsewhere(tmp_path, where, kind):
    folder = tmp_path / "scan"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(bytes(20**3 * 2))
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    os.mkfifo(folder / "fifo.raw")
    if kind in ("nhdr", "nrrd"):
        path, data = folder / f"a.{kind}", nrrd(20, more=f"data file: {where}\n")
    elif kind == "list":
        path, data = folder / "a.nhdr", nrrd(20, more=f"Data File: LIST\n{where}\n")
    elif kind == "numbered":
        if not where.startswith(".."):
            pytest.skip("a pattern of names in one folder")
        path, data = folder / "a.mhd", meta(20, "../s%02d.raw 1 20 1")
    else:
        path, data = folder / f"a.{kind}", meta(20, where)
    path.write_bytes(data[:-10_000])
    with pytest.raises(BadInputError, match="lie in another folder, or in no file"):
        read_volume(path)


def test_headers_may_name_the_file_beside_them(tmp_path):
    volume = phantom(spacing=(1.0, 1.0, 2.0))
    slices = np.moveaxis(np.asarray(volume.array, "<i2"), 2, 0)
    for number, plane in enumerate(slices, 1):
        (tmp_path / f"s{number:02d}.raw").write_bytes(np.ascontiguousarray(plane.T).tobytes())
    i, j, k = volume.shape
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {i} {j} {k}\nElementType = MET_SHORT\nElementSpacing = 1 1 2\n"
    (tmp_path / "numbered.mhd").write_text(f"{head}ElementDataFile = s%02d.raw 1 {k} 1\n")
    np.testing.assert_array_equal(read_volume(tmp_path / "numbered.mhd").array, volume.array)
    names = "".join(f"s{number:02d}.raw\n" for number in range(1, k + 1))
    (tmp_path / "list.mhd").write_text(f"{head}ElementDataFile = LIST\n{names}")
    np.testing.assert_array_equal(read_volume(tmp_path / "list.mhd").array, volume.array)


def test_a_dicom_file_that_claims_much_is_refused_unread(tmp_path):
    volume = Volume(np.full((20, 20, 4), 7, np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))

    def claim(number, data):
        data.Rows = data.Columns = 65_535

    write_dicom(tmp_path / "many", volume, change=claim)
    with pytest.raises(BadInputError, match="more than any scan"):
        read_volume(tmp_path / "many")
    write_dicom(tmp_path / "one", volume, skip=(1, 2, 3), change=claim)
    with pytest.raises(BadInputError, match="more than any scan"):
        read_volume(tmp_path / "one")


# Tables

FORMULAS = [
    "=1+1", "+1", "-1+2", "@SUM(1)", " =1", '"=1+1"', "'=1", "\t=1", "\r=1", "\ufeff=1", "\u200b=1", "\uff1d1+1",
    'x;=HYPERLINK("evil")', "x; +1", 'x;"=1"', "a|@b", "-cmd|' /C calc'!A0", "=1\n+2",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_no_cell_can_be_run(tmp_path, text, ending):
    write_table(tmp_path / f"t.{ending}", ["number", "text"], [{"number": -1.5, "text": text}])
    raw = (tmp_path / f"t.{ending}").read_text(encoding="utf-8")
    # However the file is taken apart: as it is meant, and as spreadsheets in other countries do.
    for delimiter in ("," if ending == "csv" else "\t", ";", "|"):
        for row in csv.reader(raw.splitlines(), delimiter=delimiter):
            for cell in row:
                bare = cell.strip(" \t\"'\ufeff\u200b") if not cell.strip().startswith("'") else "'"
                is_number = re.fullmatch(r"-\d+(\.\d+)?([,\t].*)?", bare)
                assert is_number or not bare.startswith(("=", "+", "-", "@", "\uff1d")), (delimiter, cell)
    assert raw.splitlines()[1].startswith("-1.5")


def test_harmless_cells_stay_as_they_are():
    for text in ("plain", "a, b; c", "lobar-deep", "-1.5", "-2e-3", "1-2", "Müller", "a=b", "x@y.org", ""):
        assert harmless_cell(text) == text


def test_what_readers_write_cannot_be_run(tmp_path):
    detection = Detection(
        {"name": "=1+1"},
        {"name": "=cmd", "version": "+1", "checksum": "@x"},
        {"threshold": 0.5},
        [Candidate("=c1", (-1.5, 2.0, -3.0), 0.9, 0.9, 3.0)],
    )
    review = Review(detection, "@reader")
    review.judge("=c1", State.ACCEPTED)
    review.comment("=c1", 'seen; "=HYPERLINK(1)"')
    write_review_table(tmp_path / "t.csv", review)
    (row,) = csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8"))
    assert (row["id"], row["reader"], row["model_name"], row["model_version"]) == ("'=c1", "'@reader", "'=cmd", "'+1")
    assert row["comment"] == 'seen;\' "=HYPERLINK(1)"'
    assert (row["x_ras_mm"], row["z_ras_mm"]) == ("-1.5", "-3")


# HD-BET's weights


@pytest.mark.parametrize(
    "plans",
    [
        {"network_class_name": "subprocess.Popen", "arch_kwargs": {"args": "x"}},
        {"network_class_name": "os.system"},
        {"network_class_name": ["a"]},
        {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {"conv_op": "os.system"},
            "_kw_requires_import": ["conv_op"],
        },
    ],
)
def test_plans_that_call_something_else_than_networks_are_refused(tmp_path, monkeypatch, plans):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("dataset.json", json.dumps({"labels": {}}))
        archive.writestr("plans.json", json.dumps({"configurations": {"3d_fullres": {"architecture": plans}}}))
        archive.writestr("fold_all/checkpoint_final.pth", b"PK\x05\x06" + bytes(18))
    with pytest.raises(ModelError, match="something else than a network"):
        install_weights(tmp_path / "w.zip")
    assert not (tmp_path / "weights").exists()
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="something else than a network"):
        check_plans(tmp_path)


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.skipif(importlib.util.find_spec("HD_BET") is None, reason="HD-BET is not installed")
def test_a_checkpoint_with_a_program_in_it_is_refused_and_one_with_numbers_is_not(tmp_path):
    import torch
    from test_hd_bet import write_model

    from CMBDetectorLib.preprocessing.hd_bet_process import _allow_numbers_only

    write_model(tmp_path / "weights")
    path = tmp_path / "weights" / "fold_all" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    log = {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epochs": np.int64(3), "dice": np.zeros(2)}
    torch.save({**content, "logging": log, "_best_ema": np.float64(0.9)}, tmp_path / "numbers.pth")
    torch.save({**content, "logging": Evil(str(tmp_path / "evil"))}, tmp_path / "evil.pth")
    _allow_numbers_only(torch)
    try:
        read = torch.load(tmp_path / "numbers.pth", weights_only=False)
        assert read["_best_ema"] == np.float64(0.9)
        assert read["logging"]["epochs"] == 3
        import pickle

        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "evil.pth", weights_only=False)
    finally:
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        torch.serialization.clear_safe_globals()
    assert not (tmp_path / "evil").exists()
    # It would have been made.
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "evil").is_dir()
