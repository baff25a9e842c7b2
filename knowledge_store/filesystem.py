"""Whether a file system can carry an SQLite store: several processes must share its memory map and its locks.

Not here: what SQLite itself says when a disk fails (``database.py``).
"""

import os
from pathlib import Path

from knowledge_store.errors import StoreUnavailable, UnsafeLocation

_UNSAFE = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "vboxsf",
    "drvfs",
    "afs",
    "ceph",
    "glusterfs",
    "virtiofs",
    "lustre",
}
"""Network file systems, and the ways by which virtual machines and desktop container engines share a folder."""


def check_location(path: Path, mounts: str | None = None) -> None:
    """Check that a store can live at `path`; `mounts` is the text of ``/proc/self/mounts``, read where not given.

    Raises:
        UnsafeLocation: the file system does not keep SQLite's write-ahead log safe.
        StoreUnavailable: there is no such folder, or `path` is a folder.
    """
    if not path.parent.is_dir():
        raise StoreUnavailable(f"there is no folder {os.fspath(path.parent)!r} for the store; make it first")
    if path.is_dir():
        raise StoreUnavailable(f"{path.name!r} is a folder; name a file in it for the store")
    if mounts is None:
        table = Path("/proc/self/mounts")
        mounts = table.read_text(errors="replace") if table.exists() else ""
    kind = kind_at(path.parent.resolve(), mounts)
    if kind in _UNSAFE or kind.startswith("fuse."):
        raise UnsafeLocation(
            f"the store would lie on a file system of kind {kind!r}, which loses SQLite's write-ahead log: put it on a "
            "local disk (with containers, on a named volume, not on a folder of the host), or use postgresql://…"
        )


def kind_at(folder: Path, mounts: str) -> str:
    """Give the kind of the file system that holds `folder`, or "" if `mounts` doesn't say."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind
