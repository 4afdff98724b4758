"""Compares run-batch and its peers on the same rows, the same model and the same vLLM; part of `make bench`.

Prints a table, and writes `.bench/results.json` and, with `--plot`, `docs/throughput.svg`. Systems take turns within
each round, so that drift in the machine's speed does not favour one; figures are medians over the rounds, and ratios
are computed within a round.
"""

import argparse
import json
import platform
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from measure import Run, measure
from model_settings import LLAVA, MODELS, ModelSettings
from plot import write_plot
from systems import LABELS, PRODUCT, RAY_PYTHON, command_of
from workloads import FOLDER, ROOT, WORKLOADS, make_workload

RESULTS = FOLDER / "results.json"
ON_ANY_MACHINE = [name for name, workload in WORKLOADS.items() if not workload.gpu]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each system runs")
    parser.add_argument("--workloads", default=",".join(ON_ANY_MACHINE), help="comma-separated")
    parser.add_argument("--systems", default=",".join(LABELS), help="comma-separated; run-batch is always there")
    parser.add_argument("--plot", action="store_true", help="draw all that was found, now and before, for the docs")
    arguments = parser.parse_args()
    systems = [name for name in LABELS if name == PRODUCT or name in arguments.systems.split(",")]
    if "ray-data" in systems and not RAY_PYTHON.exists():
        print("Ray Data LLM is left out: `make ray-setup` sets up its environment", file=sys.stderr)
        systems.remove("ray-data")
    for name in arguments.workloads.split(","):
        rows, settings = make_workload(WORKLOADS[name]), MODELS[WORKLOADS[name].model]
        model = settings.make()
        rounds = [[one_run(system, name, rows, model, settings) for system in systems] for _ in range(arguments.rounds)]
        print(as_table(write_results(name, rounds)), flush=True)
    if not arguments.plot:
        return
    results = json.loads(RESULTS.read_text())
    write_plot([results[name] for name in WORKLOADS if name in results], ROOT / "docs" / "throughput.svg")


def one_run(system: str, workload: str, rows: Path, model: Path, settings: ModelSettings = LLAVA) -> Run:
    folder = FOLDER / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command, environment = command_of(system, rows, model, folder, settings)
    count, tokens = WORKLOADS[workload].rows, settings.max_tokens
    run = measure(system, workload, count, command, environment, FOLDER / f"{system}.log", tokens)
    print(f"{workload} {system}: {run.wall_seconds:.1f} s, {run.steady_rows_per_second:.0f} rows/s", file=sys.stderr)
    texts = FOLDER / f"{workload}-texts.json"
    found = texts_of(system, folder)
    if system == PRODUCT:
        texts.write_text(json.dumps(found))
    else:
        ours = json.loads(texts.read_text())
        equal = sum(ours[row] == text for row, text in found.items())
        print(f"{workload} {system}: {equal} of {len(ours)} texts equal run-batch's", file=sys.stderr)
    return run


def texts_of(system: str, folder: Path) -> dict[str, str]:
    """The texts of a run by the rows' ids."""
    results = {PRODUCT: folder / "out", "ray-data": folder / "results.ray"}.get(system, folder / "results")
    if system == "vllm-run-batch":
        answers = map(json.loads, results.read_text().splitlines())
        return {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in answers}
    ids = "row_id" if system == PRODUCT else "id"
    table = pq.read_table(results, columns=[ids, "text"])
    return dict(zip(table[ids].to_pylist(), table["text"].to_pylist(), strict=True))


def write_results(workload: str, rounds: list[list[Run]]) -> dict[str, object]:
    """Add medians and ratios of one workload to `.bench/results.json`, which keeps earlier results of others."""
    systems = {
        runs[0].system: {
            "wall_seconds": median(lambda run: run.wall_seconds, runs),
            "steady_rows_per_second": median(lambda run: run.steady_rows_per_second, runs),
            "ready_seconds": median(lambda run: run.ready_seconds, runs),
            "first_row_seconds": median(lambda run: run.first_row_seconds, runs),
            "peak_gigabytes": median(lambda run: run.peak_bytes / 1e9, runs),
            "engine_idle_share": median(lambda run: run.engine_idle_share, runs),
            "wall_ratio": ratio(rounds, runs[0].system, lambda run: run.wall_seconds),
            "steady_ratio": 1 / ratio(rounds, runs[0].system, lambda run: run.steady_rows_per_second),
            "runs": [run.as_dict() for run in runs],
        }
        for runs in zip(*rounds, strict=True)
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[workload] = {"workload": workload, "machine": platform.platform(), "systems": systems}
    RESULTS.write_text(json.dumps(results, indent=1))
    return results[workload]


def median(figure: Callable[[Run], float], runs: tuple[Run, ...]) -> float:
    return statistics.median(map(figure, runs))


def ratio(rounds: list[list[Run]], system: str, figure: Callable[[Run], float]) -> float:
    """Ratio of a figure of `system` to run-batch's: the median of the ratios within each round."""
    ratios = []
    for runs in rounds:
        by_system = {run.system: run for run in runs}
        ratios.append(figure(by_system[system]) / figure(by_system[PRODUCT]))
    return statistics.median(ratios)


def as_table(result: dict[str, object]) -> str:
    systems: dict[str, dict[str, float]] = result["systems"]  # type: ignore[assignment]
    lines = [
        f"\n{result['workload']}",
        f"{'':30s} {'wall':>8s} {'ratio':>7s} {'rows/s':>8s} {'ratio':>7s} {'ready':>8s}"
        f" {'first':>8s} {'peak':>8s} {'idle':>7s}",
    ]
    for name, found in systems.items():
        lines.append(
            f"{LABELS[name]:30s} {found['wall_seconds']:6.1f} s {found['wall_ratio']:6.2f}x"
            f" {found['steady_rows_per_second']:8.0f} {found['steady_ratio']:6.2f}x {found['ready_seconds']:6.1f} s"
            f" {found['first_row_seconds']:6.1f} s"
            f" {found['peak_gigabytes']:5.1f} GB {found['engine_idle_share']:6.1%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
