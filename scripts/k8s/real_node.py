"""A node that runs what it is given: containerd, kubelet and kube-proxy, inside namespaces of their own.

Called only within `unshare --net --mount --pid` (scripts/k8s-test.sh sees to that): addresses, routes, firewall rules and
mounts are then nobody else's, and end with the test. Control groups are the machine's; they stand under one name, and the
script takes them away when nothing is in them any more."""

import glob
import json
import os
import shutil
import subprocess

import images
from cluster import Cluster
from dns import Dns
from processes import run

ADDRESS = "10.250.0.1"  # of the node, and of all that runs beside it
NAME = "real-0"
PAUSE = "roomcast.test/pause:1"
GROUP = "roomcast-k8s-test"
USERS = {f"system:node:{NAME}": "system:nodes", "system:kube-proxy": ""}


def prepare():
    """Network and mounts, before anything listens."""
    run(["ip", "link", "set", "lo", "up"])
    run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"])
    # Pods answer for the node to what has no route of its own; nothing leaves this namespace.
    with open("/proc/sys/net/ipv4/ip_forward", "w") as forward:
        forward.write("1")
    # The shims' sockets have fixed places under /run/containerd.
    for directory in ["/run/containerd", "/var/log/pods", "/var/log/containers"]:
        os.makedirs(directory, exist_ok=True)
        run(["mount", "-t", "tmpfs", "tmpfs", directory])
    for hierarchy in glob.glob("/sys/fs/cgroup/*/"):
        os.makedirs(os.path.join(hierarchy, GROUP), exist_ok=True)


class RealNode:
    def __init__(self, cluster: Cluster, archives: list[bytes]):
        """`archives`: the images that pods will ask for."""
        self.cluster, self.home = cluster, cluster.file("node")
        self.socket = "/run/containerd/test.sock"
        for directory in ["cni", "kubelet", "manifests"]:
            os.makedirs(os.path.join(self.home, directory))
        self.dns = Dns(cluster.api, ADDRESS)
        self.containerd()
        for image in [images.pause(PAUSE, self.home), *archives]:
            self.load(image)
        self.kubelet()
        node = cluster.wait("the node", lambda: cluster.api.get("nodes", NAME))
        cluster.wait("the node's addresses", lambda: "podCIDR" in cluster.api.get("nodes", NAME)["spec"])
        self.network(cluster.api.get("nodes", NAME)["spec"]["podCIDR"])
        self.proxy()
        cluster.wait("the node ready", self.ready)
        self.node = node

    def ready(self) -> bool:
        node = self.cluster.api.get("nodes", NAME)
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])

    def write(self, name: str, content) -> str:
        path = os.path.join(self.home, name)
        with open(path, "w") as out:
            out.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def containerd(self):
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        config = self.write("containerd.toml", f"""
version = 2
root = "{self.home}/images"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "{self.socket}"
[{cri}]
sandbox_image = "{PAUSE}"
# Lowering the score needs a capability that this machine may lack.
restrict_oom_score_adj = true
disable_apparmor = true
[{cri}.containerd]
snapshotter = "overlayfs"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
BinaryName = "{shutil.which('runc')}"
[{cri}.cni]
bin_dir = "{os.path.dirname(shutil.which('ptp'))}"
conf_dir = "{self.home}/cni"
[plugins."io.containerd.internal.v1.opt"]
path = "{self.home}/opt"
""")
        self.cluster.processes.start("containerd", ["containerd", "--config", config])
        self.cluster.wait("containerd", lambda: run(["ctr", "--address", self.socket, "version"]))

    def load(self, image: bytes):
        """Puts an image archive, as `docker save` prints it, where the kubelet finds it."""
        subprocess.run(["ctr", "--address", self.socket, "--namespace", "k8s.io", "images", "import", "-"],
                       input=image, check=True, stdout=subprocess.DEVNULL)

    def kubelet(self):
        config = self.write("kubelet.json", {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": ADDRESS, "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "readOnlyPort": 0, "healthzPort": 0,
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{GROUP}", "failCgroupV1": False, "failSwapOn": False,
            "enforceNodeAllocatable": [], "localStorageCapacityIsolation": False,
            "containerRuntimeEndpoint": f"unix://{self.socket}", "resolvConf": self.write("resolv.conf", "nameserver 127.0.0.1\n"),
            "clusterDNS": [ADDRESS], "clusterDomain": "cluster.local",
            # Errors of what this machine denies (the OOM score, some sysctls) are then only logged.
            "featureGates": {"KubeletInUserNamespace": True},
            "evictionHard": {"memory.available": "1Mi"}, "imageGCHighThresholdPercent": 100, "registerNode": True,
            "syncFrequency": "5s", "nodeStatusUpdateFrequency": "5s"})
        self.cluster.processes.start("kubelet", [
            "kubelet", f"--config={config}", f"--kubeconfig={self.cluster.config(f'system:node:{NAME}')}",
            f"--hostname-override={NAME}", f"--node-ip={ADDRESS}", f"--root-dir={self.home}/kubelet", f"--cert-dir={self.home}/kubelet/pki",
            "--node-labels=topology.kubernetes.io/zone=zone-a"])

    def network(self, subnet: str):
        """A veth pair for each pod, without a bridge: all that pods say to each other passes the rules of kube-proxy."""
        self.write("cni/10-pods.conflist", {
            "cniVersion": "0.4.0", "name": "pods", "plugins": [{
                "type": "ptp", "ipMasq": True,
                "ipam": {"type": "host-local", "dataDir": f"{self.home}/addresses", "ranges": [[{"subnet": subnet}]],
                         "routes": [{"dst": "0.0.0.0/0"}]}}]})

    def proxy(self):
        config = self.write("proxy.json", {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
            "clientConnection": {"kubeconfig": self.cluster.config("system:kube-proxy")}, "hostnameOverride": NAME,
            "clusterCIDR": "10.244.0.0/16", "conntrack": {"maxPerCore": 0, "min": 0},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "10s"}})
        self.cluster.processes.start("kube-proxy", ["kube-proxy", f"--config={config}"])

    def runtime(self) -> str:
        info = self.cluster.api.get("nodes", NAME)["status"]["nodeInfo"]
        return f"{info['containerRuntimeVersion']}, kubelet {info['kubeletVersion']}"

    def stop(self):
        """Ends what still runs in containers, so that their mounts and control groups go before the node does."""
        for namespace in self.cluster.api.list("namespaces"):
            for pod in self.cluster.api.list("pods", namespace["metadata"]["name"]):
                self.cluster.api.delete("pods", pod["metadata"]["name"], namespace["metadata"]["name"], {"gracePeriodSeconds": 0})
        self.cluster.processes.stop("kubelet")
