"""What a layer holds, in sizes: its largest files and directories. Evidence keeps these, not the list of all files."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from scanner.model.filesystem import FileEntry, FileType, Rootfs
from scanner.model.image import MOST_PATHS, PathSize

_FILE = FileType.FILE  # a global is found faster than a member of an enumeration
_INVISIBLE = 500  # a file below this part of its layer is never among the largest that a person looks for


def largest(entries: Sequence[FileEntry], most: int = MOST_PATHS) -> tuple[PathSize, ...]:
    """Return the ``most`` largest files and directories, each directory before its content.

    A directory is opened only after all larger ones, so the result is the top of the tree that matters for the size.
    """
    files = {e.path: e.size for e in entries if e.type is _FILE}  # a later duplicate replaces the former
    threshold = sum(files.values()) // _INVISIBLE
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    below: dict[str, list[PathSize]] = defaultdict(list)
    for path, size in files.items():
        directory = path.rpartition("/")[0]
        own = sizes[directory]
        own[0] += size
        own[1] += 1
        if size and size >= threshold:
            below[directory].append(PathSize(path, size))
    # Deepest first, so that a directory is complete before it is added to its parent.
    for directory in sorted(_with_parents(sizes), key=lambda path: path.count("/"), reverse=True):
        if directory:
            size, count = sizes[directory]
            parent = directory.rpartition("/")[0]
            sizes[parent][0] += size
            sizes[parent][1] += count
            if size and size >= threshold:
                below[parent].append(PathSize(directory, size, count, directory=True))
    found: list[PathSize] = []
    waiting = [(-item.size, item.path, item) for item in below[""]]
    heapq.heapify(waiting)
    while waiting and len(found) < most:
        item = heapq.heappop(waiting)[2]
        found.append(item)
        for child in below[item.path] if item.directory else ():
            heapq.heappush(waiting, (-child.size, child.path, child))
    return tuple(found)


def count(entries: Sequence[FileEntry]) -> int:
    """Return the number of files: no directories, links or devices."""
    return sum(1 for entry in entries if entry.type is _FILE)


def hidden_bytes(rootfs: Rootfs) -> dict[int, int]:
    """Return the bytes of each layer, by its index, that a later layer deletes or replaces."""
    wasted: dict[int, int] = defaultdict(int)
    for placed, _ in rootfs.hidden:
        if placed.entry.type is _FILE and placed.origin is None:
            wasted[placed.layer] += placed.entry.size
    return wasted


def _with_parents(directories: dict[str, list[int]]) -> set[str]:
    """Add the directories that contain only directories."""
    found: set[str] = set()
    for directory in directories:
        while directory not in found:
            found.add(directory)
            directory = directory.rpartition("/")[0]
    return found
