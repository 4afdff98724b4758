"""Creates .venv: vLLM's CPU build and all other dependencies, pinned by cpu-lock.txt, then this project, editable.

`make` runs it before every target. If .venv matches the lock and pyproject.toml, it does nothing. An unfinished
.venv is completed; a broken one, or one of another Python, is created again. Errors that depend on the machine are
reported in one line. It uses only the standard library, no syntax newer than Python 3.6 and no type hints, so that
old Pythons can run it and report that they are too old.
"""

import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
COMMAND = os.path.join(VENV, "bin", "run-batch")
LOCK = os.path.join(ROOT, "scripts", "cpu-lock.txt")
STAMP = os.path.join(VENV, "set-up")
LOG = os.path.join(VENV, "set-up.log")
ON_CPU = os.path.join(ROOT, "scripts", "torchvision_on_cpu.py")

ACCEPTED = ("3.11", "3.12", "3.13")  # in the order of preference: the lock was made on the first
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyPI has no CPU builds of torch and torchvision

# Pattern in pip's output -> hint for the user.
HINTS = (
    ("No space left", "the disk is full; .venv takes 3 GB, and pip needs as much again while it works"),
    (
        "ConnectionError|timed out|ConnectTimeout|name resolution|SSLError|ProxyError",
        "a package index cannot be reached; check the network, or configure a mirror for pip (pip config list)",
    ),
    ("No matching distribution", "no index that pip is set up to use has that version; see pip config list"),
    ("Permission denied", "a folder cannot be written to; see who owns .venv and pip's cache"),
)


class SetupError(Exception):
    """One line for the user."""


def main():
    try:
        wanted = this_python() if os.environ.get("PYTHON") else ""  # chosen by the user, so no other is accepted
        if is_set_up(wanted):
            return 0
        check_machine()
        python, version = choose_python(wanted)
        set_up(python, version)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the next run resumes here", file=sys.stderr)
        return 130
    return 0


# State of .venv


def this_python():
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def fingerprint():
    """Digest of what .venv depends on: some files, and its location, since a moved .venv refers to the old one."""
    digest = hashlib.sha256(ROOT.encode())
    for path in (LOCK, os.path.join(ROOT, "pyproject.toml"), ON_CPU):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_set_up(wanted):
    """Whether a set-up has finished for the current files, with the `wanted` Python ('' accepts any in ACCEPTED)."""
    try:
        with open(STAMP) as file:
            version, mark = file.read().split()
    except (OSError, ValueError):
        return False
    there = os.path.exists(PYTHON) and os.path.exists(COMMAND)
    return there and mark == fingerprint() and version in ((wanted,) if wanted else ACCEPTED)


