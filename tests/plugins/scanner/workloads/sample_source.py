"""A sample: documents that name one image."""

from __future__ import annotations

from collections.abc import Sequence

from scanner.model.workload import Workload
from scanner.workloads._documents import Document
from scanner.workloads.base import Files, Node, NodeOrigin, WorkloadSource


class SampleSource(WorkloadSource):
    """``{"sampleImage": "registry.example.com/app:1"}``."""

    id = "sample-source"
    title = "Sample source"

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        return isinstance(document.value, dict) and "sampleImage" in document.value

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``."""
        return tuple(self._workload(Node(document)) for document in documents)

    def _workload(self, node: Node) -> Workload:
        image = node.mapping().get("sampleImage").text()
        if not image:
            raise node.error("must name an image in sampleImage")
        return Workload(source=self.id, name="sample", image=image, origin=NodeOrigin(node, {}, {}))
