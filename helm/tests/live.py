"""A cluster that answers what `lookup` asks: an API server of GET only, which holds the objects that a test gives it."""

import contextlib
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml
from conftest import CACHE, CHART

KINDS = {"apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"}, "v1": {"Secret": "secrets"}}


def resources(group_version: str) -> dict:
    verbs = ["get", "list"]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": [
        {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs} for kind, name in KINDS[group_version].items()]}


def path(made: dict) -> str:
    api = made["apiVersion"]
    root = f"/apis/{api}" if "/" in api else f"/api/{api}"
    return f"{root}/namespaces/{made['metadata']['namespace']}/{KINDS[api][made['kind']]}/{made['metadata']['name']}"


@contextlib.contextmanager
def serving(objects: list[dict]):
    pages = {f"/apis/{api}" if "/" in api else f"/api/{api}": resources(api) for api in KINDS}
    pages |= {path(made): made for made in objects}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            page = pages.get(self.path.split("?")[0], missing)
            body = json.dumps(page).encode()
            self.send_response(404 if page is missing else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def upgrade(values: str, objects: list[dict], folder) -> subprocess.CompletedProcess:
    """What `helm upgrade` would render where these objects are."""
    tool = os.environ.get("HELM", str(CACHE / "tools/bin/helm"))
    with serving(objects) as address:
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": address}}],
                  "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}], "users": [{"name": "c", "user": {}}]}
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        environment = os.environ | {"KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder)}
        words = [tool, "template", "rc", str(CHART), "--namespace", "chat", "--is-upgrade", "--dry-run=server", "--values", "-"]
        return subprocess.run(words, input=values, env=environment, capture_output=True, text=True, timeout=60, check=False)


def upgraded(values: str, objects: list[dict], folder) -> list[dict]:
    done = upgrade(values, objects, folder)
    assert done.returncode == 0, done.stderr
    return [made for made in yaml.safe_load_all(done.stdout) if made]
