"""`make k8s-test ARGS=--real`: one node with containerd and kubelet, on which the chart's pods really run and chat.

Started by scripts/k8s-test.sh inside namespaces of its own. All programs are found by PATH. The last line is
`N passed, N failed`."""

import argparse
import os
import shutil
import signal
import sys

import checks_chat  # noqa: F401 - registers its checks
import images
import metrics
import real_node
from cluster import Cluster
from context import Context, run_checks
from processes import Processes


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--chart", required=True, help="directory of the chart")
    options.add_argument("--rules", required=True, help="file with the adapter's rules")
    options.add_argument("--binaries", required=True, help="directory with gateway and loadtest")
    options.add_argument("--version", required=True, help="the gateway's version: the tag that the chart asks for")
    options.add_argument("--home", required=True, help="an empty directory, which the caller takes away: volumes are mounted there")
    options.add_argument("--logs", required=True, help="directory for the logs, which stay")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    home = given.home
    os.chmod(home, 0o755)  # the pods' users must reach their volumes
    shutil.rmtree(given.logs, ignore_errors=True)
    processes = Processes(given.logs)
    real_node.prepare()
    try:
        cluster = Cluster(home, processes, real_node.USERS, real_node.ADDRESS)
        cluster.start()
        node = real_node.RealNode(cluster, [images.gateway(f"docker.io/roomcast/gateway:{given.version}", given.binaries),
                                            images.redis("docker.io/library/redis:7-bookworm")])
        data = cluster.file("data")
        os.makedirs(data)
        os.chmod(data, 0o777)
        cluster.api.create("persistentvolumes", {
            "metadata": {"name": "data"},
            "spec": {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": data}}})
        pages = metrics.Pages(cluster, "app.kubernetes.io/name=roomcast,app.kubernetes.io/component=gateway", fake=False)
        url = metrics.prometheus(cluster, pages)
        metrics.Adapter(cluster, url, metrics.rules(given.rules))
        cluster.namespace("chat", "restricted")
        context = Context(cluster, given.chart)
        context.notes["prometheus"] = url
        context.notes["version"] = cluster.api.call("GET", "/version")["gitVersion"].lstrip("v")
        print(f"Kubernetes {context.notes['version']}, a node with {node.runtime()}; logs in {given.logs}", flush=True)
        passed, failed = run_checks(context)
        node.stop()
    finally:
        processes.stop_all()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
