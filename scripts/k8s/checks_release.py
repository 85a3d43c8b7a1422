"""Checks of a release's life: admission, install, upgrade, rollback, load test Job, refusals, uninstall."""

import json
import os
import re

from api import Refused
from context import Context, Watched, check
from processes import Failed

# All that the chart can make at once; numbers small enough for a test.
EVERYTHING = {
    "autoscaling": {
        "enabled": True, "minReplicas": 3, "maxReplicas": 8, "targetCPU": 70,
        "connections": {"enabled": True, "target": 1000}},
    "deployment": {"minReadySeconds": 2},
    "ingress": {"enabled": True, "hosts": [{"host": "chat.example.com"}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["chat.example.com"]},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "networkPolicy": {"enabled": True},
}
KINDS = ["deployments", "statefulsets", "services", "configmaps", "secrets", "serviceaccounts", "horizontalpodautoscalers",
         "poddisruptionbudgets", "networkpolicies", "ingresses", "httproutes", "servicemonitors", "prometheusrules"]


@check("the restricted pod-security level refuses a pod that breaks it")
def restricted_is_on(t: Context):
    try:
        t.api.create("pods", {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "root", "image": "x"}]}}, t.namespace)
    except Refused as refused:
        if refused.code == 403 and 'violates PodSecurity "restricted' in str(refused):
            return
        raise
    raise Failed("a pod without any securityContext was admitted")


def strictly(t: Context, manifests: str) -> int:
    """Has the API server look at objects as if it made them: unknown fields fail, and so does a warning of admission."""
    said = t.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=manifests)
    warned = [line for line in said.splitlines() if line.startswith("Warning:")]
    if warned:
        raise Failed("\n".join(warned))
    names = [line.split(" ")[0] for line in said.splitlines() if line.endswith("(server dry run)")]
    if twice := {name for name in names if names.count(name) > 1}:
        raise Failed(f"more than one object is called {twice}")  # a dry run admits both; an install would not
    return len(names)


@check("an unknown field is refused (the strictness of the following is on)")
def strictness_is_on(t: Context):
    pod = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dta": {}}
    try:
        strictly(t, json.dumps(pod))
    except Failed as refused:
        if 'unknown field "dta"' in str(refused):
            return
        raise
    raise Failed("a ConfigMap with `dta` was admitted")


@check("the API server admits what the chart makes of each of its value files, without a warning")
def value_files(t: Context):
    files = [t.chart + "/" + name for name in sorted(os.listdir(t.chart)) if re.match(r"values-.*\.yaml$", name)]
    ci = t.chart + "/ci"
    files += [f"{ci}/{name}" for name in sorted(os.listdir(ci))] if os.path.isdir(ci) else []
    objects = strictly(t, t.helm("template", t.release, t.chart, "--kube-version", t.notes["version"], "--no-hooks",
                                 "--values", t.values("everything", EVERYTHING)))
    for file in files:
        text = t.helm("template", t.release, t.chart, "--values", file, "--kube-version", t.notes["version"], "--no-hooks")
        objects += strictly(t, text)
    return f"{len(files) + 1} sets of values, {objects} objects"


@check("the pods of `helm test` are admitted")
def hooks(t: Context):
    text = t.helm("template", t.release, t.chart, "--kube-version", t.notes["version"], "--show-only", "templates/tests/*.yaml")
    return f"{strictly(t, text)} objects"


@check("helm refuses what cannot work, and makes nothing")
def refusals(t: Context):
    wrong = [
        (["--set", "replicas=3"], "replicas"),  # a typo of replicaCount
        (["--set", "redis.enabled=false", "--set", "replicaCount=2"], "[Rr]edis"),
        (["--set", "shutdown.terminationGracePeriodSeconds=5"], "[Gg]race"),
    ]
    for words, expected in wrong:
        try:
            t.helm("install", t.release, t.chart, *words)
        except Failed as refused:
            if not re.search(expected, str(refused)):
                raise Failed(f"helm install {' '.join(words)}: expected words on {expected}: {refused}") from None
            continue
        raise Failed(f"helm install {' '.join(words)} was accepted")
    if json.loads(t.helm("list", "--all", "--output", "json")) or t.pods():
        raise Failed("a refused install left a release")
    return f"{len(wrong)} ways"


