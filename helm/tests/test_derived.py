"""What is made of the chart and its sources is up to date, and a drift of each is noticed."""

import os
import shutil
import subprocess
import sys

import manifests
import pytest
import readme
import yaml
from conftest import CACHE, CHART, ROOT, kustomized

SOURCES = ["helm", "k8s", "grafana", "docs/configuration.md", "Cargo.toml"]


def check(root) -> subprocess.CompletedProcess:
    environment = os.environ | {"HELM": str(CACHE / "tools/bin/helm"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, str(root / "helm/make"), "--check"], env=environment, capture_output=True, text=True,
                          timeout=60, check=False)


def test_nothing_drifted():
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr + "\nrun: make chart"


@pytest.fixture
def copied(tmp_path):
    for source in SOURCES:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source)
        else:
            (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / source)
    return tmp_path


DRIFTS = {
    "an alert": ("grafana/alerts.yaml", "severity: ", "severity: very-", "helm/roomcast/files/alerts.yaml"),
    "a dashboard": ("helm/roomcast/files/dashboards/overview.json", '"title": "', '"title": "My ', "overview.json"),
    "a comment": ("helm/roomcast/values.yaml", "# -- Labels of all objects", "# -- Marks of all objects", "README.md"),
    "a default": ("helm/roomcast/values.yaml", "minReadySeconds: 15", "minReadySeconds: 16", "README.md"),
    "a template": ("helm/roomcast/templates/pdb.yaml", "spec:", "spec:\n  unhealthyPodEvictionPolicy: AlwaysAllow", "k8s/base/poddisruptionbudget.yaml"),
    "a manifest": ("k8s/base/deployment.yaml", "minReadySeconds: 15", "minReadySeconds: 1", "k8s/base/deployment.yaml"),
    "a setting": ("docs/configuration.md", "a whole number from 0 to 1000 |", "a whole number from 0 to 2000 |", "values.schema.json"),
    "a version": ("Cargo.toml", 'version = "', 'version = "9', "Chart.yaml"),
}


@pytest.mark.parametrize("path, old, new, told", DRIFTS.values(), ids=DRIFTS.keys())
def test_a_drift_is_noticed(copied, path, old, new, told):
    text = (copied / path).read_text()
    assert old in text
    (copied / path).write_text(text.replace(old, new))
    done = check(copied)
    assert done.returncode == 1 and told in done.stdout, done.stdout + done.stderr


def test_a_file_too_many_is_noticed(copied):
    (copied / "k8s/base/extra.yaml").write_text("a: b\n")
    done = check(copied)
    assert done.returncode == 1 and "k8s/base/extra.yaml is made by nothing" in done.stdout


def test_every_value_is_documented():
    assert readme.undocumented((CHART / "values.yaml").read_text()) == []
    assert readme.undocumented("a:\n  # -- Said.\n  b: 1\n  c: 2\n") == ["a.c"]


def test_the_changelog_of_the_chart():
    chart_file = yaml.safe_load((CHART / "Chart.yaml").read_text())
    changes = yaml.safe_load(chart_file["annotations"]["artifacthub.io/changes"])
    assert all(change["kind"] in {"added", "changed", "deprecated", "removed", "fixed", "security"} for change in changes)


# k8s/

def built(folder: str) -> dict[tuple[str, str], dict]:
    return {(made["kind"], made["metadata"]["name"]): made for made in kustomized(ROOT / folder)}


def without_hashes(made: dict[tuple[str, str], dict], names: set[str]) -> dict[tuple[str, str], dict]:
    """Generated ConfigMaps have the hash of their content in their name, and so has who mounts them."""
    text = yaml.safe_dump(list(made.values()))
    for kind, name in list(made):
        short = name.rsplit("-", 1)[0]
        if kind == "ConfigMap" and short in names:
            text = text.replace(f"name: {name}\n", f"name: {short}\n")
    plain = [manifests.plain(each) for each in yaml.safe_load(text)]
    return {(each["kind"], each["metadata"]["name"]): each for each in plain}


