"""Nodes without machines: kwok plays the kubelet, so that pods become Ready and end, while nothing runs in them."""

from cluster import Cluster

ZONES = ["zone-a", "zone-b", "zone-c"]


def start(cluster: Cluster, count: int) -> list[str]:
    """Starts kwok and makes `count` nodes spread over three zones."""
    names = []
    for number in range(count):
        name, zone = f"node-{number}", ZONES[number % len(ZONES)]
        capacity = {"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
        cluster.api.create("nodes", {
            "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
                         "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                                    "topology.kubernetes.io/zone": zone}},
            "status": {"capacity": capacity, "allocatable": capacity}})
        names.append(name)
    cluster.processes.start("kwok", [
        "kwok", "--kubeconfig", cluster.kubeconfig, "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--cidr=10.244.0.0/16", "--node-ip=127.0.0.1",
        # Without leases it says too seldom that the nodes live, and the control plane gives them up.
        "--node-lease-duration-seconds=40"],
        {"KUBE_FEATURE_WatchListClient": "false"})
    cluster.wait(f"{count} nodes ready", lambda: sum(is_ready(n) for n in cluster.api.list("nodes")) == count)
    return names


def is_ready(node: dict) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
