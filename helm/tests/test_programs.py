"""What the chart renders, given to the programs that it is for: the gateway, Redis, the load tester."""

import json
import re
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import schema
import yaml
from conftest import CHART, FILES, ROOT, chart, environment, every, gateway, kustomized, one, program, variables

DEADLINE = 30


def settings() -> dict[str, str]:
    """Variable to setting, as the docs list them."""
    docs = (ROOT / "docs/configuration.md").read_text()
    return {"ROOMCAST_" + name.replace("-", "_").upper(): name for name in schema.settings(docs)}


def wait_for(what, described: str):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if result := what():
            return result
        time.sleep(0.05)
    raise AssertionError(f"{described}: not within {DEADLINE} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The gateway

def settings_in_force(objects: list[dict], folder: Path) -> dict[str, str]:
    """The file and the variables of the container, read by the gateway itself: what it does not know it refuses."""
    config = next(made for made in every(objects, "ConfigMap") if "config.toml" in made["data"])["data"]["config.toml"]
    (folder / "config.toml").write_text(config)
    given = {"ROOMCAST_CONFIG": str(folder / "config.toml"), "ROOMCAST_NODE_ID": "rc-roomcast-7d9c5b6f4-x2x4z"}
    for name, entry in variables(gateway(objects)).items():
        if name.startswith("ROOMCAST_") and name not in given:
            given[name] = entry.get("value") or {"ROOMCAST_REDIS_PASSWORD": "p/w@:#", "ROOMCAST_REDIS_SENTINEL_PASSWORD": "s", "ROOMCAST_WORKERS": "2"}[name]
    if "ROOMCAST_REDIS_CA" in given:
        given["ROOMCAST_REDIS_CA"] = "/etc/ssl/certs/ca-certificates.crt"
    done = subprocess.run([program("gateway"), "config"], env=environment(given), cwd=folder, capture_output=True, text=True,
                          timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    return {line.split(" = ")[0]: line for line in done.stdout.splitlines() if " = " in line}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_gateway_takes_its_settings(file, tmp_path):
    assert "rc-roomcast-7d9c5b6f4-x2x4z" in settings_in_force(chart("", file), tmp_path)["node_id"]


@pytest.mark.parametrize("folder", ["k8s/base", "k8s/overlays/production"])
def test_the_gateway_takes_the_settings_of_the_manifests(folder, tmp_path):
    assert settings_in_force(kustomized(ROOT / folder), tmp_path)


def test_the_overlay_of_the_docs(tmp_path):
    """k8s/README.md's example, beside a copy of the manifests."""
    readme = (ROOT / "k8s/README.md").read_text()
    example = re.search(r"```yaml\n# kustomization.yaml\n(.*?)```", readme, re.DOTALL)[1]
    shutil.copytree(ROOT / "k8s", tmp_path / "roomcast/k8s")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(example)
    objects = kustomized(tmp_path / "mine")
    assert "redis.internal:6380" in settings_in_force(objects, tmp_path)["redis"]
    assert gateway(objects)["image"] == "registry.example.com/roomcast/gateway:0.1.0"
    # The nodes may reach it.
    assert one(objects, "NetworkPolicy", "roomcast")["spec"]["egress"][1]["ports"] == [{"port": 6380, "protocol": "TCP"}]


def test_every_variable_is_a_setting():
    known = settings()
    assert "ROOMCAST_MAX_CONNECTIONS" in known
    for file in FILES:
        for name in variables(gateway(chart("", file))):
            assert not name.startswith("ROOMCAST_") or name in known, name


def test_every_setting_can_be_set():
    """Each setting of the docs is a key of `config`, or the chart's own business."""
    keys = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    names = set(settings().values())
    names -= schema.NOT_IN_CONFIG | schema.SECRETS | schema.FILES
    assert {schema.camel(name) for name in names} == set(keys)
    # Of each key, snakecase must make what the file has.
    def value(key, kind):
        plain = {"integer": kind.get("minimum"), "number": 0.5, "array": ["10.0.0.0/8"], "boolean": True}
        # Two durations must be longer than others.
        return kind.get("enum", [plain.get(kind.get("type"), "60s" if key in {"pingTimeout", "leaseExpiry"} else "30s")])[0]

    # What is called signs, and the chart asks for the keys.
    signed = {name: {"name": "s", "key": "k"} for name in ("webhookSecret", "authorizeSecret")}
    values = {"config": {key: value(key, kind) for key, kind in keys.items()}, "secrets": signed}
    config = one(chart(json.dumps(values)), "ConfigMap", "rc-roomcast")
    for name in names:
        assert f"\n{name.replace('-', '_')} = " in config["data"]["config.toml"], name


# Redis

WORD = "it's \"quoted\", \\back\\slashed, $HOME and #hashed %s `x`"


@pytest.fixture
def redis(tmp_path):
    """The Redis of the chart: its command and its configuration, with folders in place of the pod's mounts."""
    objects = chart()
    container = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    folders = {"/etc/redis": tmp_path / "etc", "/run/secrets/redis": tmp_path / "secrets", "/run/redis": tmp_path / "run", "/data": tmp_path / "data"}
    for folder in folders.values():
        folder.mkdir()
    port = free_port()
    config = one(objects, "ConfigMap", "rc-roomcast-redis")["data"]["redis.conf"]
    config = config.replace("port 6379", f"port {port}").replace("bind * -::*", "bind 127.0.0.1")
    (tmp_path / "etc/redis.conf").write_text(config.replace("/data", str(tmp_path / "data")))
    (tmp_path / "secrets/password").write_text(WORD)

    def here(words: list[str]) -> list[str]:
        for mount, folder in folders.items():
            words = [word.replace(mount, str(folder)) for word in words]
        return [word.replace("redis-cli ping", f"redis-cli -p {port} ping") for word in words]

    server = subprocess.Popen(here(container["command"]), env=environment(), stdout=subprocess.DEVNULL)
    ready = here(container["readinessProbe"]["exec"]["command"])
    try:
        wait_for(lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0, "Redis is ready")
        yield port, tmp_path, server
    finally:
        server.terminate()
        server.wait(DEADLINE)


def ask(port: int, *words: str, password: str | None = WORD) -> str:
    extra = {"REDISCLI_AUTH": password} if password else {}
    return subprocess.run(["redis-cli", "-p", str(port), *words], env=environment(extra), capture_output=True, text=True,
                          timeout=DEADLINE, check=False).stdout.strip()


def test_redis_wants_the_password_and_evicts_nothing(redis):
    port, folder, _ = redis
    assert "NOAUTH" in ask(port, "get", "x", password=None)
    assert ask(port, "set", "x", "1") == "OK"
    assert "noeviction" in ask(port, "config", "get", "maxmemory-policy")
    assert "yes" in ask(port, "config", "get", "appendonly")
    limits = ask(port, "config", "get", "client-output-buffer-limit").split("\n")[-1]
    assert f"pubsub {256 << 20} {64 << 20} 60" in limits, "docs/tuning.md wants that"
    assert ask(port, "config", "get", "maxmemory").split()[-1] == str(256 * 1024 * 1024)
    assert (folder / "data/appendonlydir").exists() or (folder / "data/appendonly.aof").exists()
    assert (folder / "run/redis.conf").stat().st_mode & 0o077 == 0, "others may read the password"


def test_redis_has_memory_for_what_it_is_allowed():
    """Its data twice, for the copy while the file is rewritten, and the queue of a busy node."""
    made = one(chart(), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert int(made["resources"]["limits"]["memory"].removesuffix("Mi")) >= 2 * 256 + 256


def test_the_shell_hands_signals_on(redis):
    """Redis is the container's first process, so that it hears of the pod's end and writes what it has."""
    _, _, server = redis
    assert Path(f"/proc/{server.pid}/comm").read_text().strip().startswith("redis-server")


def test_the_gateway_and_the_redis_of_the_chart(redis, tmp_path):
    """With the password as the Secret holds it, unescaped."""
    port, _, _ = redis
    admin = free_port()
    given = {"ROOMCAST_REDIS": f"redis://127.0.0.1:{port}", "ROOMCAST_REDIS_PASSWORD": WORD, "ROOMCAST_LISTEN": "127.0.0.1:0",
             "ROOMCAST_ADMIN_LISTEN": f"127.0.0.1:{admin}", "ROOMCAST_WORKERS": "1"}
    node = subprocess.Popen([program("gateway")], env=environment(given), cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        def ready():
            from urllib.error import URLError
            from urllib.request import urlopen
            try:
                return urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5).status == 200
            except (URLError, ConnectionError):
                return False
        wait_for(ready, "the gateway is ready")
    finally:
        node.terminate()
        node.wait(DEADLINE)


# The load test

def jobs(values: str):
    objects = chart(values)
    made = {job["metadata"]["name"]: job["spec"]["template"]["spec"] for job in every(objects, "Job")}
    return objects, made["rc-roomcast-loadtest-1"], made["rc-roomcast-loadtest-1-merge"]


def container(spec: dict, name: str) -> dict:
    return next(each for each in spec["containers"] + spec.get("initContainers", []) if each["name"] == name)


def expand(words: list[str], names: dict[str, str]) -> list[str]:
    return [re.sub(r"\$\((\w+)\)", lambda match: names[match[1]], word) for word in words]


class Pods:
    """Runs the Jobs' containers as processes: the same commands and variables, with a folder for each pod's mount."""

    def __init__(self, folder: Path, values: dict):
        self.folder, self.port = folder, free_port()
        self.objects, self.load, self.merge = jobs(json.dumps(values))
        self.run = secrets.token_hex(8)
        self.started: list[subprocess.Popen] = []

    def start(self, spec: dict, name: str, pod: str, more: dict[str, str] | None = None) -> subprocess.Popen:
        mount = self.folder / pod
        mount.mkdir(exist_ok=True)
        given = {}
        for key, entry in variables(container(spec, name)).items():
            if key == "LOADTEST_RUN":
                given[key] = self.run
            elif key == "WORKERS":
                given[key] = "1"
            elif key == "REDISCLI_AUTH":
                given[key] = one(self.objects, "Secret", "rc-roomcast-loadtest-1")["stringData"]["password"]
            else:
                given[key] = entry["value"]
        given |= {"STORE": "127.0.0.1", "STORE_PORT": str(self.port), "PATIENCE": "1"} | (more or {})
        words = container(spec, name)["command"] + container(spec, name).get("args", [])
        # In the cluster a pod sees its own processes. Here /proc is a folder, with what the test says.
        words = [word.replace("/results", str(mount)).replace("/proc/", f"{mount}/proc/") for word in expand(words, given)]
        if words[0] == "loadtest":
            words[0] = program("loadtest")
        log = (mount / f"{name}.log").open("w")
        made = subprocess.Popen(words, env=environment(given), cwd=mount, stdout=log, stderr=subprocess.STDOUT)
        self.started.append(made)
        return made

    def text(self, pod: str, name: str) -> str:
        return (self.folder / pod / f"{name}.log").read_text()

    def stop(self):
        for each in self.started:
            if each.poll() is None:
                each.kill()
            each.wait(DEADLINE)


@pytest.fixture
def cluster(tmp_path):
    """A node in memory, for the load test to have something to talk to."""
    port = free_port()
    given = {"ROOMCAST_LISTEN": f"127.0.0.1:{port}", "ROOMCAST_ADMIN_LISTEN": "127.0.0.1:0", "ROOMCAST_WORKERS": "1"}
    node = subprocess.Popen([program("gateway")], env=environment(given), cwd=tmp_path, stderr=subprocess.DEVNULL)

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens, "the gateway listens")
        yield f"ws://127.0.0.1:{port}"
    finally:
        node.terminate()
        node.wait(DEADLINE)


def load(target: str, **more) -> dict:
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
    args = ["--rooms", "2", "--members", "4", "--rate", "5", "--duration", "1s", "--ramp", "2s", "--max-lag", "10s"]
    return {"loadtest": {"enabled": True, "processes": 2, "targets": [target], "startAt": start, "args": args} | more}


def test_two_processes_are_merged(cluster, tmp_path):
    pods = Pods(tmp_path, load(cluster, asserts=["received>0"]))
    try:
        pods.start(pods.merge, "store", "merge")
        collect = pods.start(pods.merge, "collect", "merge")
        testers = [pods.start(pods.load, "loadtest", f"pod-{index}", {"JOB_COMPLETION_INDEX": str(index)}) for index in range(2)]
        for index, tester in enumerate(testers):
            assert tester.wait(DEADLINE) == 0, pods.text(f"pod-{index}", "loadtest")
        for index in range(2):
            deliver = pods.start(pods.load, "deliver", f"pod-{index}", {"JOB_COMPLETION_INDEX": str(index)})
            assert deliver.wait(DEADLINE) == 0, pods.text(f"pod-{index}", "deliver")
        assert collect.wait(DEADLINE) == 0, pods.text("merge", "collect")
        merge = pods.start(pods.merge, "merge", "merge")
        assert merge.wait(DEADLINE) == 0, pods.text("merge", "merge")
        told = pods.text("merge", "merge")
        assert "processes     2 of 2" in told and "0 lost, 0 duplicated" in told and "pass  received>0" in told
    finally:
        pods.stop()


def test_nothing_is_delivered_while_the_load_tester_runs(cluster, tmp_path):
    """Its file may be half written."""
    pods = Pods(tmp_path, load(cluster, processes=1))
    running = tmp_path / "pod/proc/7/comm"
    running.parent.mkdir(parents=True)
    running.write_text("loadtest\n")
    try:
        pods.start(pods.merge, "store", "merge")
        assert pods.start(pods.load, "loadtest", "pod", {"JOB_COMPLETION_INDEX": "0"}).wait(DEADLINE) == 0
        deliver = pods.start(pods.load, "deliver", "pod", {"JOB_COMPLETION_INDEX": "0"})
        with pytest.raises(subprocess.TimeoutExpired):
            deliver.wait(3)
        running.unlink()
        assert deliver.wait(DEADLINE) == 0
    finally:
        pods.stop()


def test_a_failed_threshold_fails_the_merge(cluster, tmp_path):
    pods = Pods(tmp_path, load(cluster, processes=1, asserts=["received<1"]))
    try:
        pods.start(pods.merge, "store", "merge")
        assert pods.start(pods.load, "loadtest", "pod", {"JOB_COMPLETION_INDEX": "0"}).wait(DEADLINE) == 0
        assert pods.start(pods.load, "deliver", "pod", {"JOB_COMPLETION_INDEX": "0"}).wait(DEADLINE) == 0
        assert pods.start(pods.merge, "collect", "merge").wait(DEADLINE) == 0
        assert pods.start(pods.merge, "merge", "merge").wait(DEADLINE) == 1
        assert "FAIL  received<1" in pods.text("merge", "merge")
    finally:
        pods.stop()


def test_a_process_without_a_report_is_told(cluster, tmp_path):
    """A misspelt option ends the load tester at once. Nobody waits for its report until the Job's deadline."""
    pods = Pods(tmp_path, load(cluster, processes=1, args=["--room", "2"]))
    try:
        pods.start(pods.merge, "store", "merge")
        collect = pods.start(pods.merge, "collect", "merge")
        assert pods.start(pods.load, "loadtest", "pod", {"JOB_COMPLETION_INDEX": "0"}).wait(DEADLINE) == 2
        assert pods.start(pods.load, "deliver", "pod", {"JOB_COMPLETION_INDEX": "0"}).wait(DEADLINE) == 1
        assert "ended without a report" in pods.text("pod", "deliver")
        assert collect.wait(DEADLINE) == 1
        assert "process 0 made no report" in pods.text("merge", "collect")
    finally:
        pods.stop()


def test_the_jobs():
    objects, loading, merging = jobs("loadtest: {enabled: true, processes: 4}")
    job = one(objects, "Job", "rc-roomcast-loadtest-1")["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"], job["backoffLimitPerIndex"]) == ("Indexed", 4, 4, 0)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", variables(container(loading, "loadtest"))["LOADTEST_START_AT"]["value"])
    assert container(merging, "store")["restartPolicy"] == "Always"
    assert [word for word in container(merging, "merge")["args"] if word.endswith(".json")] == [f"/results/{i}.json" for i in range(4)]
    service = one(objects, "Service", "rc-roomcast-loadtest-1")["spec"]
    labels = one(objects, "Job", "rc-roomcast-loadtest-1-merge")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items() and service["publishNotReadyAddresses"] is True
    for deployment in every(objects, "Deployment") + every(objects, "StatefulSet"):
        assert not service["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert "--target=ws://rc-roomcast.chat:80" in container(loading, "loadtest")["args"], "it outlives the pods"
    kept = chart("loadtest: {enabled: true, existingClaim: reports}")
    merge = one(kept, "Job", "rc-roomcast-loadtest-1-merge")["spec"]["template"]["spec"]
    assert {"name": "out", "persistentVolumeClaim": {"claimName": "reports"}} in merge["volumes"]
    assert "--html=/out/rc-roomcast-loadtest-1.html" in container(merge, "merge")["args"]


def test_the_chat_of_helm_test(cluster):
    """The arguments of the test's pod are the load tester's."""
    words = one(chart("replicaCount: 1"), "Pod")["spec"]["containers"][0]
    args = [f"--target={cluster}" if word.startswith("--target=") else word for word in words["args"]]
    args = ["--duration=1s" if word.startswith("--duration=") else word for word in args]
    done = subprocess.run([program("loadtest"), *args], env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    # On one node the demand for several is not met: the assertion of the chart for two can fail.
    across = [word for word in one(chart(), "Pod")["spec"]["containers"][0]["args"] if "cross" in word]
    done = subprocess.run([program("loadtest"), *args, *across], env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1 and "delivery_cross.count>0" in done.stdout + done.stderr


def test_helm_test_waits_for_two_nodes(tmp_path):
    """Its first container, with a name that has one address, and then two."""
    spec = one(chart(), "Pod")["spec"]
    wait = container(spec, "wait")
    given = {name: entry["value"] for name, entry in variables(wait).items()}
    assert given == {"NAME": "rc-roomcast-headless.chat", "WANTED": "2"} and spec["restartPolicy"] == "Never"
    names = tmp_path / "names"
    names.write_text("")
    tool = tmp_path / "getent"
    # As glibc's prints it: an address three times, a name without any not at all.
    tool.write_text(f'#!/bin/sh\n[ "$1 $2" = "ahosts rc-roomcast-headless.chat" ] || exit 1\ncat {names}; [ -s {names} ] || exit 2\n')
    tool.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    process = subprocess.Popen(wait["command"], env=environment(given | path), stdout=subprocess.PIPE, text=True)

    def answers(addresses):
        text = "".join(f"{address}      {kind} {'x' if kind == 'STREAM' else ''}\n" for address in addresses for kind in ("STREAM", "DGRAM", "RAW"))
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(names)

    try:
        assert process.stdout.readline().startswith("0 of 2")
        answers(["10.0.0.1"])
        wait_for(lambda: process.stdout.readline().startswith("1 of 2"), "one is counted")
        assert process.poll() is None
        answers(["10.0.0.1", "10.0.0.2"])
        assert process.wait(DEADLINE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(DEADLINE)


def test_the_tool_that_counts_nodes_prints_what_is_counted():
    said = subprocess.run(["getent", "ahosts", "127.0.0.1"], capture_output=True, text=True, check=True).stdout
    assert len([line for line in said.splitlines() if "STREAM" in line]) == 1


def test_installs_of_the_docs_wait():
    for file in ("README.md", "docs/kubernetes.md", "helm/roomcast/README.md"):
        text = (ROOT / file).read_text()
        installs = [line for line in text.splitlines() if line.startswith("helm install ")]
        assert installs and all("--wait" in line for line in installs), file


def test_the_values_of_the_docs_are_values():
    """Every YAML example of docs/kubernetes.md that is for `--values` renders."""
    docs = (ROOT / "docs/kubernetes.md").read_text()
    examples = re.findall(r"```yaml\n# values\n(.*?)```", docs, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        assert yaml.safe_load(example), example
        assert chart(example), example
        if "externalRedis" in example:
            assert chart(example, CHART / "values-ha.yaml"), example
