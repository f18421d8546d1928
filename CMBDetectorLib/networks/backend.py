"""Loading and running Keras models, and the errors of the back end in the project's own words."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from CMBDetectorLib.errors import Cancelled, MissingPackageError, ModelError, OutOfMemoryError, is_out_of_memory
from CMBDetectorLib.models.keras_file import check_network


def prefer_torch() -> None:
    """Choose PyTorch as the back end where it is installed, before Keras is imported: call it before a training.

    On a processor its gradients of 3D convolutions are about four times faster than TensorFlow's
    (``benchmarks/training.py``). It comes with HD-BET, so most installations have it; KERAS_BACKEND overrides this.
    """
    if "keras" not in sys.modules and importlib.util.find_spec("torch") is not None:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        # Threads that wait by spinning take the processor from Slicer and from each other.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def channels_first() -> bool:
    """Tell whether networks are built with the channels before the voxels: the order in which PyTorch is fast."""
    prepare()
    import keras

    return bool(keras.backend.backend() == "torch")


@contextmanager
def mixed_precision() -> Iterator[None]:
    """Let what is inside train with convolutions in bfloat16, weights and sums in float32, where that is faster.

    That is with PyTorch on a processor with bfloat16 instructions: a step then takes about 0.6 of the time
    (``benchmarks/training.py``). CMBDETECTOR_FLOAT32=1 keeps float32 everywhere, for a training that is to be repeated
    on another processor.
    """
    if not channels_first() or os.environ.get("CMBDETECTOR_FLOAT32") == "1":
        yield
        return
    import torch

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_has_bfloat16()):
        yield


def _has_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 by itself; emulated it would be slower."""
    import torch

    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(ask() for ask in asked if ask is not None)


def prepare() -> None:
    """Import Keras quietly; call before the first use of a network.

    Raises:
        MissingPackageError: Keras or its back end is not installed.
        OutOfMemoryError: there is not even memory to load it.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of each new shape of a tile; tiles differ on purpose.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        import keras  # noqa: F401
    except ImportError as error:
        if is_out_of_memory(error):
            raise _no_memory() from error
        raise MissingPackageError(
            f"The package {error.name or 'tensorflow'} is not installed.", "Run: pip install cmbdetector"
        ) from error


def set_seed(seed: int) -> None:
    """Make what follows repeatable: seeds of Python, numpy and the back end, and deterministic operations."""
    prepare()
    import keras

    keras.utils.set_random_seed(seed % 2**32)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


def load(path: Path) -> Any:
    """Return the Keras model saved at ``path``, for inference; code inside the file is never run.

    Raises:
        ModelError: the file is missing, damaged or holds more than networks of this program.
        OutOfMemoryError: it does not fit into memory.
    """
    prepare()
    import keras

    # Safe mode alone was got round before; of a model given by its folder nobody has looked at the inside yet.
    check_network(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Cancelled:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise _no_memory() from error
        raise ModelError(f"The network {path.name} cannot be loaded.", "Install the model again.") from error


def peak_rate(size: int = 4096) -> float:
    """Return the best rate of a float32 matrix product of ``size`` on this machine, in operations a second."""
    prepare()
    from keras import ops, random

    matrix = random.normal((size, size))
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        ops.convert_to_numpy(ops.matmul(matrix, matrix)[:1, :1])
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


@contextmanager
def memory_guard() -> Iterator[None]:
    """Turn the back end's ways of saying "no memory" into an :class:`OutOfMemoryError`."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise _no_memory() from error
        raise


def _no_memory() -> OutOfMemoryError:
    return OutOfMemoryError("There is not enough memory for this scan.", "Close other programs, or crop the scan.")
