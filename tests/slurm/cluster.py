"""A real Slurm on this machine, for the tests: munge, slurmctld, and several slurmd that each are a node of their own.

All of it lives in one temporary folder with its own key, sockets and ports, beside any other Slurm, and goes with it.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NODES = ("n0", "n1")
# Of a node, as Slurm sees it; nothing here looks at what there really is.
CPUS, GPUS, MEGABYTES = 64, 8, 1_000_000
_COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch")
_INSTALL = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "slurm-wlm", "munge"]

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=10
SlurmdTimeout=5
OverTimeLimit=0
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
{nodes}
PartitionName=main Nodes=n[0-1] Default=YES PriorityTier=1 State=UP
PartitionName=urgent Nodes=n[0-1] PriorityTier=10 PreemptMode=OFF State=UP
"""


class SlurmMissing(Exception):
    """There is no Slurm here, and none can be installed; the message says why."""


def install_slurm() -> None:
    """Debian's Slurm, where it is missing and we may.

    Raises:
        SlurmMissing: it is not here and cannot be installed.
    """
    # Daemons are in /usr/sbin, which is not on everybody's PATH.
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    if all(map(shutil.which, _COMMANDS)):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SlurmMissing("no Slurm here; as root on Debian or Ubuntu: apt-get install slurm-wlm munge")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (_INSTALL, ["apt-get", "update", "-q"], _INSTALL):
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        if all(map(shutil.which, _COMMANDS)):
            return
    raise SlurmMissing(f"{' '.join(_INSTALL)} failed: {done.stdout[-500:]} {done.stderr[-500:]}")


class Cluster:
    """Daemons that run; `environ` is what commands of Slurm's need to find them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        self.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._hurried: set[tuple[str, str]] = set()

    def begin(self) -> None:
        self._configure()
        self._start_munge()
        self.start("slurmctld")
        for node in NODES:
            self.start(node)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        wait_until(lambda: set(self._answer("sinfo", "--noheader", "--format=%T").split()) == {"idle"}, 60, self.logs)

    def _configure(self) -> None:
        for name in ("munge", "state", "gpus", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o755)
        for gpu in range(GPUS):
            _make_device(self.folder / "gpus" / f"nvidia{gpu}")
        host = socket.gethostname().split(".")[0]
        ctld_port, *ports = _free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory={MEGABYTES} "
            f"Gres=gpu:{GPUS} State=UNKNOWN"
            for node, port in zip(NODES, ports, strict=True)
        )
        conf = _CONF.format(host=host, folder=self.folder, ctld_port=ctld_port, nodes=nodes)
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(
            f"NodeName=n[0-1] Name=gpu File={self.folder}/gpus/nvidia[0-{GPUS - 1}] Flags=nvidia_gpu_env\n"
        )

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        key = place / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = [f"--{name}={place / name.removesuffix('-file')}" for name in ("key-file", "pid-file", "log-file")]
        command = ["munged", "--foreground", "--force", *files, f"--socket={place}/socket", f"--seed-file={place}/seed"]
        self._spawn("munged", command)
        wait_until((place / "socket").exists, 10, self.logs)

    def start(self, daemon: str) -> None:
        """Start slurmctld, or the slurmd of a node."""
        self._spawn(daemon, ["slurmctld", "-D"] if daemon == "slurmctld" else ["slurmd", "-D", "-N", daemon])

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """Stop slurmctld or the slurmd of a node; jobs go on without it."""
        process = self._daemons.pop(daemon)
        process.send_signal(number)
        process.wait(20)

    def _spawn(self, name: str, command: list[str]) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user=root", "--signal=KILL", "--full")
            self.ask("scancel", "--user=root")
            wait_until(lambda: not self.ask("squeue", "--noheader"), 20)
        for daemon in reversed(list(self._daemons)):
            process = self._daemons[daemon]
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()

    def ask(self, *command: str) -> str:
        """What a command of Slurm's says.

        Raises:
            SubprocessError: it ends with another exit code than 0.
        """
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout.strip()

    def _answer(self, *command: str) -> str:
        """The same; '' while the daemons do not answer."""
        with contextlib.suppress(subprocess.SubprocessError):
            return self.ask(*command)
        return ""

    def facts(self, job: str) -> list[dict[str, str]]:
        """What `scontrol show job` says: of each task, for an array."""
        lines = self._answer("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(word.partition("=")[::2] for word in line.split() if "=" in word) for line in lines]

    def hurry(self, job: str) -> None:
        """Let requeued tasks start soon."""
        for fact in self.facts(job):
            start = (fact["JobId"], fact["Restarts"])
            if fact["JobState"] == "PENDING" and fact.get("Reason") == "BeginTime" and start not in self._hurried:
                # Within the second in which it was stopped, slurmd would take the new start for the old one.
                self._answer("scontrol", "update", f"JobId={fact['JobId']}", "StartTime=now+2")
                self._hurried.add(start)

    def processes(self, node: str) -> list[int]:
        """All processes of the tasks on a node, and Slurm's own that look after them (slurmstepd)."""
        found: set[int] = set()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                environ = (place / "environ").read_bytes().split(b"\0")
                if {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.folder}/slurm.conf".encode()} <= {*environ}:
                    parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                    found |= {int(place.name)}
                    if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                        found |= {parent}
        return sorted(found)

    def states(self, job: str) -> list[str]:
        return [fact["JobState"] for fact in self.facts(job)]

    def wait(self, job: str, *states: str, seconds: float = 60, explain: Callable[[], str] = str) -> None:
        """Wait until each task of a job is in one of `states`. Requeued ones start soon; Slurm's own delay is two
        minutes.

        Args:
            explain: what to show if they are not.
        """

        def there() -> bool:
            self.hurry(job)
            found = self.states(job)
            return bool(found) and set(found) <= set(states)

        wait_until(there, seconds, lambda: f"{self.states(job)}\n{self.logs()}\n{explain()}")

    def logs(self) -> str:
        files = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in files)


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    # Paths of sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # munged wants to know that nobody else can change its socket
        cluster = Cluster(folder)
        try:
            cluster.begin()
            yield cluster
        finally:
            cluster.stop()


def wait_until(condition: Callable[[], object], seconds: float, explain: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s\n{explain()}"
        time.sleep(0.1)


def _make_device(path: Path) -> None:
    """What passes for a GPU with Slurm: another /dev/null."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:  # in some containers; slurmd grumbles, and takes a file, too
        path.touch()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
