"""Checks on a node that runs its pods: helm test, an upgrade and a rollback under audited load, the metric as it is scraped."""

import json
import re
import urllib.parse
import urllib.request

from api import Refused
from context import Context, Watched, check
from processes import Failed

# Small, and quick to end: one machine holds all of it.
SMALL = {
    "replicaCount": 2,
    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    "redis": {"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}, "maxmemory": "64mb"},
    "deployment": {"minReadySeconds": 2},
    "shutdown": {"preStopSeconds": 3, "drainSeconds": 5, "marginSeconds": 10},
    "loadtest": {"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}},
}


@check("helm install --wait: gateways and Redis run under the restricted level, and are ready")
def install(t: Context):
    t.helm("install", t.release, t.chart, "--values", t.values("small", SMALL), "--wait", "--timeout", "3m", timeout=240)
    statuses = [s for pod in t.ready_pods() for s in pod["status"]["containerStatuses"]]
    if len(statuses) != 2 or any(s["restartCount"] or "running" not in s["state"] for s in statuses):
        raise Failed(json.dumps(statuses))


@check("helm test: rooms with members on both nodes, every message audited")
def helm_test(t: Context):
    said = t.helm("test", t.release, "--logs", "--timeout", "3m", timeout=240)
    if "Succeeded" not in said:
        raise Failed(said[-2000:])
    t.notes["test"] = said


@check("roomcast_connections as Prometheus scrapes it from the pods arrives at the custom metrics API")
def metric(t: Context):
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{t.namespace}/pods/*/roomcast_connections"
    names = {p["metadata"]["name"] for p in t.pods()}
    t.wait("a number for each pod", lambda: {i["describedObject"]["name"] for i in t.api.call("GET", path)["items"]} == names)


def load(t: Context, seconds: int) -> str:
    """Starts the chart's load test as objects of its own, since an upgrade of the release would replace it."""
    text = t.helm("template", t.release, t.chart, "--is-upgrade", "--values", t.values("load", {
        # To the Service: the addresses behind the headless one, which the load tester asks for once, do not outlive the nodes.
        **SMALL, "loadtest": {**SMALL["loadtest"], "enabled": True, "processes": 2, "startInSeconds": 15,
                              "targets": ["ws://chat-roomcast:80"],
                              "args": ["--rooms", "10", "--members", "10", "--rate", "1", "--duration", f"{seconds}s",
                                       # The audit counts here, not the machine's speed.
                                       "--max-lag", "5s"]}}),
        "--show-only", "templates/loadtest.yaml", "--kube-version", t.notes["version"])
    t.kubectl("apply", "--namespace", t.namespace, "-f", "-", stdin=text)
    name, = [j["metadata"]["name"] for j in t.api.list("jobs", t.namespace) if j["metadata"]["name"].endswith("-merge")]
    t.notes["load"] = text
    t.wait("its clients at work", lambda: published(t) > 5, 120)
    return name


def published(t: Context) -> float:
    """Messages per second that the nodes take, as Prometheus sees it."""
    query = urllib.parse.quote("sum(rate(roomcast_publishes_total[5s]))")
    with urllib.request.urlopen(f"{t.notes['prometheus']}/api/v1/query?query={query}", timeout=5) as answer:
        return sum(float(r["value"][1]) for r in json.load(answer)["data"]["result"])


def verdict(t: Context, merge: str) -> str:
    """Waits for the merged report, and returns what its audit says of the messages."""
    def ended():
        status = t.api.get("jobs", merge, t.namespace).get("status", {})
        return status if status.get("succeeded") or status.get("failed") else None
    try:
        status = t.wait("the load test's end", ended, 240)
        said = t.kubectl("logs", "--namespace", t.namespace, f"job/{merge}", "--container", "merge")
    finally:
        t.kubectl("delete", "--namespace", t.namespace, "--wait", "-f", "-", stdin=t.notes["load"])
    if not status.get("succeeded"):
        raise Failed(said)
    with open(t.cluster.processes.log(f"report-{merge}-{len(t.notes)}"), "w") as out:
        out.write(said)
    t.notes[f"report-{len(t.notes)}"] = said
    return "; ".join(line.strip() for line in said.splitlines() if re.match(r"\s*(connections|found) ", line))[:400]


@check("a rolling upgrade and a rollback under load: nothing lost, nothing twice")
def rolling(t: Context):
    merge = load(t, 60)
    before = {p["metadata"]["name"] for p in t.pods()}
    with Watched(t) as watched:
        t.helm("upgrade", t.release, t.chart, "--reuse-values", "--set", "config.maxConnections=4321", "--wait", "--timeout", "3m", timeout=240)
        t.settled(2)
        between = {p["metadata"]["name"] for p in t.ready_pods()}
        t.helm("rollback", t.release, "--wait", "--timeout", "3m", timeout=240)
        t.settled(2)
    after = {p["metadata"]["name"] for p in t.ready_pods()}
    said = verdict(t, merge)
    if before & between or between & after:
        raise Failed(f"nodes were not replaced: {before} {between} {after}")
    if watched.fewest < 2:
        raise Failed(f"only {watched.fewest} were ready")
    return said


@check("an eviction under load: the budget lets one go, clients move, nothing lost")
def eviction(t: Context):
    merge = load(t, 30)
    pod, other, *_ = t.ready_pods()
    t.api.evict(pod)
    try:
        t.api.evict(other)
    except Refused as refused:
        if refused.code != 429:
            raise
    else:
        raise Failed("both nodes were let go")
    return verdict(t, merge)


@check("helm uninstall ends them all")
def uninstall(t: Context):
    t.helm("uninstall", t.release, "--wait", "--timeout", "2m")
    t.wait("the pods to be gone", lambda: not t.pods() and not t.pods("redis"), 90)
