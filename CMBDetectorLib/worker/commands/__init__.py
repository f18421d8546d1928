"""The commands of ``cmbdetector``, one module each: ``add_parser`` declares it, ``run`` does it.

``run(options, listener)`` returns the data of the result event and the text for a terminal.
"""

from CMBDetectorLib.worker import runtime_command
from CMBDetectorLib.worker.commands import (
    convert,
    dataset,
    detect,
    doctor,
    evaluate,
    export,
    models,
    preprocess,
    retrain,
    simulate,
    train,
)

COMMANDS = (
    detect, preprocess, simulate, train, evaluate, export, dataset, retrain, convert, models, runtime_command, doctor,
)  # fmt: skip