def version_of(python):
    """Version of a Python, such as '3.11'; '' if it does not exist or does not start."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.decode().strip() if done.returncode == 0 else ""


# Requirements of the machine


def check_machine():
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        raise SetupError(f"vLLM's CPU build is for Linux on x86_64 or aarch64; this is {system} on {machine}")
    if machine == "x86_64" and not has_avx2():
        raise SetupError("vLLM's CPU build needs AVX2, which this processor has not (flags in /proc/cpuinfo)")


def has_avx2():
    try:
        with open("/proc/cpuinfo") as file:
            flags = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
    except OSError:
        return True  # unknown: vLLM reports it
    return flags is None or "avx2" in flags.group(1).split()


def choose_python(wanted):
    """Choose the Python for .venv, and its version: this one, else the first accepted one on PATH."""
    if this_python() in ACCEPTED:
        # The Python outside any virtual environment: if .venv is active, it may have to be created again.
        return getattr(sys, "_base_executable", "") or sys.executable, this_python()
    if not wanted:
        for version in ACCEPTED:
            if version_of("python" + version) == version:
                return "python" + version, version
    accepted = f"{', '.join(ACCEPTED[:-1])} or {ACCEPTED[-1]}"
    others = "" if wanted else ", and none of them is on PATH"
    raise SetupError(
        f"needs Python {accepted}; {sys.executable} is {platform.python_version()}{others} "
        f"(make PYTHON=/path/to/python{ACCEPTED[0]} chooses one)"
    )


# Set-up


def set_up(python, version):
    begin = time.time()
    if can_be_kept(version):
        say("bringing .venv up to date ...")
    else:
        say("setting up .venv (once, about 2 minutes) ...")
        make_venv(python, version)
    forget(STAMP)
    forget(LOG)
    say("  torch ...")
    install_torch()
    let_torchvision_import(version)
    say("  vLLM and the rest ...")
    pip("-r", LOCK)
    say("  run-batch ...")
    pip("--no-build-isolation", "-e", ROOT)
    with open(STAMP + ".new", "w") as file:
        file.write(f"{version} {fingerprint()}\n")
    os.replace(STAMP + ".new", STAMP)
    say(f"  done in {time.time() - begin:.0f} s (Python {version})")


def can_be_kept(version):
    """Whether .venv has this version, was created at this location, and has no broken package."""
    return version_of(PYTHON) == version and made_here() and is_sound()


def made_here():
    """Whether .venv was not copied or moved: its scripts would start the Python at the old location."""
    try:
        return VENV in read(os.path.join(VENV, "bin", "activate"))
    except OSError:
        return False


def is_sound():
    """Whether pip works and was never stopped in the middle of a package, which it would now treat as installed."""
    packages = glob.glob(os.path.join(glob.escape(VENV), "lib", "python*", "site-packages", "*.dist-info"))
    whole = all(os.path.exists(os.path.join(package, "RECORD")) for package in packages)
    return whole and runs(PYTHON, "-m", "pip", "--version")


def make_venv(python, version):
    if not runs(python, "-c", "import venv, ensurepip"):
        advice = f"on Debian and Ubuntu: apt install python{version}-venv"
        raise SetupError(f"{python} cannot make virtual environments (no venv or no ensurepip); {advice}")
    if os.path.islink(VENV) or os.path.isfile(VENV):
        os.remove(VENV)
    shutil.rmtree(VENV, ignore_errors=True)
    done = subprocess.run([python, "-m", "venv", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise SetupError(f"making .venv failed:\n{last_lines(done.stdout.decode(errors='replace'), 3)}")


def runs(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def install_torch():
    """Install torch and torchvision from pip's configured indexes, or from PyTorch's own if those have no CPU torch.

    Of torchvision's pinned version pip prefers a CPU build, and takes the one on PyPI where no index has that.
    """
    with open(LOCK) as file:
        pins = [line.strip() for line in file if re.match("torch(vision)?==", line)]
    try:
        pip(*pins)
    except SetupError:
        if "No matching distribution found for torch==" not in read(LOG):
            raise
        pip("--extra-index-url", TORCH_INDEX, *pins)


def let_torchvision_import(version):
    """Have each process of .venv prepare for a torchvision that is built for CUDA, as PyPI's is."""
    packages = os.path.join(VENV, "lib", "python" + version, "site-packages")
    shutil.copy(ON_CPU, packages)
    with open(os.path.join(packages, "torchvision_on_cpu.pth"), "w") as file:
        file.write("import torchvision_on_cpu\n")


def pip(*arguments):
    """Run one `pip install`; if it fails, raise an error with its last lines of output and a hint."""
    quiet = ("--no-input", "--disable-pip-version-check", "--progress-bar=off")
    command = [PYTHON, "-m", "pip", "install", "--no-deps", *quiet, *arguments]
    with open(LOG, "a") as log:
        begin = log.tell()
        done = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, env=dict(os.environ, PIP_USER="0"))
    if done.returncode != 0:
        said = read(LOG)[begin:]
        rest = f"(pip's whole output is in {os.path.relpath(LOG, ROOT)})"
        raise SetupError(f"pip failed: {hint(said)}\n{last_lines(said, 8)}\n{rest}")


def hint(said):
    for pattern, advice in HINTS:
        if re.search(pattern, said):
            return advice
    return "the same command resumes here; if it fails again in the same way, delete .venv"


# Output and files


def last_lines(output, count):
    """Last lines of a command's output, without pip's notes on missing locations and versions for other Pythons."""
    asides = re.compile(r"WARNING: (Location|Retrying) |ERROR: Ignored the following |\s*$")
    lines = [line for line in output.splitlines() if not asides.match(line)]
    return "\n".join("  " + (line if len(line) <= 300 else line[:300] + " ...") for line in lines[-count:])


def read(path):
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


def forget(path):
    if os.path.exists(path):
        os.remove(path)


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
