"""Image archives (in the form of `docker save`) out of programs of this machine, for nodes that can pull none.

An image holds the programs, the libraries that `ldd` names, and what little they expect of a system."""

import hashlib
import io
import json
import os
import shutil
import tarfile

from processes import Failed, run


def libraries(program: str) -> set[str]:
    try:
        said = run(["ldd", program])
    except Failed:  # statically linked
        return set()
    return {word for line in said.splitlines() for word in line.split() if word.startswith("/")}


def archive(name: str, programs: dict[str, str], config: dict, links: dict[str, str] | None = None, directories=()) -> bytes:
    """`programs`: place in the image, and on this machine (a path, or a name to look for)."""
    files = {}
    for place, program in programs.items():
        path = program if "/" in program else shutil.which(program)
        if not path:
            raise Failed(f"{program}: not on this machine")
        files[place] = path
        files |= {library: library for library in libraries(path)}
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("tmp", *directories):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        for text, content in {"etc/passwd": b"root:x:0:0::/:\nroomcast:x:10001:10001::/:\n", "etc/group": b"root:x:0:\n"}.items():
            add(tar, text, content, 0o644)
        for place, path in files.items():
            with open(path, "rb") as file:
                add(tar, place.lstrip("/"), file.read(), 0o755)
        for place, target in (links or {}).items():
            entry = tarfile.TarInfo(place.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    body = layer.getvalue()
    description = json.dumps({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(body).hexdigest()}"]}}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "layer.tar", body, 0o644)
        add(tar, "config.json", description, 0o644)
        add(tar, "manifest.json", json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode(), 0o644)
    return out.getvalue()


def add(tar: tarfile.TarFile, place: str, content: bytes, mode: int):
    entry = tarfile.TarInfo(place)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def gateway(name: str, directory: str) -> bytes:
    """What the Dockerfile makes, out of the programs in `directory`."""
    return archive(name, {f"/usr/local/bin/{program}": os.path.join(directory, program) for program in ("gateway", "loadtest")},
                   {"Entrypoint": ["gateway"], "User": "10001:10001", "Env": ["PATH=/usr/local/bin"]})


def redis(name: str) -> bytes:
    """Redis with the shell and the few tools that the chart's own Redis starts with, and its test's wait."""
    programs = {"/bin/sh": "sh", "/bin/sed": "sed", "/bin/cat": "cat", "/bin/grep": "grep", "/bin/sleep": "sleep", "/usr/bin/getent": "getent",
                "/usr/bin/redis-server": "redis-server", "/usr/bin/redis-cli": "redis-cli"}
    return archive(name, programs, {"Cmd": ["redis-server"], "User": "999:999", "Env": ["PATH=/usr/bin:/bin"]},
                   directories=("data", "run", "run/redis", "run/secrets"))


def pause(name: str, home: str) -> bytes:
    """The container that holds a pod's namespaces: does nothing until it is told to end."""
    source, program = os.path.join(home, "pause.c"), os.path.join(home, "pause")
    with open(source, "w") as out:
        out.write("#include <signal.h>\n#include <unistd.h>\n#include <sys/wait.h>\n"
                  "static void end(int s) { (void)s; _exit(0); }\n"
                  "static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) ; }\n"
                  "int main(void) { signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, reap); for (;;) pause(); }\n")
    run(["cc", "-static", "-O1", "-o", program, source])
    return archive(name, {"/pause": program}, {"Entrypoint": ["/pause"]})
