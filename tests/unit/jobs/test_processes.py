"""Killing of process trees."""

import subprocess

import psutil

from run_batch.jobs.machine.processes import kill_tree


def test_a_process_is_killed_with_all_its_descendants() -> None:
    # The innermost shell says that all of them run.
    script = "bash -c 'sleep 60 & bash -c \"echo ready; sleep 60; :\"; :'; :"
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True) as root:
        assert root.stdout is not None and root.stdout.readline() == "ready\n"
        descendants = psutil.Process(root.pid).children(recursive=True)
        assert len(descendants) >= 3
        kill_tree(root.pid)
        _, alive = psutil.wait_procs(descendants, timeout=10)
        assert alive == [] and root.wait(10) == -9


def test_a_tree_whose_root_has_ended_is_left_alone() -> None:
    root = subprocess.Popen(["true"])
    while psutil.Process(root.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    kill_tree(root.pid)
    root.wait()
    kill_tree(root.pid)
