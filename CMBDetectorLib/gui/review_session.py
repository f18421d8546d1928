"""A review in progress: keeps the review, its log on disk and the scene the same, whoever changes it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from CMBDetectorLib.candidate import Detection
from CMBDetectorLib.errors import BadInputError, CMBDetectorError
from CMBDetectorLib.gui import preferences
from CMBDetectorLib.gui.candidates_node import CandidatesNode
from CMBDetectorLib.gui.changed_scan import follow
from CMBDetectorLib.gui.scan_node import key_of
from CMBDetectorLib.review.carry_over import carry_over
from CMBDetectorLib.review.finding import Finding, State
from CMBDetectorLib.review.log import FoundReview, ReviewLog, find_reviews, read_review, resume
from CMBDetectorLib.review.review import Review, utc_now

_LOGGER = logging.getLogger("CMBDetector")


@dataclass
class Shown:
    """What of the review is on the screen: least score of unreviewed ones, rejected ones again, all markers."""

    threshold: float
    second_look: bool = False
    markers: bool = True
    current: str | None = None


class ReviewSession:
    """One reader's review of the candidates in ``nodes``; ``trouble`` is told what could not be kept on disk.

    Every change goes to the log first (fsync), then to the scene. Where the log cannot be written (no permission, disk
    full) the review goes on in the scene, ``trouble`` hears the sentence, and the next change tries again.
    """

    def __init__(
        self, nodes: CandidatesNode, review: Review, log: ReviewLog | None, trouble: Callable[[str], None]
    ) -> None:
        self.nodes = nodes
        self.review = review
        self.log = log
        kept = nodes.threshold
        self.shown = Shown(kept if kept is not None else float(review.detection.settings.get("threshold", 0.5)))
        self._trouble = trouble
        self._states: dict[str, State] = {f.id: f.state for f in review.findings}
        self._has_changed = False
        self._is_new_log = log is None
        if log is None:
            # Begun before the first change, so that also this one can be undone after a crash.
            try:
                self.log = self._new_log()
            except CMBDetectorError as error:
                self._tell(error)
        review.changed.append(self._on_change)
        nodes.keep(review)
        self.refresh()

    @property
    def current(self) -> str | None:
        """The id of the finding under review, ``None`` where there is none (any more)."""
        key = self.shown.current
        return key if key is not None and key in self.review else None

    def refresh(self) -> None:
        """Make everything in the scene anew."""
        self.nodes.show(self.review, self.shown.threshold, self.shown.second_look)
        self._show_current()
        self.nodes.show_markers(self.shown.markers, self.shown.second_look)

    def set_threshold(self, threshold: float) -> None:
        """Show the unreviewed candidates from this score on."""
        self.shown.threshold = threshold
        self.nodes.show_threshold(self.review, threshold)

    def set_second_look(self, on: bool) -> None:
        """Show the rejected ones again, or no longer."""
        self.shown.second_look = on
        self.nodes.show_rejected(on and self.shown.markers)

    def set_markers(self, on: bool) -> None:
        """Show or hide all markers, to see what lies under them."""
        self.shown.markers = on
        self.nodes.show_markers(on, self.shown.second_look)

    def set_current(self, key: str | None) -> None:
        """Put the ring around the finding ``key``."""
        self.shown.current = key
        self._show_current()

    def close(self) -> None:
        """Let go of the log and take the markers off the screen; the scene keeps what was said."""
        if self._on_change in self.review.changed:
            self.review.changed.remove(self._on_change)
        self.nodes.hide()
        log, self.log = self.log, None
        if log is None:
            return
        try:
            log.close()
        except CMBDetectorError as error:
            self._tell(error)
            log.close(give_up=True)
        if self._is_new_log and not self._has_changed:
            # Who only looked leaves nothing behind.
            with contextlib.suppress(OSError):
                log.path.unlink()

    def _show_current(self) -> None:
        finding = self.review[self.current] if self.current is not None else None
        self.nodes.show_current(finding, self.review, self.shown.threshold)

    def _on_change(self, finding: Finding, what: str) -> None:
        self._has_changed = True
        try:
            if self.log is None:
                # The first line of a log holds everything known so far, this change included.
                self.log = self._new_log()
            else:
                self.log.append(finding, what)
        except CMBDetectorError as error:
            self._tell(error)
        before = self._states.get(finding.id)
        self._states[finding.id] = finding.state
        self.nodes.keep(self.review, utc_now())
        self.nodes.update(finding, before, self.review, self.shown.threshold)
        if finding.id == self.shown.current:
            self._show_current()

    def _new_log(self) -> ReviewLog:
        key = self.nodes.key or key_of(self.nodes.scan)
        if not key:
            raise BadInputError(_("The scan of this review is not in the scene."), _("Load it again."))
        return ReviewLog.create(preferences.reviews_folder(), key, self.review)

    def _tell(self, error: CMBDetectorError) -> None:
        _LOGGER.warning("review log: %s", error.message)
        self._trouble(_("Not on disk yet, only in the scene: {why}").format(why=f"{error.message} {error.hint}"))


def renew(
    scan: slicer.vtkMRMLScalarVolumeNode, detection: Detection, key: str
) -> tuple[CandidatesNode, dict[str, list[Finding]]]:
    """Put the candidates of ``detection`` into the scene in place of earlier ones of the same scan.

    Returns their node and, by reader, the verdicts on the earlier candidates as far as they fit the new ones; the
    scene keeps them for every reader.
    """
    carried: dict[str, list[Finding]] = {}
    old = CandidatesNode.of_scan(scan)
    if old is not None:
        follow(old)
    before = old.detection() if old is not None else None
    if before is not None:
        same = {c.id for c in before.candidates} == {c.id for c in detection.candidates}
        for reader in old.readers():
            said = old.findings(reader)
            carried[reader] = said if same else carry_over(Review(before, reader, said), detection)
    nodes = CandidatesNode.create(scan, detection, key)
    for reader, findings in carried.items():
        nodes.keep(Review(detection, reader, findings), utc_now())
    return nodes, carried


def start(
    nodes: CandidatesNode,
    detection: Detection,
    reader: str,
    trouble: Callable[[str], None],
    findings: Iterable[Finding] = (),
) -> ReviewSession:
    """Begin a review; ``findings`` are verdicts that are there already."""
    return ReviewSession(nodes, Review(detection, reader, findings), None, trouble)


def from_scene(nodes: CandidatesNode, reader: str, trouble: Callable[[str], None]) -> ReviewSession | None:
    """Go on with what the scene holds of ``reader``'s review; ``None`` where its candidates are damaged."""
    detection = nodes.detection()
    if detection is None:
        return None
    return ReviewSession(nodes, Review(detection, reader, nodes.findings(reader)), None, trouble)


