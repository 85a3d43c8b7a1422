"""A cluster under load with a Prometheus that scrapes it, for the tests of dashboards and alerts.

Three gateways, a redis-server, its exporter, a backend, Prometheus with the project's rules, and load testers: all on free
ports of the loopback, all ended when the block is left. Knows nothing of dashboards.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from backend import AUDIENCE, JWT_SECRET, KEY_ID, Backend

DEADLINE = 60
# Programs that scripts/need.sh did not install but unpack.
TOOLS = Path(__file__).resolve().parents[2] / ".cache/tools/bin"
NODES = 3
ROOMS = """
[[rooms]]
pattern = "cursor-*"
mode = "ephemeral"
[[rooms]]
pattern = "narrow"
publish_rate = 2
"""
# A lease of seconds lets a takeover happen within a test, and low limits, which load testers do not reach, let clients be
# refused.
SETTINGS = {
    "lease-beat": "500ms", "lease-expiry": "2s", "max-connections": "150", "log-format": "json", "publish-rate": "40",
    "publish-burst": "40", "user-publish-rate": "20", "user-publish-burst": "20", "max-connections-per-user": "5",
}  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(words, condition, deadline=DEADLINE):
    """What the condition returns once that is true."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"deadline passed: {words}")
        time.sleep(0.1)
    return found


def fetch(url, **query):
    if query:
        url += "?" + urllib.parse.urlencode(query, doseq=True)
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


class Cluster:
    def __init__(self, programs, rules):
        self.programs, self.rules = programs, Path(rules).resolve()
        self.started, self.backend = [], None

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="roomcast-dashboards-")
        self.work = Path(self.directory.name)
        try:
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, *_):
        if kind:
            for log in sorted(self.work.glob("*.log")):
                print(f"-- {log.name}", *log.read_text().splitlines()[-5:], sep="\n")
        # Nothing here is worth a drain, or an audit that settles.
        for process in self.started:
            process.kill()
            process.wait()
        if self.backend:
            self.backend.close()
        self.directory.cleanup()

    def run(self, name, *command):
        """Starts a program that keeps running; its output goes to NAME.log."""
        # An environment of its own keeps the developer's settings out.
        with open(self.work / f"{name}.log", "w") as log:
            words = [shutil.which(command[0], path=f"{os.environ['PATH']}:{TOOLS}") or command[0], *map(str, command[1:])]
            process = subprocess.Popen(
                words, cwd=self.work, stdout=log, stderr=log, env={"PATH": f"{os.environ['PATH']}:{TOOLS}"}
            )
        self.started.append(process)
        return process

    def output(self, *command):
        """What a program prints that ends at once."""
        done = subprocess.run(
            list(map(str, command)), cwd=self.work, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=DEADLINE
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def token(self, *claims):
        """A token signed with the published key."""
        key = ["--key", self.backend.key, "--kid", KEY_ID]
        return self.output(self.programs["gateway"], "token", *self.flags, *key, *claims).split()[-1]

    def log(self, name):
        return (self.work / f"{name}.log").read_text()

    def start(self):
        redis = free_port()
        self.redis_command = [
            "redis-server", "--port", redis, "--bind", "127.0.0.1", "--dir", self.work, "--save", "", "--appendonly", "no",
            "--maxmemory", "256mb", "--maxmemory-policy", "noeviction", "--slowlog-log-slower-than", "100",
        ]  # fmt: skip
        self.redis = self.run("redis", *self.redis_command)
        until("redis-server answers", lambda: "Ready to accept connections" in self.log("redis"))
        (self.work / "rooms.toml").write_text(ROOMS)
        self.backend = Backend(self.work)
        self.api_key, line = [
            line for line in self.output(self.programs["gateway"], "key", "shop", "--scopes", "read,publish,admin").splitlines()
            if not line.startswith("#")
        ]  # fmt: skip
        settings = {**SETTINGS, **self.backend.settings(), "api-keys": line}
        self.flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self.nodes, self.urls, self.admin = [], [], []
        for number in range(NODES):
            name = f"node-{number}"
            self.nodes.append(self.run(
                name, self.programs["gateway"], "--node-id", name, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                "--config", "rooms.toml", "--redis", f"redis://127.0.0.1:{redis}", *self.flags,
            ))  # fmt: skip
            line = until(f"{name} listens", lambda name=name: re.search(r'.*"message": *"listening".*', self.log(name)))
            public, private = re.findall(r'127\.0\.0\.1:\d+', line.group())
            self.urls.append(f"ws://{public}")
            self.admin.append(private)
        self.api = self.urls[0].replace("ws:", "http:")
        exporter = f"127.0.0.1:{free_port()}"
        self.run("exporter", "prometheus-redis-exporter", "-redis.addr", f"redis://127.0.0.1:{redis}", "-web.listen-address", exporter)
        self.start_prometheus({"chat": self.admin, "redis": [exporter]})

    def start_prometheus(self, targets):
        jobs = [
            {"job_name": job, "static_configs": [{"targets": names, "labels": {"namespace": "test"}}]}
            for job, names in targets.items()
        ]
        # JSON is YAML.
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(self.rules)], "scrape_configs": jobs}
        (self.work / "prometheus.json").write_text(json.dumps(config))
        address = f"127.0.0.1:{free_port()}"
        self.prometheus = f"http://{address}"
        self.run(
            "prometheus", "prometheus", "--config.file=prometheus.json", "--storage.tsdb.path=data", f"--web.listen-address={address}",
        )  # fmt: skip
        until("Prometheus is ready", lambda: "Server is ready" in self.log("prometheus"))

    def load(self, name, *arguments, nodes=None):
        targets = [word for url in nodes or self.urls for word in ("--target", url)]
        tokens = ["--jwt-secret", JWT_SECRET, "--jwt-audience", AUDIENCE, "--jwt-claims", '{"rooms":["*"]}']
        return self.run(name, self.programs["loadtest"], *arguments, *targets, *tokens)

    def cut_redis(self):
        """Redis ends every connection but this one, and stays."""
        port = self.redis_command[2]
        for kind in ("normal", "pubsub"):
            subprocess.run(["redis-cli", "-p", str(port), "client", "kill", "type", kind], check=True, stdout=subprocess.DEVNULL)

    def kill(self, node):
        self.nodes[node].send_signal(signal.SIGKILL)
        self.nodes[node].wait()

    def ask(self, path, **query):
        """What Prometheus' API answers; its data."""
        answer = json.loads(fetch(f"{self.prometheus}/api/v1/{path}", **query))
        if answer["status"] != "success":
            raise ValueError(answer["error"])
        return answer["data"]
