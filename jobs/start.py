"""Where the process of a command begins: from here on, it can be interrupted without a traceback."""

import os
import sys

try:
    from run_batch.jobs.machine.early_signals import end_when_interrupted

    # Here, not in `main`: the console script does a little between its import and its call.
    end_when_interrupted()
except KeyboardInterrupt:  # as early_signals does, which may not be there yet
    os.write(2, b"interrupted; run the same command again to go on\n")
    os._exit(75)


def main() -> None:
    """`run-batch`: end the process with the exit code of the command."""
    from run_batch.jobs.cli import main as run_command

    run_command(prog_name="run-batch")


def _main_of_call() -> None:
    """The process of `run_batch.jobs.run`: the first argument is the caller's process id, the others are options."""
    from run_batch.jobs.machine.processes import end_with

    end_with(int(sys.argv.pop(1)))
    main()


if __name__ == "__main__":
    _main_of_call()
