"""What the panel remembers in the scene: saved, loaded and restored with it.

No ``from __future__ import annotations`` here: the wrapper reads the types.
"""

from typing import Annotated

import slicer
from slicer.parameterNodeWrapper import Default, parameterNodeWrapper


@parameterNodeWrapper
class CMBDetectorParameterNode:
    """Inputs of the detection and what is under review.

    ``brainMask`` is "auto", "hd-bet", "simple", "none" or "node" (then ``maskNode``, a segmentation or label map);
    ``model`` the name or folder of a bundle, "" the default; ``currentFinding`` the id under review.
    """

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    brainMask: Annotated[str, Default("auto")]
    maskNode: slicer.vtkMRMLDisplayableNode
    model: Annotated[str, Default("")]
    currentFinding: Annotated[str, Default("")]
