"""Runs `run-batch --config job.toml` as a user does, and prints the times of its events, from its files."""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    job = Path(sys.argv[1])
    command = Path(sys.executable).parent / "run-batch"
    code = subprocess.run([command, "--config", job, "--quiet"]).returncode
    run = job.parent / "out" / ".run_batch"
    events = {}
    if code == 0:
        steps = Path(os.environ["BENCH_ENGINE_LOG"]).read_text().split()
        # The first interval of the metrics begins when the engine is loaded and the first rows are mapped.
        first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        ready = min(first["time"] - first["seconds"], float(steps[0]))
        events = {"ready": ready, "end": (job.parent / "out" / "_SUCCESS").stat().st_mtime}
    print("TIMES", json.dumps(events), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
