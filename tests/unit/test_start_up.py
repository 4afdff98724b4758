"""What starts before the worker processes is imported before them, and makes them wait."""

import subprocess
import sys


def test_the_command_line_imports_neither_torch_nor_vllm_before_the_workers_start() -> None:
    code = (
        "import sys, run_batch.jobs.cli, run_batch.jobs.runner.run_job, run_batch.jobs.job.prepare; "
        "print([name for name in ('torch', 'vllm', 'transformers', 'cv2') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
