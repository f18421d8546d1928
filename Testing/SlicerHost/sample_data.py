"""Stand-in for the module ``SampleData``: keeps what modules register, downloads nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

#: By category, what was registered.
sources: dict[str, list[SimpleNamespace]] = {}


class SampleDataLogic:
    """Takes the registrations of sample data."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: str | list[str] | None = None,
        fileNames: str | list[str] | None = None,
        nodeNames: str | list[str] | None = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: str | list[str] | None = None,
        loadFiles: bool | None = None,
        loadFileProperties: dict[str, Any] | None = None,
        checksums: str | list[str] | None = None,
    ) -> None:
        """Remember one data set; one of the same name replaces the earlier."""
        given = dict(locals())
        for name in ("uris", "fileNames", "nodeNames", "checksums", "loadFileTypes"):
            if isinstance(given[name], str):
                given[name] = [given[name]]
        kept = [source for source in sources.get(category, []) if source.sampleName != sampleName]
        sources[category] = [*kept, SimpleNamespace(**given)]
