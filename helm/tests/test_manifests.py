"""Everything that the chart renders is what Kubernetes and the owners of custom resources accept, in several versions."""

import copy
import functools
import json
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import CACHE, CHART, FILES, KUBERNETES, ROOT, chart, every, helm, kustomized, one

CUSTOM = {"ServiceMonitor": "monitoring.coreos.com_servicemonitors", "PrometheusRule": "monitoring.coreos.com_prometheusrules",
          "Gateway": "gateway.networking.k8s.io_gateways", "HTTPRoute": "gateway.networking.k8s.io_httproutes", "ScaledObject": "keda.sh_scaledobjects"}


def closed(schema: dict) -> dict:
    """A custom resource's schema as JSON Schema, in which fields that it does not know fail, as kubectl's check does."""
    schema = {key: value for key, value in schema.items() if key not in ("description", "format", "default")}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "pattern" in schema:
        # Go allows flags where they are; Python wants them first.
        schema["pattern"] = schema["pattern"].replace("^(?i)", "(?i)^")
    keeps = schema.pop("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in schema:
        schema["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        if not keeps and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = closed(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = closed(schema["items"])
    return {key: value for key, value in schema.items() if not key.startswith("x-kubernetes")}


@functools.cache
def custom_schema(kind: str, version: str) -> dict:
    definition = yaml.safe_load((CACHE / "crds" / f"{CUSTOM[kind]}.yaml").read_text())
    found = next(each for each in definition["spec"]["versions"] if each["name"] == version)
    assert found["served"]
    schema = copy.deepcopy(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    schema = closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def validate(made: dict, kubernetes: str) -> None:
    if made["kind"] in CUSTOM:
        jsonschema.validate(made, custom_schema(made["kind"], made["apiVersion"].rsplit("/", 1)[1]))
    else:
        # A kind or version that the schemas do not know is an error here, where the tool itself would only warn.
        kubernetes_validate.validate(made, kubernetes, strict=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_lint(file):
    done = helm("lint", "--strict", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_is_accepted(file, kubernetes):
    text = "loadtest: {enabled: false}" if kubernetes < "1.29" else ""
    objects = chart(text, file, kubernetes=kubernetes)
    assert objects
    for made in objects:
        validate(made, kubernetes.removesuffix(".0"))


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("folder", ["k8s/base", "k8s/overlays/production"])
def test_plain_manifests_are_accepted(folder, kubernetes):
    """One text for all versions, where the chart asks for the cluster's."""
    objects = kustomized(ROOT / folder)
    assert objects
    for made in objects:
        validate(made, kubernetes.removesuffix(".0"))


def test_all_kinds_are_seen():
    """The value files together make everything that there are templates for."""
    kinds = {made["kind"] for file in FILES for made in chart("", file)}
    assert set(CUSTOM) <= kinds
    assert kinds - set(CUSTOM) == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy", "Pod", "PodDisruptionBudget",
        "Secret", "Service", "ServiceAccount", "StatefulSet"}


WRONG = [
    ("Deployment", lambda made: made["spec"]["template"]["spec"].update(terminationGracePeriodSecond=5)),
    ("Deployment", lambda made: made["spec"].update(replicas="three")),
    ("ServiceMonitor", lambda made: made["spec"]["endpoints"][0].update(intervall="5s")),
    ("ServiceMonitor", lambda made: made["spec"]["endpoints"][0].update(interval="often")),
    ("PrometheusRule", lambda made: made["spec"]["groups"][0]["rules"][0].update(expression="1")),
    ("HTTPRoute", lambda made: made["spec"]["rules"][0].update(timeout={})),
    ("HTTPRoute", lambda made: made["spec"]["rules"][0]["backendRefs"][0].update(port=100000)),
    ("ScaledObject", lambda made: made["spec"].update(minReplicas=1)),
    ("ScaledObject", lambda made: made["spec"]["triggers"][0].pop("type")),
]


@pytest.mark.parametrize("kind, spoil", WRONG, ids=[f"{kind}-{index}" for index, (kind, _) in enumerate(WRONG)])
def test_validation_can_fail(kind, spoil):
    objects = [made for file in FILES for made in chart("", file)]
    made = copy.deepcopy(every(objects, kind)[0])
    validate(made, "1.32")
    spoil(made)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(made, "1.32")


def test_an_unknown_kind_fails():
    with pytest.raises((kubernetes_validate.SchemaNotFoundError, kubernetes_validate.ValidationError)):
        validate({"apiVersion": "example.com/v1", "kind": "Chat", "metadata": {"name": "a"}}, "1.32")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_names_are_unique_and_labelled(file):
    objects = chart("", file)
    keys = [(made["kind"], made["metadata"].get("namespace"), made["metadata"]["name"]) for made in objects]
    assert len(keys) == len(set(keys))
    extra = {"chat-service-extra", "rc-text"}
    for made in objects:
        if made["metadata"]["name"] in extra:
            continue
        labels = made["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "roomcast" and labels["helm.sh/chart"].startswith("roomcast-")
        assert made["metadata"]["namespace"], made["metadata"]["name"]


def test_rendering_is_stable():
    """But for the random password and the start of a load test, twice is the same."""
    def fixed(text):
        text = re.sub(r"(password: ).*|(redis-password: ).*", "", text)
        return re.sub(r"20\d\d-\d\d-\d\dT[\d:]+Z", "", text)

    for file in FILES:
        words = ["template", "rc", str(CHART), "--values", str(file)]
        assert fixed(helm(*words).stdout) == fixed(helm(*words).stdout)


def test_packages():
    """The package holds what the templates read, and no values of tests."""
    import tarfile
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        done = helm("package", str(CHART), "--destination", folder)
        assert done.returncode == 0, done.stderr
        path = done.stdout.rsplit(" ", 1)[1].strip()
        with tarfile.open(path) as package:
            names = package.getnames()
    assert "roomcast/values.schema.json" in names and "roomcast/files/alerts.yaml" in names
    assert not [name for name in names if "/ci/" in name]


def test_objects_fit_into_the_store():
    """etcd takes 1.5 MiB, and an object of more than 1 MiB is refused for ConfigMaps."""
    for made in every(chart("", FILES[-1]), "ConfigMap"):
        assert len(json.dumps(made)) < 1_000_000, made["metadata"]["name"]


def test_one_of_each_dashboard():
    for made in every(chart("dashboards: {enabled: true}"), "ConfigMap"):
        for name, text in made["data"].items():
            if name.endswith(".json"):
                assert json.loads(text)["title"]
    assert one(chart("dashboards: {enabled: true}"), "ConfigMap", "rc-roomcast-dashboard-overview")
