"""CMBDetector as 3D Slicer loads it: module, widget, logic and self-test. Everything else is in CMBDetectorLib."""

import sys
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

try:
    import CMBDetectorLib
except ModuleNotFoundError:
    # In a checkout the library lies one folder up; once installed, beside this file.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import CMBDetectorLib

RESOURCES = Path(CMBDetectorLib.__file__).resolve().parents[1] / "Resources"


class CMBDetector(ScriptedLoadableModule):
    """What the application shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("CMBDetector")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Neuroimaging")]
        parent.dependencies = []
        parent.contributors = ["The CMBDetector developers"]
        parent.helpText = _(
            "Finds candidates of cerebral microbleeds in SWI and T2*-weighted MRI and lets a reader judge them. "
            "Research use only, <b>not for clinical use</b>: the bundled networks learnt from simulated scans. "
            "See the <a href='https://github.com/CMBDetector/SlicerCMBDetector'>documentation</a>."
        )
        parent.acknowledgementText = _(
            "Method: L. Rau, O. Granert, N. G. Margraf, S. Schneider, U. Jensen-Kondering: A Two-Stage Localization "
            "and Refinement Neural Network Structure for Data-Efficient Microbleed Detection, 2026."
        )
        icon = RESOURCES / "Icons" / "CMBDetector.png"
        if icon.is_file():
            import qt

            parent.icon = qt.QIcon(str(icon))
        slicer.app.connect("startupCompleted()", register_sample_data)
        slicer.app.connect("startupCompleted()", register_layout)


def register_sample_data():
    """Offer the simulated scan in the Sample Data module; it is made on the spot, nothing is downloaded."""
    try:
        import SampleData
    except ImportError:
        return
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="CMBDetector",
        sampleName="Simulated SWI with microbleeds",
        uris="",
        fileNames="",
        nodeNames="Simulated SWI",
        thumbnailFileName=str(RESOURCES / "Icons" / "SampleSWI.png"),
        customDownloader=make_sample,
    )


def register_layout():
    """Make the layout for reviewing known: a scene that was saved with it would open without any view."""
    if slicer.app.layoutManager() is not None:
        from CMBDetectorLib.gui.slice_views import register_review_layout

        register_review_layout()


def make_sample(source=None):
    """Open the module and let it make the sample in the background."""
    slicer.util.selectModule("CMBDetector")
    slicer.util.getModuleWidget("CMBDetector").panels.load_sample()


class CMBDetectorWidget(ScriptedLoadableModuleWidget):
    """The panel; hands everything to ``CMBDetectorLib.gui``."""

    def __init__(self, parent=None):
        self.panels = None
        self.logic = None
        self._is_entered = False
        super().__init__(parent)

    def setup(self):
        super().setup()
        from CMBDetectorLib.gui.module_widget import ModulePanels

        self.logic = CMBDetectorLogic()
        self.panels = ModulePanels(self.layout, self.logic.getParameterNode)
        self._quit = self.cleanup
        slicer.app.connect("aboutToQuit()", self._quit)

    def enter(self):
        self._is_entered = True
        if self.panels is not None:
            self.panels.enter()

    def exit(self):
        self._is_entered = False
        if self.panels is not None:
            self.panels.exit()

    def cleanup(self):
        if self.panels is not None:
            slicer.app.disconnect("aboutToQuit()", self._quit)
            self.panels.close()
            self.panels = None

    def onReload(self):
        """Reload the library with the module: a developer changes the one as often as the other."""
        for name in [name for name in sys.modules if name.split(".")[0] == "CMBDetectorLib"]:
            del sys.modules[name]
        super().onReload()
        # Slicer makes the new panel, but does not tell it that the user is looking at it.
        if self._is_entered:
            slicer.util.getModuleWidget(self.moduleName).enter()


class CMBDetectorLogic(ScriptedLoadableModuleLogic):
    """Gives the typed parameter node; the work is done by ``CMBDetectorLib.gui.detection.DetectionLogic``."""

    def getParameterNode(self):
        from CMBDetectorLib.gui.parameter_node import CMBDetectorParameterNode

        return CMBDetectorParameterNode(super().getParameterNode())


class CMBDetectorTest(ScriptedLoadableModuleTest):
    """The self-test: loads a scan, detects with the real worker, reviews, exports. Runs in Slicer and in the host."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        from CMBDetectorLib.gui.self_test import run_self_test

        self.setUp()
        run_self_test(self.delayDisplay)
