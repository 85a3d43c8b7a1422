"""Checks of k8s/, for those without Helm: what kustomize makes of it is admitted, and becomes ready pods."""

import base64
import json
import os

from checks_release import strictly
from context import Context, check
from processes import Failed

NAMESPACE = "roomcast"  # that of the manifests


@check("kubectl apply -k: the base and each overlay are admitted, without a warning")
def overlays(t: Context):
    t.cluster.namespace(NAMESPACE, "restricted")
    top = os.path.join(t.notes["manifests"], "overlays")
    folders = [os.path.join(t.notes["manifests"], "base"), *(os.path.join(top, name) for name in sorted(os.listdir(top)))]
    counts = [strictly(t, t.kubectl("kustomize", folder)) for folder in folders]
    return f"{len(folders)} folders, {sum(counts)} objects"


def number_is_kept(t: Context):
    """From the base, with 6 nodes, to the autoscaled overlay, by the steps of k8s/README.md."""
    t.kubectl("scale", "deployment/roomcast", "--replicas=6", "--namespace", NAMESPACE)
    last = json.loads(t.kubectl("apply", "view-last-applied", "deployment/roomcast", "--output", "json", "--namespace", NAMESPACE))
    del last["spec"]["replicas"]
    t.kubectl("apply", "set-last-applied", "-f", "-", "--namespace", NAMESPACE, stdin=json.dumps(last))
    t.kubectl("apply", "-k", os.path.join(t.notes["manifests"], "overlays/production"))
    replicas = t.api.get("deployments", "roomcast", NAMESPACE)["spec"]["replicas"]
    if replicas != 6:
        raise Failed(f"the overlay made {replicas} of 6 nodes")


@check("kubectl apply -k k8s/base: all pods ready; the overlay keeps their number; delete -k takes all away")
def base(t: Context):
    folder = os.path.join(t.notes["manifests"], "base")
    password = base64.b64encode(b"a word for the test").decode()
    t.api.create("secrets", {"metadata": {"name": "roomcast-redis-password"}, "data": {"redis-password": password}}, NAMESPACE)
    t.kubectl("apply", "-k", folder)

    def available():
        status = t.api.get("deployments", "roomcast", NAMESPACE)["status"]
        return status.get("availableReplicas", 0) >= 2 and status.get("updatedReplicas") == status.get("replicas") and status
    t.wait("the nodes available", available, 90)
    t.wait("Redis ready", lambda: t.api.get("statefulsets", "roomcast-redis", NAMESPACE)["status"].get("readyReplicas") == 1)
    number_is_kept(t)
    t.kubectl("delete", "-k", os.path.join(t.notes["manifests"], "overlays/production"), "--ignore-not-found")
    t.kubectl("delete", "-k", folder, "--ignore-not-found")
    t.wait("no pod left", lambda: not t.api.list("pods", NAMESPACE))
    left = [i["metadata"]["name"] for kind in ("deployments", "statefulsets", "services", "networkpolicies", "poddisruptionbudgets")
            for i in t.api.list(kind, NAMESPACE)]
    if left:
        raise Failed(f"left: {left}")
