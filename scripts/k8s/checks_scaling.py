"""Checks of what moves nodes: the autoscaler on the connections metric, disruption budgets, drains."""

from api import Refused
from checks_release import EVERYTHING
from context import Context, Watched, check
from processes import Failed


def autoscaler(t: Context) -> dict:
    return t.one("horizontalpodautoscalers")


def condition(t: Context, kind: str) -> dict:
    return next((c for c in autoscaler(t)["status"].get("conditions", []) if c["type"] == kind), {})


def load(t: Context, *connections: int):
    """Gives the nodes these connections, one number each; nodes that come later have none, as in life."""
    names = sorted(p["metadata"]["name"] for p in t.pods())
    t.notes["pages"].connections = dict(zip(names, connections))


def served(t: Context) -> dict[str, int]:
    """What the custom metrics API says of each node."""
    path = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{t.namespace}/pods/*/roomcast_connections"
    items = t.api.call("GET", path)["items"]
    return {i["describedObject"]["name"]: number(i["value"]) for i in items}


def number(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity.replace("k", "e3"))


@check("the custom metrics API serves each node's connections as Prometheus scraped them")
def metric_served(t: Context):
    load(t, 300, 20, 1)
    t.wait("300, 20 and 1", lambda: served(t) == t.notes["pages"].connections)


@check("the autoscaler reads both metrics and leaves a cluster alone that is busy enough")
def scaler_content(t: Context):
    load(t, 950, 950, 950)
    t.wait("both metrics", lambda: {m["type"] for m in autoscaler(t)["status"].get("currentMetrics", [])} == {"Pods", "Resource"}, 90)
    if condition(t, "ScalingActive")["status"] != "True" or autoscaler(t)["status"]["desiredReplicas"] != 3:
        raise Failed(str(autoscaler(t)["status"]))


@check("connections above the target bring nodes: 4800 at 1000 per node make 5")
def scale_up(t: Context):
    load(t, 1600, 1600, 1600)
    t.wait("5 nodes ready", lambda: len(t.ready_pods()) == 5)
    status = autoscaler(t)["status"]
    if status["desiredReplicas"] != 5:
        raise Failed(str(status))
    # Four of five busy: the new nodes, still empty, are counted, so that it stops there.
    t.wait("960 per node seen", lambda: any(
        m["type"] == "Pods" and number(m["pods"]["current"]["averageValue"]) == 960 for m in autoscaler(t)["status"]["currentMetrics"]))
    if autoscaler(t)["status"]["desiredReplicas"] != 5:
        raise Failed(str(autoscaler(t)["status"]))


@check("not beyond the most allowed")
def scale_limit(t: Context):
    load(t, *[9000] * 5)
    # Its policy: four pods or twice as many within a minute, so that the last one comes in the next.
    t.wait("8 nodes ready", lambda: len(t.ready_pods()) == 8, 120)
    t.wait("the limit named", lambda: condition(t, "ScalingLimited").get("reason") == "TooManyReplicas")


@check("helm upgrade and helm rollback leave the number of nodes to the autoscaler")
def upgrade_keeps_number(t: Context):
    with Watched(t) as watched:
        t.helm("upgrade", t.release, t.chart, "--reuse-values", "--wait", "--timeout", "2m")
        t.helm("rollback", t.release, "--wait", "--timeout", "2m")
    if watched.fewest != 8 or watched.most != 8 or t.one("deployments")["spec"]["replicas"] != 8:
        raise Failed(f"between {watched.fewest} ready and {watched.most}")


@check("fewer connections: no node goes before the window of stabilisation is over")
def scale_down_waits(t: Context):
    load(t, 100, 100, 100)
    t.wait("the window named", lambda: condition(t, "AbleToScale").get("reason") == "ScaleDownStabilized")
    if t.one("deployments")["spec"]["replicas"] != 8:
        raise Failed("nodes went at once")


@check("and then one at a time")
def scale_down_slowly(t: Context):
    behavior = {"scaleUp": {"stabilizationWindowSeconds": 0},
                "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 2}]}}
    faster = {**EVERYTHING, "autoscaling": {**EVERYTHING["autoscaling"], "behavior": behavior}}
    with Watched(t) as watched:
        t.helm("upgrade", t.release, t.chart, "--values", t.values("faster", faster), "--wait", "--timeout", "2m")
        t.wait("3 nodes", lambda: len(t.ready_pods()) == 3 and t.one("deployments")["spec"]["replicas"] == 3)
    if watched.counts != [8, 7, 6, 5, 4, 3]:
        raise Failed(f"numbers of pods: {watched.counts}")


@check("an autoscaler that cannot see says so and changes nothing")
def blind(t: Context):
    t.notes["stop_adapter"]()
    load(t, 5000, 5000, 5000)
    t.wait("ScalingActive false", lambda: condition(t, "ScalingActive").get("status") == "False")
    reason = condition(t, "ScalingActive")["reason"]
    load(t, 950, 950, 950)
    t.notes["start_adapter"]()
    with Watched(t) as watched:
        t.wait("ScalingActive again", lambda: condition(t, "ScalingActive").get("status") == "True")
    if watched.counts != [3]:
        raise Failed(f"numbers of pods: {watched.counts}")
    return reason


def refused_by_budget(t: Context, pod: dict) -> bool:
    try:
        t.api.evict(pod)
    except Refused as refused:
        causes = refused.status.get("details", {}).get("causes", [])
        if refused.code == 429 and any(c.get("reason") == "DisruptionBudget" for c in causes):
            return True
        raise
    return False


@check("the disruption budget lets one node go, and refuses the second until another is ready")
def budget(t: Context):
    first, second, *_ = t.ready_pods()
    for node in t.notes["nodes"]:  # without a machine to go to, the replacement stays pending
        t.api.patch("nodes", node, {"spec": {"unschedulable": True}})
    t.wait("a disruption allowed", lambda: t.one("poddisruptionbudgets")["status"]["disruptionsAllowed"] == 1)
    if refused_by_budget(t, first):
        raise Failed("the first eviction was refused")
    t.wait("the budget to have noticed", lambda: t.one("poddisruptionbudgets")["status"]["disruptionsAllowed"] == 0)
    if not refused_by_budget(t, second):
        raise Failed("the second eviction was admitted, while one node was missing")
    for node in t.notes["nodes"]:
        t.api.patch("nodes", node, {"spec": {"unschedulable": None}})
    t.wait("3 nodes ready", lambda: len(t.ready_pods()) == 3)
    t.wait("the second eviction to be admitted", lambda: not refused_by_budget(t, second))
    t.wait("3 nodes ready", lambda: len(t.ready_pods()) == 3 and second["metadata"]["name"] not in [p["metadata"]["name"] for p in t.pods()])


@check("kubectl drain of a machine that holds all nodes takes them one by one")
def drain(t: Context):
    machine, *others = t.notes["nodes"]
    for node in others:
        t.api.patch("nodes", node, {"spec": {"unschedulable": True}})
    # All nodes onto one machine.
    t.kubectl("rollout", "restart", "deployment", "--namespace", t.namespace, "--selector", t.labels())
    t.wait("all on one machine", lambda: {p["spec"].get("nodeName") for p in t.pods()} == {machine} and len(t.ready_pods()) == 3, 90)
    for node in others:
        t.api.patch("nodes", node, {"spec": {"unschedulable": None}})
    with Watched(t) as watched:
        t.kubectl("drain", machine, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
    t.api.patch("nodes", machine, {"spec": {"unschedulable": None}})
    t.wait("3 nodes ready", lambda: len(t.ready_pods()) == 3)
    if machine in {p["spec"]["nodeName"] for p in t.pods()}:
        raise Failed("nodes stayed on the machine")
    if watched.fewest < 2:
        raise Failed(f"only {watched.fewest} were ready")
    return f"never fewer than {watched.fewest} ready"


@check("switching the autoscaler on leaves 6 nodes 6, and so does the upgrade after that")
def switched_on(t: Context):
    """In a release of its own, which began without."""
    name, deployment = "switch", "switch-roomcast"
    less = ["--set", "redis.persistence.enabled=false", "--set", "deployment.minReadySeconds=0"]
    t.helm("install", name, t.chart, *less, "--set", "replicaCount=6", "--wait", "--timeout", "2m")

    def replicas() -> int:
        return t.api.get("deployments", deployment, t.namespace)["spec"]["replicas"]

    scaler = ["--set", "autoscaling.enabled=true", "--set", "autoscaling.minReplicas=6"]
    for revision in (2, 3):
        t.helm("upgrade", name, t.chart, *less, "--set", "replicaCount=6", *scaler, "--set", f"podLabels.revision=r{revision}")
        if replicas() != 6:
            raise Failed(f"revision {revision} made {replicas()} of 6 nodes")
    t.kubectl("scale", f"deployment/{deployment}", "--replicas=8", "--namespace", t.namespace)
    t.helm("upgrade", name, t.chart, *less, *scaler)
    if replicas() != 8:
        raise Failed(f"the next upgrade made {replicas()} of 8 nodes")
    t.helm("uninstall", name, "--wait", "--timeout", "2m")
