"""What is listed for installation is what is there; heavy packages stay out of the light rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "CMBDetectorLib"
SOURCES = sorted(LIBRARY.rglob("*.py"))
APPLICATION = {"slicer", "qt", "ctk", "vtk"}
NETWORK_ROOMS = {"networks", "detection", "training"}


def test_cmake_lists_every_file_once():
    text = (LIBRARY / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^\s+([\w/]+\.py)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(str(path.relative_to(LIBRARY).as_posix()) for path in SOURCES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_rooms_import_only_what_they_may(path):
    room = path.relative_to(LIBRARY).parts[0]
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
            assert room == "gui" or not node.module.startswith("CMBDetectorLib.gui")
    if room != "gui":
        assert not roots & APPLICATION
    if room not in NETWORK_ROOMS:
        assert not roots & {"tensorflow", "keras"}


def test_the_command_line_starts_without_heavy_packages():
    heavy = {"tensorflow", "keras", "torch", "HD_BET", "nnunetv2", "matplotlib", "nilearn"}
    code = f"import sys, CMBDetectorLib.worker.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_resources_lie_beside_the_library():
    from CMBDetectorLib.models.bundle import RESOURCES

    assert (ROOT / "Resources").resolve() == RESOURCES


def test_the_module_is_listed_and_the_index_has_what_it_asks_for():
    module = (ROOT / "CMBDetector" / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.search(r"SCRIPTS (.*)", module.replace("${MODULE_NAME}", "CMBDetector")).group(1).split()
    assert sorted(listed) == sorted(path.name for path in (ROOT / "CMBDetector").glob("*.py"))
    assert "slicer_add_python_unittest" in module
    top = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "project(CMBDetector" in top
    assert "add_subdirectory(CMBDetector)\n" in top
    for entry in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert re.search(rf'set\(EXTENSION_{entry} "[^"]+"\)', top), entry
    for url in re.findall(r'set\(EXTENSION_(?:ICON|SCREENSHOT)URLS? "([^"]+)"\)', top):
        assert (ROOT / url.split("/main/")[1]).is_file()
    assert (ROOT / "LICENSE").is_file()


def test_the_module_file_imports_nothing_heavy_when_it_is_loaded():
    tree = ast.parse((ROOT / "CMBDetector" / "CMBDetector.py").read_text(encoding="utf-8"))
    top = [node for node in ast.walk(ast.Module(tree.body, [])) if isinstance(node, ast.Import | ast.ImportFrom)]
    roots = {alias.name.split(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
    roots |= {node.module.split(".")[0] for node in top if isinstance(node, ast.ImportFrom)}
    assert roots <= {"sys", "pathlib", "slicer", "qt", "SampleData", "CMBDetectorLib"}


def test_user_interface_files_name_only_widgets_that_slicer_has():
    known = {"qMRMLWidget", "qMRMLNodeComboBox"}
    for path in (ROOT / "Resources" / "UI").glob("*.ui"):
        classes = set(re.findall(r'<widget class="(\w+)"', path.read_text(encoding="utf-8")))
        assert {name for name in classes if not name.startswith("Q")} <= known, path.name
