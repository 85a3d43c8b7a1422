"""`make k8s-test`: a real control plane with kwok's nodes, and the chart's checks on it.

kwok makes pods Ready without running anything in them: what the API server, the controllers, the scheduler and Helm do
is real; what the gateway does is other tests' subject. All programs are found by PATH. The last line is `N passed, N failed`."""

import argparse
import os
import shutil
import signal
import sys
import tempfile

import checks_manifests  # noqa: F401 - registers its checks
import checks_release
import checks_scaling  # noqa: F401 - registers its checks
import fake_nodes
import metrics
from cluster import Cluster
from context import CHECKS, Context, run_checks
from processes import Processes, run

NODES = 6


def custom_resources(cluster: Cluster, folder: str):
    """The definitions of others' resources: the API server then checks ours against them."""
    files = sorted(os.listdir(folder))
    for file in (f for f in files if f.endswith(".yaml")):
        run(["kubectl", "--kubeconfig", cluster.kubeconfig, "create", "-f", os.path.join(folder, file)])

    def established():
        kinds = cluster.api.list("customresourcedefinitions")
        return kinds and all(any(c["type"] == "Established" and c["status"] == "True" for c in k["status"].get("conditions", []))
                             for k in kinds)
    cluster.wait("the resource definitions", established)


def volumes(cluster: Cluster, home: str):
    """Volumes that the claims of Redis may have: nothing here makes them on demand."""
    for name in ["first", "second"]:
        cluster.api.create("persistentvolumes", {
            "metadata": {"name": name},
            "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": home}}})


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--chart", required=True, help="directory of the chart")
    options.add_argument("--manifests", required=True, help="directory of the manifests for kustomize")
    options.add_argument("--definitions", required=True, help="directory of others' custom resource definitions")
    options.add_argument("--rules", required=True, help="file with the adapter's rules")
    options.add_argument("--logs", required=True, help="directory for the logs, which stay")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    home = tempfile.mkdtemp(prefix="roomcast-k8s-")
    shutil.rmtree(given.logs, ignore_errors=True)
    processes = Processes(given.logs)
    try:
        cluster = Cluster(home, processes)
        cluster.start()
        nodes = fake_nodes.start(cluster, NODES)
        custom_resources(cluster, given.definitions)
        volumes(cluster, home)
        pages = metrics.Pages(cluster, "app.kubernetes.io/name=roomcast,app.kubernetes.io/component=gateway", fake=True)
        adapter = metrics.Adapter(cluster, metrics.prometheus(cluster, pages), metrics.rules(given.rules))
        cluster.namespace("chat", "restricted")
        cluster.namespace("monitoring")  # where some value files put what the Prometheus operator reads
        context = Context(cluster, given.chart)
        version = cluster.api.call("GET", "/version")["gitVersion"].lstrip("v")
        context.notes.update(pages=pages, manifests=given.manifests, nodes=nodes, version=version, stop_adapter=adapter.stop, start_adapter=adapter.start)
        print(f"Kubernetes {version}, {len(nodes)} nodes of kwok; logs in {given.logs}", flush=True)
        CHECKS.append(("helm uninstall leaves nothing", checks_release.uninstall))
        passed, failed = run_checks(context)
    finally:
        processes.stop_all()
        shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
