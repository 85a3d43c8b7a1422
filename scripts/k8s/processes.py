"""Child processes that end with the test, waits with a deadline, and free ports.

Used by every other file here. Knows nothing of Kubernetes."""

import ctypes
import os
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A check did not hold; the words say what was expected and what was seen."""


class Ended(Failed):
    """A process that should run does not: no use in waiting any longer."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, probe, seconds=60.0):
    """Calls `probe` until it returns something true, which is returned. Exceptions count as "not yet"."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = probe()
        except Ended:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong may be right a moment later
            seen, last = None, repr(error)
        else:
            last = repr(seen)
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:.0f} s, last seen: {last[:600]}")
        time.sleep(0.1)


def run(argv, *, stdin=None, env=None, timeout=120) -> str:
    """Runs a command to its end and returns what it printed; its own words are in the failure."""
    done = subprocess.run(argv, input=stdin, env=env, timeout=timeout, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv[:4])} ...: status {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes:
    """Those that run in the background, each with a log of its own."""

    def __init__(self, logs: str):
        self.logs = logs
        self.running: list[tuple[str, subprocess.Popen]] = []
        os.makedirs(logs, exist_ok=True)

    def start(self, name: str, argv: list[str], env: dict | None = None) -> subprocess.Popen:
        with open(self.log(name), "wb") as log:
            child = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
                                     env={**os.environ, **(env or {})})
        self.running.append((name, child))
        return child

    def log(self, name: str) -> str:
        return os.path.join(self.logs, f"{name}.log")

    def check(self):
        """Fails when one of them has ended."""
        for name, child in self.running:
            if child.poll() is not None:
                with open(self.log(name), errors="replace") as log:
                    raise Ended(f"{name} ended with status {child.returncode}: {log.read()[-1500:]}")

    def stop(self, name: str):
        for entry in [e for e in self.running if e[0] == name]:
            end(entry[1])
            self.running.remove(entry)

    def stop_all(self):
        """The last started ends first, as a cluster does not like to lose its ground."""
        while self.running:
            end(self.running.pop()[1])


def end(child: subprocess.Popen):
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(5)
