"""The metrics road of a cluster: pages -> a real Prometheus -> prometheus-adapter -> custom.metrics.k8s.io -> HPA.

kwok's pods have no page, so `Pages` answers for them with the numbers that a check has given. From Prometheus on
everything is what a real cluster has."""

import base64
import http.server
import json
import os
import threading
import time

from cluster import Cluster
from processes import Failed, free_port

CORES = 0.1  # that each pod's container uses
# The adapter can stand in for metrics-server: CPU and memory of containers from the kubelet's own series.
RESOURCES = {
    "cpu": {
        "containerQuery": "sum(rate(container_cpu_usage_seconds_total{<<.LabelMatchers>>}[10s])) by (<<.GroupBy>>)",
        "nodeQuery": "sum(rate(node_cpu_seconds_total{<<.LabelMatchers>>}[10s])) by (<<.GroupBy>>)",
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}, "node": {"resource": "node"}}},
        "containerLabel": "container",
    },
    "memory": {
        "containerQuery": "sum(container_memory_working_set_bytes{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
        "nodeQuery": "sum(node_memory_working_set_bytes{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}, "node": {"resource": "node"}}},
        "containerLabel": "container",
    },
    "window": "10s",
}


class Pages:
    """What Prometheus asks: which pods there are (/targets), since Debian's cannot ask Kubernetes; and with `fake` a metrics
    page for each of them, at /pods/<name>: as many connections as `connections` says, otherwise none, and what the kubelet
    would say of its container. Without `fake` each pod is asked at its own admin port."""

    def __init__(self, cluster: Cluster, selector: str, fake: bool):
        self.cluster, self.selector, self.fake = cluster, selector, fake
        self.connections: dict[str, int] = {}
        self.began = time.monotonic()
        pages = self

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802 - the name is the library's
                try:
                    self.reply()
                except ConnectionError:  # Prometheus has ended, or given up
                    pass

            def reply(self):
                if self.path == "/targets":
                    kind, text = "application/json", json.dumps(pages.targets()).encode()
                else:
                    kind, text = "text/plain; version=0.0.4", pages.page(self.path.rsplit("/", 1)[-1]).encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def targets(self) -> list[dict]:
        found = []
        for pod in self.cluster.api.call("GET", f"/api/v1/pods?labelSelector={self.selector}")["items"]:
            meta, status = pod["metadata"], pod["status"]
            if status.get("phase") != "Running" or not status.get("podIP"):
                continue
            labels = {"namespace": meta["namespace"], "pod": meta["name"]}
            if self.fake:
                labels["__metrics_path__"] = f"/pods/{meta['name']}"
            found.append({"targets": [self.address if self.fake else f"{status['podIP']}:8081"], "labels": labels})
        return found

    def page(self, pod: str) -> str:
        used = (time.monotonic() - self.began) * CORES
        return (f"# TYPE roomcast_connections gauge\nroomcast_connections {self.connections.get(pod, 0)}\n"
                "# TYPE container_cpu_usage_seconds_total counter\n"
                f'container_cpu_usage_seconds_total{{container="gateway"}} {used:.3f}\n'
                "# TYPE container_memory_working_set_bytes gauge\n"
                'container_memory_working_set_bytes{container="gateway"} 100000000\n')


def prometheus(cluster: Cluster, pages: Pages) -> str:
    """Starts Prometheus, and returns its URL."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "pods", "http_sd_configs": [{
            "url": f"http://{pages.address}/targets", "refresh_interval": "1s"}]}]}
    os.makedirs(cluster.file("prometheus"))
    with open(cluster.file("prometheus", "prometheus.yml"), "w") as out:
        json.dump(config, out)
    cluster.processes.start("prometheus", [
        "prometheus", f"--config.file={cluster.file('prometheus', 'prometheus.yml')}",
        f"--storage.tsdb.path={cluster.file('prometheus', 'data')}", f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=1h"])
    return f"http://127.0.0.1:{port}"


def rules(document: str) -> str:
    """The adapter's rules, as the document tells a cluster's owner to write them: the block of YAML with `seriesQuery`."""
    with open(document) as file:
        blocks = file.read().split("```")
    fitting = [block.partition("\n")[2] for block in blocks[1::2] if block.startswith("yaml\n") and "seriesQuery" in block]
    if len(fitting) != 1:
        raise Failed(f"{document}: {len(fitting)} blocks with `seriesQuery`")
    lines = fitting[0].rstrip().splitlines()
    # The values of the adapter's chart have the rules under `rules.custom`, its own file directly under `rules`.
    if "custom:" in (line.strip() for line in lines):
        lines = ["rules:", *lines[[line.strip() for line in lines].index("custom:") + 1:]]
    return "\n".join(lines)


class Adapter:
    """prometheus-adapter with `rules`, behind custom.metrics.k8s.io and metrics.k8s.io."""

    def __init__(self, cluster: Cluster, prometheus_url: str, rules: str):
        self.cluster, self.prometheus_url, self.port = cluster, prometheus_url, free_port()
        cluster.leaf("adapter", "ca", "DNS:localhost,DNS:adapter.metrics.svc")
        with open(cluster.file("adapter.yaml"), "w") as out:
            out.write(f"{rules}\nresourceRules: {json.dumps(RESOURCES)}\n")
        self.start()
        cluster.namespace("metrics")
        # The adapter runs beside the API server, not in a pod: an ExternalName is how a service may point there.
        cluster.api.create("services", {"metadata": {"name": "adapter"},
                                        "spec": {"type": "ExternalName", "externalName": "localhost"}}, "metrics")
        with open(cluster.pki("ca.crt"), "rb") as file:
            bundle = base64.b64encode(file.read()).decode()
        for group in ["custom.metrics.k8s.io", "metrics.k8s.io"]:
            cluster.api.create("apiservices", {
                "metadata": {"name": f"v1beta1.{group}"},
                "spec": {"group": group, "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                         "caBundle": bundle, "service": {"name": "adapter", "namespace": "metrics", "port": self.port}}})
        cluster.wait("custom.metrics.k8s.io served", lambda: cluster.api.call("GET", "/apis/custom.metrics.k8s.io/v1beta1"))

    def start(self):
        cluster = self.cluster
        cluster.processes.start("adapter", [
            "adapter", f"--config={cluster.file('adapter.yaml')}", f"--prometheus-url={self.prometheus_url}",
            "--metrics-relist-interval=2s", "--metrics-max-age=60s", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            f"--tls-cert-file={cluster.pki('adapter.crt')}", f"--tls-private-key-file={cluster.pki('adapter.key')}",
            f"--lister-kubeconfig={cluster.kubeconfig}", f"--authentication-kubeconfig={cluster.kubeconfig}",
            f"--authorization-kubeconfig={cluster.kubeconfig}"])

    def stop(self):
        self.cluster.processes.stop("adapter")
