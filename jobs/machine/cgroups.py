"""The cgroups that this process is in, whose limits hold for it together with those of all their parents."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def own_cgroups() -> str:
    """The content of /proc/self/cgroup; the root where there is none."""
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return "0::/"


def with_parents(root: Path, path: str) -> list[Path]:
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
