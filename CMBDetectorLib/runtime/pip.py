"""pip in a process of its own: watched, stopped with all it started, and its failures turned into sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from CMBDetectorLib.errors import NotOfferedError, OutputError, SetUpError
from CMBDetectorLib.processes import kill_group, kill_tree
from CMBDetectorLib.runtime.interpreter import LIBRARY
from CMBDetectorLib.runtime.place import PACKAGES_VARIABLE

_LOOK_S = 0.2
_TAIL = 20_000
_NO_CONSTRAINTS = "no-constraints.txt"
_ADDRESS = re.compile(r"\b\w+://\S+")
_FOLDER_INSTEAD = 'Or set up from a folder of wheels (docs/installation.md, "without a network").'
# The first that fits counts: without a network, pip says at the end that it has found no such package.
_CAUSES = (
    (r"No module named '?pip\b", "pip is missing in this Python.", "Install it: python -m ensurepip"),
    (
        r"No space left on device|Errno 28|not enough space",
        "The disk is full: the packages were not fetched.",
        "Free some space; what was fetched is kept, so that the next try goes on from there.",
    ),
    (
        r"DO NOT MATCH THE HASHES|HashMismatch|Hash mismatch",
        "A file that was fetched is not the one that was locked (wrong checksum); it was thrown away.",
        "Try again; if it happens again, ask who runs your network whether it changes what is fetched.",
    ),
    (
        r"ProxyError|Proxy Authentication|Tunnel connection failed|\b407\b",
        "The proxy of your network refuses the connection.",
        "Ask for its address and name it to pip (pip config set global.proxy …), or in HTTPS_PROXY. " + _FOLDER_INSTEAD,
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
        "The package index could not prove who it is: a firewall may be looking into connections.",
        "Ask for its certificate and name it to pip (pip config set global.cert FILE). " + _FOLDER_INSTEAD,
    ),
    (
        r"name resolution|Name or service not known|getaddrinfo|NewConnectionError|Connection refused|ConnectTimeout"
        r"|Network is unreachable|No route to host|timed out|ReadTimeout|NameResolutionError|Connection reset"
        r"|Connection broken|IncompleteRead|RemoteDisconnected",
        "There is no connection to the package index.",
        "Check the network and try again: what was fetched is kept. " + _FOLDER_INSTEAD,
    ),
    (
        r"\b(?:401|403)\b.*(?:Client )?Error|Forbidden|Unauthorized",
        "The package index refuses to give packages out.",
        "Ask who runs your network. " + _FOLDER_INSTEAD,
    ),
)
_ABSENT = re.compile(r"No matching distribution found for ([\w.-]+)==([\w.+!-]+)")


def run_pip(
    arguments: Sequence[str],
    work: Path,
    paths: Sequence[Path] = (),
    alone: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run ``pip ARGUMENTS`` and return when it has ended well.

    Args:
        arguments: what stands behind ``pip``.
        work: a folder for its temporary files.
        paths: folders of packages that it may import (setuptools, to build with).
        alone: whether the user's settings of pip are shut out; they hold the proxy and the index to fetch from.
        watch: called about every 0.2 s; an exception that it raises ends pip.

    Raises:
        NotOfferedError: the index has no such package.
        SetUpError: pip failed otherwise, or is missing.
        OutputError: the disk is full.
    """
    with tempfile.TemporaryFile(dir=work) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "CMBDetectorLib.runtime.pip_process", *arguments],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=_environment(work, paths, alone),
            cwd=work, **_apart(),
        )  # fmt: skip
        try:
            while process.poll() is None:
                watch()
                time.sleep(_LOOK_S)
            watch()
        finally:
            with suppress(OSError):
                process.stdin.close()
            if process.poll() is None:
                kill_tree(process.pid)
            kill_group(process.pid)
            process.wait()
        if process.returncode:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _TAIL))
            raise explained(log.read().decode("utf-8", errors="replace"), process.returncode)


def explained(log: str, code: int) -> SetUpError | OutputError:
    """Return as a sentence why pip ended with exit code ``code``; ``log`` is the end of what it wrote."""
    for pattern, message, hint in _CAUSES:
        if re.search(pattern, log):
            return (OutputError if "disk" in message else SetUpError)(message, hint)
    absent = _ABSENT.findall(log)
    if absent:
        told = ", ".join(f"{name} {version}" for name, version in absent[:3])
        return NotOfferedError(f"Your package index does not offer {told} for this computer.", _FOLDER_INSTEAD)
    lines = [line for line in log.splitlines() if line.strip()]
    # Of a crash the last line says most.
    if "ERROR: Exception:" not in lines:
        lines = [line for line in lines if line.strip().startswith(("ERROR:", "error:"))] or lines
    # An address may hold a password.
    last = _ADDRESS.sub("…", lines[-1].strip().removeprefix("ERROR:").strip())[:200] if lines else f"exit code {code}"
    return SetUpError(f"pip failed: {last.rstrip('.')}.", "Try again with --verbose and report what it prints.")


def _environment(work: Path, paths: Sequence[Path], alone: bool) -> dict[str, str]:
    environment = dict(os.environ)
    # What is set up must not be taken for what pip itself runs on.
    own = environment.pop(PACKAGES_VARIABLE, "").split(os.pathsep)
    inherited = [name for name in environment.get("PYTHONPATH", "").split(os.pathsep) if name and name not in own]
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), str(LIBRARY), *inherited])
    (work / _NO_CONSTRAINTS).write_text("")
    if alone:
        for name in [name for name in environment if name.startswith("PIP_")]:
            del environment[name]
        environment["PIP_CONFIG_FILE"] = os.devnull
    # A user's constraints belong to other environments: they would forbid versions that are locked. The name is that of
    # a file in the working folder, since pip takes a blank in a path for the end of it.
    environment["PIP_CONSTRAINT"] = _NO_CONSTRAINTS
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_NO_COLOR": "1", "PIP_PROGRESS_BAR": "off"}
    plain = {"PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8", "PYTHONNOUSERSITE": "1"}
    return {**environment, **quiet, **plain, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}


def _apart() -> dict[str, object]:
    """Return what Popen needs so that pip and what it starts can be ended as one."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
