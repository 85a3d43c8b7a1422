"""docker-compose.yml on real containers, under an audited load. Called by scripts/compose-test.sh, which sees to a
running docker and the images; needs nothing but Python and docker.

    python3 stack.py PROJECT COMPOSE...        (COMPOSE: docker-compose, or docker compose)

Prints a line per check, at last `N passed, N failed`; exits 1 when one failed. What it starts has names of the project's
own and free ports, so that it does not meet anybody's stack; at the end it takes all of it away.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT, COMPOSE = sys.argv[1], sys.argv[2:]
# Members: 20 in each of 15 rooms. Little for the nodes, so that a small machine measures them and not itself.
ROOMS, MEMBERS, RATE = 15, 20, 5
CLIENTS = ROOMS * MEMBERS
DEADLINE = 120  # seconds that anything may take on a busy machine

ENVIRONMENT = dict(
    os.environ,
    COMPOSE_PROJECT_NAME=PROJECT,
    GATEWAY_TAG="compose-test",
    HTTP_LISTEN="127.0.0.1:0",
    PROMETHEUS_LISTEN="127.0.0.1:0",
    # What a password should be able to hold.
    REDIS_PASSWORD="p%ss @w:o/r\"d#'\\",
)


def run(*words, check=True, within=DEADLINE, **more):
    """A command's standard output."""
    done = subprocess.run(
        words, cwd=ROOT, env=ENVIRONMENT | more, timeout=within, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout.strip() if check else done


def compose(*words, **more):
    return run(*COMPOSE, *words, **more)


def wait(what, condition, within=DEADLINE):
    """Asks until the condition gives something true, and gives that."""
    end, last = time.monotonic() + within, None
    while time.monotonic() < end:
        try:
            if got := condition():
                return got
        except (AssertionError, OSError, ValueError, KeyError, IndexError) as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"within {within} s not: {what}" + (f" ({last})" if last else ""))


def holds(truth, words):
    if not truth:
        raise AssertionError(words)


