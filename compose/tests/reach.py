"""Whether this machine is the one where containers run: stack.py kills a process of one as a crash would (after `docker
kill` Docker restarts nothing), and asks others at their own addresses. Called by scripts/compose-test.sh before the
image is built.

    python3 reach.py IMAGE        (one with `sleep` in it)

Says what is missing in one line and exits 1.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def docker(*words):
    return subprocess.run(["docker", *words], check=True, timeout=60, text=True, stdout=subprocess.PIPE).stdout.strip()


def named(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def missing(container):
    """What cannot be done with this container from here, or None."""
    pid = container["State"]["Pid"]
    if not any(named(pid) == "sleep" or time.sleep(0.1) for _ in range(50)):
        return "its processes are not seen (another machine, or another pid namespace)"
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "its processes cannot be killed (not root)"
    address = next(iter(container["NetworkSettings"]["Networks"].values()))["IPAddress"]
    try:
        # Nobody listens there: that it is refused comes from the container itself.
        socket.create_connection((address, 9), timeout=5).close()
    except ConnectionRefusedError:
        return None
    except OSError as error:
        return f"its address {address} is not reached ({error})"


def main():
    name = docker("run", "--detach", "--rm", "--entrypoint", "sleep", sys.argv[1], "60")
    try:
        lacks = missing(json.loads(docker("inspect", name))[0])
    finally:
        docker("rm", "--force", name)
    if lacks:
        print(f"compose-test: must run as root on the machine of dockerd itself: of a container there, {lacks}", file=sys.stderr)
    return 1 if lacks else 0


if __name__ == "__main__":
    sys.exit(main())
