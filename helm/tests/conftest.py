"""Where the chart is, what renders it, and lookups in what came out. Tests call `chart(...)`, `refusal(...)` and `one(...)`."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/roomcast"
CACHE = ROOT / ".cache"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
FILES = [*CI, CHART / "values-ha.yaml"]
KUBERNETES = ["1.27.0", "1.30.0", "1.32.0", "1.36.0"]
sys.path.insert(0, str(ROOT / "helm/make"))


def helm(*words: str, stdin: str = "") -> subprocess.CompletedProcess:
    tool = os.environ.get("HELM", str(CACHE / "tools/bin/helm"))
    return subprocess.run([tool, *words], input=stdin, capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def rendered(values: str, files: tuple[Path, ...], kubernetes: str, release: str, namespace: str):
    words = ["template", release, str(CHART), "--namespace", namespace, "--kube-version", kubernetes]
    for file in files:
        words += ["--values", str(file)]
    if values:
        words += ["--values", "-"]
    return helm(*words, stdin=values)


def chart(values: str = "", *files: Path, kubernetes: str = "1.32.0", release: str = "rc", namespace: str = "chat") -> list[dict]:
    """The objects that helm makes of these values, a YAML text, over these files."""
    done = rendered(values, files, kubernetes, release, namespace)
    assert done.returncode == 0, done.stderr
    return [made for made in yaml.safe_load_all(done.stdout) if made]


def kustomized(folder: Path) -> list[dict]:
    """The objects that kustomize makes of a folder."""
    done = subprocess.run([str(CACHE / "tools/bin/kustomize"), "build", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def refusal(values: str, *files: Path, kubernetes: str = "1.32.0") -> str:
    """Why helm refuses these values."""
    done = rendered(values, files, kubernetes, "rc", "chat")
    assert done.returncode != 0, "this should have been refused"
    return done.stderr


def every(objects: list[dict], kind: str) -> list[dict]:
    return [made for made in objects if made["kind"] == kind]


def one(objects: list[dict], kind: str, name: str | None = None) -> dict:
    found = [made for made in every(objects, kind) if name in (None, made["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}: {[made['metadata']['name'] for made in every(objects, kind)]}"
    return found[0]


def pod(objects: list[dict]) -> dict:
    """The specification of a node's pod."""
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def gateway(objects: list[dict]) -> dict:
    """A node's container."""
    return next(container for container in pod(objects)["containers"] if container["name"] == "gateway")


def variables(container: dict) -> dict[str, dict]:
    return {entry["name"]: entry for entry in container.get("env", [])}


def program(name: str) -> str:
    """The gateway or the load tester, as cargo built it."""
    path = Path(os.environ.get(name.upper(), ROOT / "target/debug" / name))
    assert path.exists(), f"{path} is missing: cargo build --package roomcast-{name}"
    return str(path)


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Nothing of ours from outside, so that only what a test gives is there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ROOMCAST_", "LOADTEST_", "OTEL_"))}
    return kept | (extra or {})
