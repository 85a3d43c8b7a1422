"""A few lines of Kubernetes client: JSON over HTTPS with a token, refusals as exceptions with code and words."""

import json
import ssl
import urllib.error
import urllib.request

GROUPS = {  # the collection's path for a kind's plural name
    "pods": "/api/v1", "services": "/api/v1", "nodes": "/api/v1", "namespaces": "/api/v1", "events": "/api/v1",
    "configmaps": "/api/v1", "secrets": "/api/v1", "serviceaccounts": "/api/v1", "resourcequotas": "/api/v1",
    "persistentvolumeclaims": "/api/v1", "endpoints": "/api/v1", "persistentvolumes": "/api/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "deployments": "/apis/apps/v1", "replicasets": "/apis/apps/v1", "statefulsets": "/apis/apps/v1",
    "controllerrevisions": "/apis/apps/v1", "jobs": "/apis/batch/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2", "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1", "ingresses": "/apis/networking.k8s.io/v1",
    "apiservices": "/apis/apiregistration.k8s.io/v1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "servicemonitors": "/apis/monitoring.coreos.com/v1", "podmonitors": "/apis/monitoring.coreos.com/v1",
    "prometheusrules": "/apis/monitoring.coreos.com/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1", "scaledobjects": "/apis/keda.sh/v1alpha1",
}


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, code: int, status: dict):
        self.code, self.status = code, status
        super().__init__(f"{code}: {status.get('message', status)}")


class Api:
    def __init__(self, url: str, authority: str, token: str):
        self.url, self.token = url, token
        tls = ssl.create_default_context(cafile=authority)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
        self.warnings: list[str] = []

    def call(self, method: str, path: str, body=None, content="application/json"):
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", content)
        request.add_header("Accept", "application/json")
        try:
            with self.opener.open(request, timeout=30) as answer:
                self.warnings += answer.headers.get_all("Warning") or []
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                status = json.loads(text)
            except ValueError:
                status = {"message": text.decode(errors="replace")}
            raise Refused(error.code, status) from None
        try:
            return json.loads(text)
        except ValueError:
            return text.decode()

    @staticmethod
    def path(kind: str, namespace: str | None = None, name: str | None = None) -> str:
        path = GROUPS[kind]
        if namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{kind}"
        return f"{path}/{name}" if name else path

    def get(self, kind, name, namespace=None):
        return self.call("GET", self.path(kind, namespace, name))

    def list(self, kind, namespace=None, labels=""):
        return self.call("GET", f"{self.path(kind, namespace)}?labelSelector={urllib.request.quote(labels)}")["items"]

    def create(self, kind, body, namespace=None):
        return self.call("POST", self.path(kind, namespace), body)

    def patch(self, kind, name, body, namespace=None, sub=""):
        return self.call("PATCH", self.path(kind, namespace, name) + sub, body, "application/merge-patch+json")

    def delete(self, kind, name, namespace=None, body=None):
        return self.call("DELETE", self.path(kind, namespace, name), body)

    def evict(self, pod: dict):
        """Asks for the pod's eviction, as a drain does: refused with 429 where a disruption budget forbids it."""
        meta = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        return self.call("POST", self.path("pods", meta["namespace"], meta["name"]) + "/eviction",
                         {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta})


def ready(pod: dict) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