def interrupted(key: str, reader: str, session: ReviewSession | None) -> FoundReview | None:
    """Return a review of the scan ``key`` by ``reader`` that the disk holds and that knows more than ``session``.

    That is the newest one, or one with the candidates of ``session``: if it has more verdicts, or other ones that were
    given after the scene was changed last.
    """
    try:
        found = find_reviews(preferences.reviews_folder(), key)
    except CMBDetectorError as error:
        _LOGGER.warning("looking for reviews: %s", error.message)
        return None
    found = [entry for entry in found if entry.reader == reader and entry.reviewed]
    if session is None:
        return next(iter(found), None)
    known = sum(finding.is_reviewed for finding in session.review.findings)
    kept_at, model = session.nodes.last_change(reader), session.review.detection.model
    for number, entry in enumerate(found):
        if session.log is not None and entry.path == session.log.path:
            continue
        if number and entry.model_checksum != str(model.get("checksum", "")):
            continue
        if entry.reviewed > known or (entry.last_change > kept_at and _says_otherwise(entry, session.review)):
            return entry
    return None


def go_on(
    scan: slicer.vtkMRMLScalarVolumeNode, key: str, found: FoundReview, trouble: Callable[[str], None]
) -> ReviewSession:
    """Go on with a review that the disk holds; its candidates need not be in the scene. Other readers' verdicts that
    the scene holds are carried over to them.

    Raises:
        CMBDetectorError: the log is damaged, or another Slicer holds it.
    """
    review, log = resume(found.path)
    nodes, _earlier = renew(scan, review.detection, key)
    return ReviewSession(nodes, review, log, trouble)


def _says_otherwise(found: FoundReview, review: Review) -> bool:
    try:
        there = read_review(found.path)
    except CMBDetectorError:
        return False
    one, other = ({entry["id"]: entry for entry in each.as_json()} for each in (there, review))
    return one != other