@check("helm install --wait: all pods ready and restricted, each kind of object there")
def install(t: Context):
    t.helm("install", t.release, t.chart, "--values", t.values("everything", EVERYTHING), "--wait", "--timeout", "3m", timeout=240)
    # Under an autoscaler a Deployment begins with one pod.
    t.settled(3)
    deployment = t.one("deployments")
    if len(t.ready_pods("redis")) != 1:
        raise Failed("Redis is not ready")
    refused = [e["message"] for e in t.api.list("events", t.namespace) if e["reason"] == "FailedCreate"]
    if refused:
        raise Failed(f"pods were refused: {refused}")
    instance = f"app.kubernetes.io/instance={t.release}"
    counts = {kind: len(t.api.list(kind, t.namespace, instance)) for kind in KINDS}
    if missing := [kind for kind, count in counts.items() if count == 0]:
        raise Failed(f"none of {missing}")
    t.notes["template"] = deployment["spec"]["template"]
    t.notes["config"] = t.one("configmaps")["data"] if len(t.api.list("configmaps", t.namespace, t.labels())) == 1 else None
    t.notes["password"] = t.one("secrets", "redis")["data"]
    return f"{sum(counts.values())} objects"


@check("nodes are spread over zones and machines")
def spread(t: Context):
    zones = {n["metadata"]["name"]: n["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in t.api.list("nodes")}
    hosts = [pod["spec"]["nodeName"] for pod in t.ready_pods()]
    if len(set(hosts)) != 3 or len({zones[h] for h in hosts}) != 3:
        raise Failed(f"3 pods on {sorted(hosts)} in {sorted(zones[h] for h in hosts)}")


@check("what selects pods selects the right ones: Services, PDB, NetworkPolicies, ServiceMonitor")
def selectors(t: Context):
    pods = t.api.list("pods", t.namespace)

    def chosen(labels: dict) -> set[str]:
        return {p["metadata"]["name"] for p in pods if labels.items() <= p["metadata"]["labels"].items()}

    nodes = {p["metadata"]["name"] for p in t.pods()}
    wrong = []
    services = t.api.list("services", t.namespace, t.labels())
    for service in services:
        if chosen(service["spec"]["selector"]) != nodes:
            wrong.append(service["metadata"]["name"])
        ports = {p["name"]: p for p in service["spec"]["ports"]}
        slices = t.api.list("endpointslices", t.namespace, f"kubernetes.io/service-name={service['metadata']['name']}")
        backed = {e["targetRef"]["name"] for s in slices for e in s["endpoints"] if e["conditions"]["ready"]}
        if backed != nodes or any(p["name"] not in ports or not p["port"] for s in slices for p in s["ports"]):
            wrong.append(f"{service['metadata']['name']}: endpoints {backed}")
    for budget in t.api.list("poddisruptionbudgets", t.namespace, t.labels()):
        if chosen(budget["spec"]["selector"]["matchLabels"]) != nodes:
            wrong.append(budget["metadata"]["name"])
    for policy in t.api.list("networkpolicies", t.namespace, t.labels()):
        if chosen(policy["spec"]["podSelector"].get("matchLabels", {})) != nodes:
            wrong.append(policy["metadata"]["name"])
    for monitor in t.api.list("servicemonitors", t.namespace):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        fitting = [s for s in services if wanted.items() <= s["metadata"]["labels"].items()]
        names = [e["port"] for e in monitor["spec"]["endpoints"]]
        # More than one Service would have each node scraped twice.
        if len(fitting) != 1 or not set(names) <= {p["name"] for p in fitting[0]["spec"]["ports"]}:
            wrong.append(f"ServiceMonitor: {[s['metadata']['name'] for s in fitting]}, ports {names}")
    if wrong:
        raise Failed(str(wrong))


@check("helm upgrade --wait replaces each node, with never fewer ready than asked for and one more at most")
def upgrade(t: Context):
    before = {p["metadata"]["name"] for p in t.pods()}
    with Watched(t) as watched:
        t.helm("upgrade", t.release, t.chart, "--reuse-values", "--set", "config.maxConnections=4321", "--wait", "--timeout", "3m", timeout=240)
        t.settled(3)
    after = {p["metadata"]["name"] for p in t.ready_pods()}
    if before & after or len(after) != 3:
        raise Failed(f"before {before}, after {after}")
    if watched.fewest < 3 or watched.most > 4:
        raise Failed(f"between {watched.fewest} ready and {watched.most} pods")
    if "4321" not in json.dumps(t.api.list("configmaps", t.namespace, t.labels())):
        raise Failed("the setting did not arrive")
    if t.one("secrets", "redis")["data"] != t.notes["password"]:
        raise Failed("the upgrade changed Redis' password")
    if [h["revision"] for h in t.history()] != [1, 2]:
        raise Failed(str(t.history()))
    return f"{watched.looks} looks"


@check("helm upgrade without a change replaces nothing")
def idle_upgrade(t: Context):
    before = sorted(p["metadata"]["name"] for p in t.pods())
    t.helm("upgrade", t.release, t.chart, "--reuse-values", "--wait", "--timeout", "1m")
    deployment = t.one("deployments")
    if sorted(p["metadata"]["name"] for p in t.pods()) != before or deployment["status"]["updatedReplicas"] != 3:
        raise Failed(f"before {before}, after {sorted(p['metadata']['name'] for p in t.pods())}")


@check("helm rollback --wait brings the first revision back, as gently")
def rollback(t: Context):
    with Watched(t) as watched:
        t.helm("rollback", t.release, "1", "--wait", "--timeout", "3m", timeout=240)
        t.settled(3)
    if watched.fewest < 3 or watched.most > 4:
        raise Failed(f"between {watched.fewest} ready and {watched.most} pods")
    if t.one("deployments")["spec"]["template"] != t.notes["template"]:
        raise Failed("the pods' template is another one")
    if t.notes["config"] and t.one("configmaps")["data"] != t.notes["config"]:
        raise Failed("the configuration is another one")
    if t.one("secrets", "redis")["data"] != t.notes["password"]:
        raise Failed("the rollback changed Redis' password")
    last = t.history()[-1]
    if last["status"] != "deployed" or "Rollback to 1" not in last["description"]:
        raise Failed(str(last))


@check("the load test's Job: its pods are admitted, and the Job and its merge come to an end")
def loadtest(t: Context):
    t.helm("upgrade", t.release, t.chart, "--reuse-values", "--set", "loadtest.enabled=true", "--set", "loadtest.startInSeconds=5",
           "--wait", "--timeout", "2m")

    def done():
        jobs = [j for j in t.api.list("jobs", t.namespace) if "loadtest" in j["metadata"]["name"]]
        return len(jobs) == 2 and all(j.get("status", {}).get("succeeded") == j["spec"]["completions"] for j in jobs) and len(jobs)
    t.wait("two Jobs complete", done, 90)
    t.helm("upgrade", t.release, t.chart, "--reuse-values", "--set", "loadtest.enabled=false", "--wait", "--timeout", "2m")


def uninstall(t: Context):
    """Called last, when the other files' checks have had their release."""
    t.helm("uninstall", t.release, "--wait", "--timeout", "2m")
    instance = f"app.kubernetes.io/instance={t.release}"
    t.wait("the pods to be gone", lambda: not [p for p in t.api.list("pods", t.namespace, instance)])
    left = {kind: [i["metadata"]["name"] for i in t.api.list(kind, t.namespace, instance)] for kind in [*KINDS, "jobs", "replicasets"]}
    left["helm's own"] = [s["metadata"]["name"] for s in t.api.list("secrets", t.namespace, "owner=helm")]
    if any(left.values()):
        raise Failed(f"left: { {k: v for k, v in left.items() if v} }")
    claims = [c["metadata"]["name"] for c in t.api.list("persistentvolumeclaims", t.namespace)]
    return f"kept on purpose: the data's claim {claims}" if claims else None