def http(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def containers(service):
    ids = compose("ps", "-q", service).split()
    return json.loads(run("docker", "inspect", *ids)) if ids else []


def address(container):
    return next(iter(container["NetworkSettings"]["Networks"].values()))["IPAddress"]


def healthy(count):
    """The nodes, as soon as there are so many and all of them healthy."""
    def look():
        nodes = containers("gateway")
        states = [node["State"].get("Health", {}).get("Status") for node in nodes]
        return nodes if states == ["healthy"] * count else None
    return wait(f"{count} healthy nodes", look)


def published(service, port):
    return compose("port", service, str(port))


def connections(node):
    page = http(f"http://{address(node)}:8081/metrics")
    return int(float(re.search(r"^roomcast_connections (\S+)$", page, re.MULTILINE)[1]))


def everybody_is_back(count):
    """All clients are connected, to so many nodes."""
    return wait("all clients connected", lambda: sum(map(connections, healthy(count))) == CLIENTS)


def balancer_uses(count):
    def look():
        rows = csv.DictReader(http(f"http://{address(containers('haproxy')[0])}:8404/;csv").lstrip("# ").splitlines())
        return sum(row["svname"].startswith("gateway-") and row["status"].startswith("UP") for row in rows) == count
    return wait(f"haproxy uses {count} nodes", look)


def prometheus(query):
    url = f"http://{published('prometheus', 9090)}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    result = json.loads(http(url))["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def prometheus_sees(count):
    return wait(f"prometheus sees {count} nodes", lambda: prometheus('sum(up{job="roomcast"})') == count)


class Load:
    """A load tester on the stack's network, behind the balancer, which goes on until it is told to end."""

    def __init__(self):
        self.id = compose(
            "run", "-d", "loadtest", "chat", "--rooms", str(ROOMS), "--members", str(MEMBERS), "--rate", str(RATE),
            "--duration", "1h", "--max-lag", "5s", "--settle", "60s", "--quiet", "--json", "/dev/stdout",
        ).split()[-1]  # fmt: skip
        everybody_is_back(3)
        self.goes_on()

    def goes_on(self):
        """It runs, and messages are delivered."""
        def delivered():
            counts = r"^roomcast_deliveries_total(?:{.*})? (\S+)$"
            pages = (http(f"http://{address(node)}:8081/metrics") for node in containers("gateway"))
            return sum(float(number) for page in pages for number in re.findall(counts, page, re.MULTILINE))
        state = json.loads(run("docker", "inspect", self.id))[0]["State"]
        holds(state["Running"], f"the load ended: {run('docker', 'logs', self.id, check=False).stderr[-2000:]}")
        before = delivered()
        wait("deliveries go on", lambda: delivered() > before)

    def report(self):
        run("docker", "kill", "--signal", "INT", self.id)
        run("docker", "wait", self.id)
        report = json.loads(run("docker", "logs", self.id))
        run("docker", "rm", self.id)
        return report


PASSED, FAILED = 0, []


def check(what, body):
    global PASSED
    began = time.monotonic()
    try:
        more = body() or 1
        PASSED += more if isinstance(more, int) and not isinstance(more, bool) else 1
        print(f"ok   {what} ({time.monotonic() - began:.0f} s)", flush=True)
        return True
    except Exception as error:  # noqa: BLE001: whatever it is, it is told, and the next check runs
        FAILED.append(what)
        print(f"FAIL {what}\n     {type(error).__name__}: {error}", flush=True)
        return False


def comes_up():
    # As the first lines of docker-compose.yml have it.
    compose("up", "-d", "--build", "--scale", "gateway=3", within=1800)
    healthy(3)
    balancer_uses(3)


def image_is_small_and_rightless():
    image = json.loads(run("docker", "image", "inspect", "roomcast/gateway:compose-test"))[0]
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    config = image["Config"]
    holds(config["User"] == "10001:10001" and config["StopSignal"] == "SIGTERM", f"{config}")
    holds(config["Labels"]["org.opencontainers.image.version"] == version, f"labels: {config['Labels']}")
    holds(f"${{GATEWAY_TAG:-{version}}}" in (ROOT / "docker-compose.yml").read_text(), "docker-compose.yml has another version")
    holds(image["Size"] < 64e6, f"{image['Size'] / 1e6:.0f} MB")
    node = containers("gateway")[0]
    holds(run("docker", "exec", node["Id"], "gateway", "probe") == "ready", "probe")
    refused = run("docker", "exec", node["Id"], "sh", "-c", "true", check=False)
    holds(refused.returncode != 0, "there is a shell in it")
    holds(version in run("docker", "run", "--rm", "--entrypoint", "loadtest", image["Id"], "--version"), "loadtest")
    # Alone, with nothing but itself.
    alone = run("docker", "run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", image["Id"], "config")
    holds('listen = "0.0.0.0:8080"' in alone, alone)


def redis_wants_its_password_and_keeps_what_it_has():
    redis = containers("redis")[0]["Id"]
    holds("NOAUTH" in run("docker", "exec", redis, "redis-cli", "ping"), "without a password")
    asked = ["docker", "exec", "--env", "REDISCLI_AUTH=" + ENVIRONMENT["REDIS_PASSWORD"], redis, "redis-cli"]
    holds(run(*asked, "ping") == "PONG", "with the password")
    holds(run(*asked, "config", "get", "appendonly").split() == ["appendonly", "yes"], "no append-only file")
    holds(run("docker", "exec", redis, "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline").startswith("redis-server "), "not process 1")


def people_chat_in_a_browser():
    balancer = f"http://{published('haproxy', 8080)}"
    options = ["--two-nodes"] + ([f"--picture={picture}"] if (picture := os.environ.get("PICTURE")) else [])
    done = run("node", "gateway/tests/browser/page.mjs", *options, balancer, balancer, check=False, within=300)
    count = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)
    holds(count and count[2] == "0" and done.returncode == 0, done.stdout + done.stderr)
    return int(count[1])


def what_is_watched_is_found():
    prometheus_sees(3)
    wait("haproxy, redis and prometheus itself", lambda: prometheus("count(up == 1)") == 6)
    holds(prometheus("redis_up") == 1, "the exporter does not reach Redis")
    wait("haproxy's own metrics", lambda: prometheus('sum(haproxy_server_status{state="UP"})') == 3)
    if (ROOT / "grafana/alerts.yaml").exists():
        rules = json.loads(http(f"http://{published('prometheus', 9090)}/api/v1/rules"))["data"]["groups"]
        alerts = [rule for group in rules for rule in group["rules"]]
        holds(alerts and all(rule["health"] in ("ok", "unknown") for rule in alerts), f"rules: {alerts}")


