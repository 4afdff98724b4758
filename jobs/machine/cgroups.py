"""The cgroups that this process is in, whose limits hold for it together with those of all their parents."""

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def own_cgroups() -> str:
    """The content of /proc/self/cgroup; the root where there is none."""
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return "0::/"


def limit_folders(cgroups: str, mount: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """The folders that hold limits of one controller for a process: of its cgroups, and of all their parents.

    Args:
        cgroups: the content of /proc/self/cgroup.
        mount: the folder where cgroups are mounted.
        controller: such as `memory`. Where version 1 mounts several together, their names are links to that.

    Yields:
        Version, 1 or 2, and folder.
    """
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from ((2, folder) for folder in _with_parents(mount, path))
        elif controller in controllers.split(","):
            yield from ((1, folder) for folder in _with_parents(mount / controller, path))


def _with_parents(root: Path, path: str) -> list[Path]:
    """The folder of a cgroup, with those of all its parents.

    Args:
        root: the folder where the hierarchy is mounted.
        path: of the cgroup, as /proc/self/cgroup has it.
    """
    folder = root / path.lstrip("/")
    if not folder.is_dir():
        # A path of the host, read in a container: the container's own cgroup is mounted as the root.
        return [root]
    return [folder, *folder.parents][: len(folder.relative_to(root).parts) + 1]
