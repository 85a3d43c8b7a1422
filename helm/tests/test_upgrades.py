"""What an upgrade makes of what is there: the chart looks at the cluster, which is a small stand-in here."""

import copy

import pytest
from conftest import chart, one
from live import upgrade, upgraded

HPA = "autoscaling: {enabled: true, minReplicas: 6}"
KEDA = "keda: {enabled: true, connections: {serverAddress: 'http://p'}}"
MARK = "roomcast/replicas"


def scaled_to(made: dict, nodes: int) -> dict:
    live = copy.deepcopy(made)
    live["spec"]["replicas"] = nodes
    return live


@pytest.mark.parametrize("scaler", [HPA, KEDA])
def test_switching_an_autoscaler_on_keeps_the_number(scaler, tmp_path):
    """Without `replicas` in the second revision Helm deletes it, and Kubernetes makes one node of six."""
    live = one(chart("replicaCount: 6"), "Deployment")
    made = one(upgraded(scaler, [live], tmp_path), "Deployment")
    assert made["spec"]["replicas"] == 6 and MARK not in made["metadata"].get("annotations", {})
    # Nor does the upgrade after that: the number is what the autoscaler has made of it.
    made = one(upgraded(scaler, [scaled_to(made, 9)], tmp_path), "Deployment")
    assert made["spec"]["replicas"] == 9


@pytest.mark.parametrize("scaler", [HPA, KEDA])
def test_with_an_autoscaler_from_the_start_the_number_is_its_own(scaler, tmp_path):
    """No revision has `replicas`, so neither an upgrade nor a rollback sets any."""
    live = one(upgraded(scaler, [], tmp_path), "Deployment")
    assert "replicas" not in live["spec"] and live["metadata"]["annotations"][MARK] == "autoscaler"
    made = one(upgraded(scaler, [scaled_to(live, 9)], tmp_path), "Deployment")
    assert "replicas" not in made["spec"] and made["metadata"]["annotations"][MARK] == "autoscaler"
    # Off and on again: from then on the field is there.
    off = one(upgraded("replicaCount: 5", [scaled_to(live, 9)], tmp_path), "Deployment")
    assert off["spec"]["replicas"] == 5 and MARK not in off["metadata"].get("annotations", {})
    assert one(upgraded(scaler, [off], tmp_path), "Deployment")["spec"]["replicas"] == 5


def test_without_an_autoscaler_the_number_is_the_value(tmp_path):
    live = one(chart("replicaCount: 6"), "Deployment")
    assert one(upgraded("replicaCount: 3", [live], tmp_path), "Deployment")["spec"]["replicas"] == 3


def test_redis_volume_stays_as_it_is(tmp_path):
    """Kubernetes would refuse it, in words that help nobody."""
    live = one(chart("redis: {persistence: {size: 2Gi}}"), "StatefulSet")
    assert upgraded("redis: {persistence: {size: 2048Mi}}", [live], tmp_path), "which is the same"
    assert upgraded("", [], tmp_path)
    for values, told in {
        "size: 3Gi": "size: 2Gi to 3Gi",
        "storageClass: fast": 'storageClass: "" to "fast"',
        "accessModes: [ReadWriteMany]": "accessModes: ReadWriteOnce to ReadWriteMany",
        "enabled: false": "enabled: true to false",
    }.items():
        done = upgrade(f"redis: {{persistence: {{{values}}}}}", [live], tmp_path)
        assert done.returncode != 0 and told in done.stderr and "docs/kubernetes.md" in done.stderr, done.stderr
    # Nobody is kept from another Redis, nor is a Redis without a volume from staying that.
    assert upgraded("{redis: {enabled: false, persistence: {size: 3Gi}}, externalRedis: {url: redis://r}}", [live], tmp_path)
    none = one(chart("redis: {persistence: {enabled: false}}"), "StatefulSet")
    assert upgraded("redis: {persistence: {enabled: false, size: 3Gi}}", [none], tmp_path)