def clients_are_spread_evenly():
    counts = [connections(node) for node in containers("gateway")]
    holds(max(counts) - min(counts) <= 6, f"{counts}")


def more_nodes_are_taken_into_use():
    others = {node["Id"] for node in containers("gateway")} | {containers("haproxy")[0]["Id"]}
    compose("up", "-d", "--no-recreate", "--scale", "gateway=5")
    nodes = healthy(5)
    kept = {node["Id"] for node in nodes} | {containers("haproxy")[0]["Id"]}
    holds(others < kept, "something that ran was replaced")
    balancer_uses(5)
    prometheus_sees(5)
    # Those who are there already are shared out, by the nodes.
    wait("the new nodes have clients", lambda: min(connections(node) for node in nodes) >= CLIENTS // 10)


def a_killed_node_comes_back():
    victim = containers("gateway")[0]
    # Not by docker kill, which counts as a stop that somebody wanted: nothing is restarted then. Needs what reach.py asks.
    os.kill(victim["State"]["Pid"], signal.SIGKILL)
    wait("docker restarts it", lambda: json.loads(run("docker", "inspect", victim["Id"]))[0]["RestartCount"] == 1)
    everybody_is_back(5)
    balancer_uses(5)


def a_stopped_node_leaves_gently():
    leaving = max(containers("gateway"), key=connections)
    holds(connections(leaving) > 0, "it has no clients")
    run("docker", "stop", leaving["Id"])
    state = json.loads(run("docker", "inspect", leaving["Id"]))[0]["State"]
    holds(state["ExitCode"] == 0, f"exit code {state['ExitCode']}")
    run("docker", "rm", leaving["Id"])
    everybody_is_back(4)


def fewer_nodes_do():
    compose("up", "-d", "--no-recreate", "--scale", "gateway=3")
    everybody_is_back(3)
    balancer_uses(3)
    prometheus_sees(3)


def redis_is_restarted():
    compose("restart", "redis")
    wait("Redis is healthy", lambda: containers("redis")[0]["State"]["Health"]["Status"] == "healthy")
    everybody_is_back(3)


def another_image(tag, *lines):
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", f"roomcast/gateway:{tag}", "-"], check=True, timeout=DEADLINE,
        input="\n".join(["FROM roomcast/gateway:compose-test", *lines]).encode(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=dict(os.environ, DOCKER_BUILDKIT="0"),
    )  # fmt: skip


def roll(tag, **more):
    return run("scripts/compose-roll.sh", within=600, GATEWAY_TAG=tag, **more)


def image(tag):
    return json.loads(run("docker", "image", "inspect", f"roomcast/gateway:{tag}"))[0]["Id"]


def all_nodes_are(tag):
    wanted = image(tag)
    everybody_is_back(3)
    found = [node["Image"] for node in containers("gateway")]
    holds(found == [wanted] * 3, f"{found}, and not {wanted}")


def upgrade():
    before = image("compose-test")
    # A label stands for new sources: another image, and nothing is compiled.
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as change:
        change.write('services: {gateway: {build: {labels: {next: "yes"}}}}\n')
        change.flush()
        compose("build", within=1800, GATEWAY_TAG="compose-test-next", COMPOSE_FILE=f"docker-compose.yml:{change.name}")
    holds(image("compose-test") == before != image("compose-test-next"), "there is nothing to go back to, or to")
    roll("compose-test-next")
    all_nodes_are("compose-test-next")


def a_broken_upgrade_changes_nothing():
    """It says why, and the same nodes go on."""
    before = {node["Id"] for node in containers("gateway")}

    def refused(tag, *words, **more):
        done = run("scripts/compose-roll.sh", check=False, within=600, GATEWAY_TAG=tag, **more)
        said = done.stdout + done.stderr
        holds(done.returncode == 1 and all(word in said for word in words), f"{tag} ended with {done.returncode}: {said}")
        left = compose("ps", "-a", "-q", "gateway").split()
        holds(set(left) == before, f"{tag}: other nodes run, or are left")

    refused("compose-test-absent", "there is no image roomcast/gateway:compose-test-absent here")
    another_image("compose-test-lame", 'ENTRYPOINT ["/no-such-program"]')
    refused("compose-test-lame", "could not be started", "no-such-program")
    another_image("compose-test-broken", 'ENTRYPOINT ["gateway", "--no-such-flag"]')
    refused("compose-test-broken", "did not become healthy", "--no-such-flag", HEALTHY_WITHIN="5")


def rollback():
    roll("compose-test")
    all_nodes_are("compose-test")


def nothing_was_lost(load):
    load.goes_on()
    report = load.report()
    audit, counts = report["audit"], report["counts"]
    print(f"     {audit['checked']} deliveries audited; findings {audit['findings']}, "
          f"recoveries {audit['recoveries']}, told missing {audit['toldMissing']}, closes {report['closes']}", flush=True)
    holds(report["verdict"] == "passed" and not audit["findings"], f"{report['because']} {audit['examples']}")
    holds(audit["toldMissing"] == 0 and audit["absentMembers"] == 0, f"{audit['toldMissing']}, {audit['absentMembers']}")
    holds(counts["connected"] > CLIENTS and audit["recoveries"].get("resumed", 0) > CLIENTS, f"{counts}")
    holds(audit["recoveries"]["fresh"] == CLIENTS, f"{audit['recoveries']}")
    # What was there to be lost: within the nodes, and from one to another.
    holds(audit["checked"] > 100_000, f"{audit['checked']} deliveries")
    holds({"delivery_same", "delivery_cross"} <= set(report["latencies"]), f"{report['latencies'].keys()}")


def the_load_tester_is_a_service():
    said = compose("run", "--rm", "loadtest", "chat", "--rooms", "5", "--members", "4", "--duration", "3s", "--max-lag", "5s")
    holds("0 lost, 0 duplicated, 0 reordered" in said and said.endswith("passed"), said)


def take_away():
    """Whatever a run that failed has left, containers of `run` included, which down passes over."""
    label = f"label=com.docker.compose.project={PROJECT}"
    if left := run("docker", "ps", "--all", "--quiet", "--filter", label).split():
        run("docker", "rm", "--force", "--volumes", *left)
    compose("down", "-v", "--remove-orphans", "--timeout", "5")


def nothing_is_left():
    compose("down", "-v", "--remove-orphans", "--timeout", "30")
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        holds(run("docker", *kind, "--quiet", "--filter", label) == "", f"docker {kind[0]}")


def under_load():
    load = None

    def begin():
        nonlocal load
        load = Load()

    if not check(f"{CLIENTS} clients come in through the balancer", begin):
        return
    check("clients are spread evenly", clients_are_spread_evenly)
    check("scaled to 5: the balancer, prometheus and clients find the new nodes", more_nodes_are_taken_into_use)
    check("a node is killed: it is restarted, its clients are elsewhere", a_killed_node_comes_back)
    check("a node is stopped: it leaves gently, with 0", a_stopped_node_leaves_gently)
    check("scaled to 3", fewer_nodes_do)
    check("Redis is restarted", redis_is_restarted)
    check("upgrade, one node at a time", upgrade)
    check("upgrades that do not work change nothing: no image, no program, no health", a_broken_upgrade_changes_nothing)
    check("rollback, one node at a time", rollback)
    check("through all of it nothing was lost, repeated or reordered", lambda: nothing_was_lost(load))


def everything():
    if not check("docker-compose up --build --scale gateway=3", comes_up):
        return
    check("the image: a user without rights, no shell, probe, labels, version", image_is_small_and_rightless)
    check("Redis wants its password and keeps what it has", redis_wants_its_password_and_keeps_what_it_has)
    check("two people chat through the balancer from two nodes, in a browser", people_chat_in_a_browser)
    check("prometheus finds the nodes, haproxy and Redis", what_is_watched_is_found)
    check("loadtest runs as a service", the_load_tester_is_a_service)
    under_load()


def main():
    take_away()
    try:
        everything()
        if FAILED:
            print(run(*COMPOSE, "logs", "--tail", "40", check=False).stdout[-20_000:])
        check("docker-compose down -v leaves nothing", nothing_is_left)
    finally:
        take_away()
        for tag in ("compose-test-next", "compose-test-lame", "compose-test-broken"):
            run("docker", "rmi", f"roomcast/gateway:{tag}", check=False)
    print(f"{PASSED} passed, {len(FAILED)} failed", flush=True)
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