@pytest.mark.parametrize("folder, files", [
    ("k8s/base", ["k8s/values-base.yaml"]),
    ("k8s/overlays/production", ["helm/roomcast/values-ha.yaml", "k8s/values-production.yaml"]),
])
def test_kustomize_builds_what_helm_renders(folder, files):
    expected = manifests.objects(ROOT, *files)
    made = without_hashes(built(folder), {"roomcast", "roomcast-redis"})
    assert made.keys() == expected.keys()
    for key, each in expected.items():
        for text in each.get("data", {}):
            each["data"][text] = each["data"][text].rstrip("\n")
            made[key]["data"][text] = made[key]["data"][text].rstrip("\n")
        assert made[key] == each, key


def test_a_setting_of_k8s_is_a_rollout():
    """The Deployment mounts the ConfigMap under its hashed name."""
    made = built("k8s/base")
    name = next(name for kind, name in made if kind == "ConfigMap" and name.startswith("roomcast-") and "redis" not in name)
    assert name != "roomcast"
    volumes = made["Deployment", "roomcast"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": name}} in volumes


def test_no_secret_is_in_k8s():
    for folder in ("k8s/base", "k8s/overlays/production"):
        assert not [key for key in built(folder) if key[0] == "Secret"]


def test_the_documented_secrets_are_those_that_are_read():
    """k8s/README.md and docs/kubernetes.md create each Secret that is mounted or read, with the keys that are used."""
    words = (ROOT / "k8s/README.md").read_text().replace("\\\n", " ")
    made = {line.split("generic ")[1].split()[0]: line for line in words.splitlines() if "create secret generic" in line}
    for folder in ("k8s/base", "k8s/overlays/production"):
        specs = [each["spec"]["template"]["spec"] for (kind, _), each in built(folder).items() if kind in ("Deployment", "StatefulSet")]
        read = {(entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
                for spec in specs for entry in spec["containers"][0].get("env", []) if "secretKeyRef" in entry.get("valueFrom", {})}
        read |= {(volume["secret"]["secretName"], item["key"]) for spec in specs for volume in spec["volumes"] if "secret" in volume
                 for item in volume["secret"].get("items", [{"key": "ca.crt"}])}
        assert read
        for secret, key in read:
            assert f"{key}=" in made[secret] or f"--from-file={key}" in made[secret], (secret, key)
    assert "generic roomcast-redis-external " in (ROOT / "docs/kubernetes.md").read_text()


# NOTES.txt

@pytest.fixture
def notes(tmp_path):
    """The notes as an object, since `helm template` does not print them."""
    copy = tmp_path / "roomcast"
    shutil.copytree(CHART, copy)
    text = (copy / "templates/NOTES.txt").read_text()
    (copy / "templates/_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")
    (copy / "templates/notes.yaml").write_text(
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n  notes: {{ include "notes" . | toJson }}\n')

    def render(values: str) -> str:
        done = subprocess.run([str(CACHE / "tools/bin/helm"), "template", "rc", str(copy), "--namespace", "chat", "--values", "-",
                               "--show-only", "templates/notes.yaml"], input=values, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)["data"]["notes"]
    return render


def test_notes(notes):
    text = notes("replicaCount: 3")
    assert "release rc in chat: 3 nodes, with a Redis of its own." in text and "port-forward service/rc-roomcast 8080:80" in text
    assert "helm -n chat test rc --logs" in text and "the pod has 90 s for it" in text and "one pod. While it is away" in text
    assert "1 node, without Redis" in notes("{replicaCount: 1, redis: {enabled: false}}")
    text = notes("{ingress: {enabled: true, hosts: [{host: a.b}], tls: [{hosts: [a.b]}]}, loadtest: {enabled: true}, redis: {persistence: {enabled: false}}}")
    assert "https://a.b/" in text and "job/rc-roomcast-loadtest-1-merge" in text and "end with the Redis pod" in text
    assert "https://c.d/" in notes("httpRoute: {enabled: true, hostnames: [c.d], parentRefs: [{name: p}]}")
    assert "get service rc-roomcast" in notes("service: {type: LoadBalancer}")
    text = notes("{redis: {enabled: false}, externalRedis: {url: redis://r}, autoscaling: {enabled: true}, podDisruptionBudget: {enabled: false}}")
    assert "2 to 10 nodes, with an external Redis." in text and "evicted at once" in text
