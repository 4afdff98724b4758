"""Makes .venv: vLLM's CPU build and everything else, pinned by cpu-lock.txt, then this project, editable.

`make` runs it before every target. Once .venv is as the lock and pyproject.toml say, that takes no time; one
that is unfinished is completed, one that is broken or of another Python is made anew. What can go wrong on a
strange machine is said in one line. It needs only the standard library, and old Pythons read it too, to say
that they are too old: so no syntax newer than Python 3.6, and no types.
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

ACCEPTED = ("3.11", "3.12", "3.13")  # in the order of preference: the lock was made on the first
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyPI has no CPU build of torch

# What pip says -> what to do.
HINTS = (
    ("No space left", "the disk is full; .venv takes 3 GB, and pip needs as much again while it works"),
    (
        "ConnectionError|timed out|ConnectTimeout|name resolution|SSLError|ProxyError",
        "a package index cannot be reached; check the network, or give pip a mirror (pip config list)",
    ),
    ("No matching distribution", "no index that pip is set up to use has that version; see pip config list"),
    ("Permission denied", "a folder cannot be written to; see who owns .venv and pip's cache"),
)


class SetupError(Exception):
    """One line for the user."""


def main():
    try:
        wanted = this_python() if os.environ.get("PYTHON") else ""  # asked for by name, so no other will do
        if is_set_up(wanted):
            return 0
        check_machine()
        python, version = choose_python(wanted)
        set_up(python, version)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


# What is there


def this_python():
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def fingerprint():
    """What .venv is made from: two files, and the place, since one that was moved points to the old place."""
    digest = hashlib.sha256(ROOT.encode())
    for path in (LOCK, os.path.join(ROOT, "pyproject.toml")):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_set_up(wanted):
    """Whether a set-up finished, for these files, with the `wanted` Python ('' is any accepted one)."""
    try:
        with open(STAMP) as file:
            version, mark = file.read().split()
    except (OSError, ValueError):
        return False
    there = os.path.exists(PYTHON) and os.path.exists(COMMAND)
    return there and mark == fingerprint() and version in ((wanted,) if wanted else ACCEPTED)


def version_of(python):
    """'3.11' for a Python that starts, '' for one that does not or is not there."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.decode().strip() if done.returncode == 0 else ""


# Whether it can work here


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
        return True  # cannot tell, so let vLLM say
    return flags is None or "avx2" in flags.group(1).split()


def choose_python(wanted):
    """The Python to make .venv with, and its version: this one, else the first accepted one on PATH."""
    if this_python() in ACCEPTED:
        # Outside of any virtual environment: if .venv is the active one, it may have to be made anew.
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


# Setting up


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
    say("  vLLM and the rest ...")
    pip("-r", LOCK)
    say("  run-batch ...")
    pip("--no-build-isolation", "-e", ROOT)
    with open(STAMP + ".new", "w") as file:
        file.write(f"{version} {fingerprint()}\n")
    os.replace(STAMP + ".new", STAMP)
    say(f"  done in {time.time() - begin:.0f} s (Python {version})")


def can_be_kept(version):
    """Whether .venv is of this version, was made here, and works as far as it goes."""
    return version_of(PYTHON) == version and made_here() and is_sound()


def made_here():
    """Not copied or moved: the scripts in it would start the Python of the old place."""
    try:
        return VENV in read(os.path.join(VENV, "bin", "activate"))
    except OSError:
        return False


def is_sound():
    """Whether pip works and was never stopped within a package, which it would now take for a whole one."""
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
    """From where pip is told to look, and only if that has no CPU build of it from PyTorch's own index."""
    with open(LOCK) as file:
        pin = next(line.strip() for line in file if line.startswith("torch=="))
    try:
        pip(pin)
    except SetupError:
        if "No matching distribution found for torch" not in read(LOG):
            raise
        pip("--extra-index-url", TORCH_INDEX, pin)


def pip(*arguments):
    """One `pip install`, silent unless it fails: then its last words, and what to do about them."""
    quiet = ("--no-input", "--disable-pip-version-check", "--progress-bar=off")
    command = [PYTHON, "-m", "pip", "install", "--no-deps", *quiet, *arguments]
    with open(LOG, "a") as log:
        begin = log.tell()
        done = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, env=dict(os.environ, PIP_USER="0"))
    if done.returncode != 0:
        said = read(LOG)[begin:]
        rest = f"(all that pip said is in {os.path.relpath(LOG, ROOT)})"
        raise SetupError(f"pip failed: {hint(said)}\n{last_lines(said, 8)}\n{rest}")


def hint(said):
    for pattern, advice in HINTS:
        if re.search(pattern, said):
            return advice
    return "the same command goes on from here; if it fails again in the same way, delete .venv"


# Small


def last_lines(output, count):
    """The end of what a command said, without pip's asides: places not there, versions for other Pythons."""
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
