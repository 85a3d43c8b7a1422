"""A control plane of its own on loopback: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

Everything lives in one directory and on free ports; stopping the processes leaves nothing behind."""

import json
import os

from api import Api
from processes import Processes, free_port, run, wait_until

SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
USERS = {  # user: groups; each has a token in the token file and a kubeconfig
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}


class Cluster:
    def __init__(self, home: str, processes: Processes, users: dict | None = None, address="127.0.0.1"):
        self.home, self.processes, self.address = home, processes, address
        self.users = {**USERS, **(users or {})}
        self.port = free_port()
        self.url = f"https://{address}:{self.port}"
        os.makedirs(self.file("pki"))
        self.tokens = {user: os.urandom(16).hex() for user in self.users}
        self.authority("ca")
        self.authority("front-ca")
        self.leaf("server", "ca", f"DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:{address},IP:10.96.0.1")
        self.leaf("front", "front-ca", "DNS:front")
        run(["openssl", "genrsa", "-out", self.pki("sa.key"), "2048"])
        with open(self.file("tokens.csv"), "w") as table:
            for number, (user, groups) in enumerate(self.users.items()):
                table.write(f'{self.tokens[user]},{user},{number},"{groups}"\n')
        self.api = Api(self.url, self.pki("ca.crt"), self.tokens["admin"])
        self.kubeconfig = self.config("admin")

    def file(self, *names: str) -> str:
        return os.path.join(self.home, *names)

    def pki(self, name: str) -> str:
        return self.file("pki", name)

    def authority(self, name: str):
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN=roomcast-test-{name}", "-keyout", self.pki(f"{name}.key"), "-out", self.pki(f"{name}.crt")])

    def leaf(self, name: str, authority: str, names: str):
        request = run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                       "-subj", f"/CN={name}", "-keyout", self.pki(f"{name}.key")])
        with open(self.pki(f"{name}.ext"), "w") as extension:
            extension.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        run(["openssl", "x509", "-req", "-days", "2", "-CA", self.pki(f"{authority}.crt"), "-CAkey", self.pki(f"{authority}.key"),
             "-CAcreateserial", "-extfile", self.pki(f"{name}.ext"), "-out", self.pki(f"{name}.crt")], stdin=request)

    def config(self, user: str, namespace="default") -> str:
        """Writes the kubeconfig of `user` and returns its path. `namespace` is where objects go that name none."""
        path = self.file(f"{user.replace(':', '-')}-{namespace}.kubeconfig")
        with open(path, "w") as out:
            json.dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": self.pki("ca.crt")}}],
                "users": [{"name": user, "user": {"token": self.tokens[user]}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
            }, out)
        os.chmod(path, 0o600)
        return path

    def start(self):
        etcd, peer = free_port(), free_port()
        self.processes.start("etcd", [
            "etcd", "--data-dir", self.file("etcd"), "--unsafe-no-fsync", "--name", "test",
            "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"test=http://127.0.0.1:{peer}"])
        self.processes.start("kube-apiserver", [
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}",
            # Debian's etcd is too old to tell how far a watch has come, without which lists cannot be streamed.
            "--feature-gates=WatchList=false",
            f"--bind-address={self.address}", f"--secure-port={self.port}", "--endpoint-reconciler-type=none",
            f"--cert-dir={self.home}", f"--tls-cert-file={self.pki('server.crt')}", f"--tls-private-key-file={self.pki('server.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--client-ca-file={self.pki('ca.crt')}", f"--token-auth-file={self.file('tokens.csv')}",
            "--authorization-mode=Node,RBAC", f"--service-cluster-ip-range={SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={self.pki('sa.key')}",
            f"--service-account-signing-key-file={self.pki('sa.key')}",
            f"--requestheader-client-ca-file={self.pki('front-ca.crt')}", "--requestheader-allowed-names=front",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={self.pki('front.crt')}", f"--proxy-client-key-file={self.pki('front.key')}"])
        self.wait("kube-apiserver ready", lambda: self.api.call("GET", "/readyz") == "ok", 120)
        self.processes.start("kube-controller-manager", [
            "kube-controller-manager", f"--kubeconfig={self.config('system:kube-controller-manager')}",
            "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials",
            f"--service-account-private-key-file={self.pki('sa.key')}", f"--root-ca-file={self.pki('ca.crt')}",
            "--allocate-node-cidrs", f"--cluster-cidr={PODS}", f"--service-cluster-ip-range={SERVICES}",
            # Decides every second instead of every 15: the arithmetic is the same.
            "--horizontal-pod-autoscaler-sync-period=1s"])
        self.processes.start("kube-scheduler", [
            "kube-scheduler", f"--kubeconfig={self.config('system:kube-scheduler')}",
            "--leader-elect=false", "--secure-port=0"])
        self.wait("the controllers at work", lambda: self.api.get("serviceaccounts", "default", "default"))

    def wait(self, what, probe, seconds=60.0):
        """Waits, and fails at once when a process of the cluster has ended."""
        def alive():
            self.processes.check()
            return probe()
        return wait_until(what, alive, seconds)

    def namespace(self, name: str, level: str | None = None):
        """Makes a namespace; `level` is the pod-security level that it enforces."""
        labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")} if level else {}
        self.api.create("namespaces", {"metadata": {"name": name, "labels": labels}})
        self.wait(f"service account in {name}", lambda: self.api.get("serviceaccounts", "default", name))
