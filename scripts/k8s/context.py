"""What the checks stand on: the chart, Helm, the cluster's API, and a register of named checks."""

import json
import os
import threading
import time
import traceback

from api import Refused, ready
from cluster import Cluster
from processes import Failed, run

CHECKS = []


def check(words: str):
    """Registers a check under the words it prints. They run in order, each on what the ones before have left."""
    def register(function):
        CHECKS.append((words, function))
        return function
    return register


def run_checks(context) -> tuple[int, int]:
    """Runs all checks and prints a line each; returns how many passed and failed."""
    passed = failed = 0
    for words, function in CHECKS:
        began = time.monotonic()
        try:
            said = function(context)
        except Exception as error:  # noqa: BLE001 - a check that breaks has failed
            failed += 1
            print(f"FAILED {words}\n       {error}", flush=True)
            if not isinstance(error, (Failed, AssertionError, Refused)):
                traceback.print_exc()
        else:
            passed += 1
            print(f"ok     {words}{f': {said}' if said else ''} ({time.monotonic() - began:.1f} s)", flush=True)
    return passed, failed


class Context:
    """One release of the chart in one namespace."""

    def __init__(self, cluster: Cluster, chart: str, namespace="chat", release="chat"):
        self.cluster, self.api, self.chart, self.namespace, self.release = cluster, cluster.api, chart, namespace, release
        self.env = {**os.environ, "KUBECONFIG": cluster.config("admin", namespace), "HELM_CACHE_HOME": cluster.file("helm"),
                    "HELM_CONFIG_HOME": cluster.file("helm"), "HELM_DATA_HOME": cluster.file("helm")}
        self.notes: dict = {}  # what one check leaves for the next

    def helm(self, *words: str, timeout=300) -> str:
        return run(["helm", *words, "--namespace", self.namespace], env=self.env, timeout=timeout)

    def kubectl(self, *words: str, stdin=None, timeout=300) -> str:
        """Returns both what it printed and what the API server warned of."""
        script = 'exec "$0" "$@" 2>&1'
        return run(["bash", "-c", script, "kubectl", *words], stdin=stdin, env=self.env, timeout=timeout)

    def values(self, name: str, values: dict) -> str:
        path = self.cluster.file(f"{name}.json")
        with open(path, "w") as out:
            json.dump(values, out)
        return path

    def labels(self, component="gateway") -> str:
        return f"app.kubernetes.io/instance={self.release},app.kubernetes.io/component={component}"

    def pods(self, component="gateway") -> list[dict]:
        return self.api.list("pods", self.namespace, self.labels(component))

    def ready_pods(self, component="gateway") -> list[dict]:
        return [pod for pod in self.pods(component) if ready(pod)]

    def one(self, kind: str, component="gateway") -> dict:
        found = self.api.list(kind, self.namespace, self.labels(component))
        if len(found) != 1:
            raise Failed(f"{len(found)} {kind} of {component} in place of one: {[f['metadata']['name'] for f in found]}")
        return found[0]

    def wait(self, what, probe, seconds=60.0):
        return self.cluster.wait(what, probe, seconds)

    def settled(self, count: int):
        """Waits for the rollout's end: Helm's --wait returns when the new nodes are there, not when the old ones are gone."""
        def state():
            deployment = self.one("deployments")
            status = deployment["status"]
            numbers = [status.get(f"{kind}eplicas", 0) for kind in ("r", "updatedR", "readyR", "availableR")]
            return status["observedGeneration"] == deployment["metadata"]["generation"] and numbers == [count] * 4 and \
                len(self.pods()) == count
        self.wait(f"{count} nodes, all of this revision", state, 90)

    def history(self) -> list[dict]:
        return json.loads(self.helm("history", self.release, "--output", "json"))


class Watched:
    """Looks at the gateway's pods all the time: the fewest that were ready, and the most there were at once."""

    def __init__(self, context: Context):
        self.context, self.fewest, self.most, self.looks, self.counts = context, 10**6, 0, 0, []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.done.is_set():
            pods = [pod for pod in self.context.pods() if not pod["metadata"].get("deletionTimestamp")]
            up = sum(ready(pod) for pod in pods)
            self.fewest, self.most, self.looks = min(self.fewest, up), max(self.most, len(pods)), self.looks + 1
            if not self.counts or self.counts[-1] != len(pods):
                self.counts.append(len(pods))
            self.done.wait(0.05)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(30)
        if self.looks == 0:
            raise Failed("the pods could not be looked at")
