"""Runs the shares of a job as tasks of a Ray cluster, each with its own GPUs.

    python scripts/ray_shares.py /path/to/job.toml --shares 8 --gpus 1 --cpus 8

Requires Ray where it is started (pip install ray; run-batch itself does not need it), and run-batch and the job's
folders on all nodes. After an interruption, the same command resumes the job, with any number of shares.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import ray

RESUMABLE = (1, 74, 75)  # exit codes of run-batch after which the same command resumes


class Resumable(Exception):
    """Makes Ray restart the share, on another node if necessary."""


def run_share(command: str, config: str, index: int, count: int) -> int:
    words = [command, "--config", config, "--task-index", str(index), "--task-count", str(count)]
    code = subprocess.run(words).returncode
    if code in RESUMABLE or code < 0:
        raise Resumable(f"share {index} of {count} ended with exit code {code}")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the shares of a job as tasks of a Ray cluster.")
    parser.add_argument("config", type=Path, help="the job's job.toml")
    parser.add_argument("--shares", type=int, required=True)
    parser.add_argument("--gpus", type=float, default=1, help="GPUs of a share")
    parser.add_argument("--cpus", type=float, default=8, help="cores of a share")
    parser.add_argument("--command", default="run-batch", help="run-batch as the nodes know it")
    asked = parser.parse_args()
    task = ray.remote(num_gpus=asked.gpus, num_cpus=asked.cpus, max_retries=5, retry_exceptions=[Resumable])(run_share)
    config = str(asked.config.resolve())
    codes = ray.get([task.remote(asked.command, config, index, asked.shares) for index in range(asked.shares)])
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
