"""What the templates make of the values of a node: Deployment, settings, Redis."""

import re
import tomllib

import pytest
from conftest import CHART, FILES, chart, every, gateway, one, pod, variables

FULL = CHART / "ci/full-values.yaml"
EXTERNAL = CHART / "ci/external-values.yaml"
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
RESTRICTED_KINDS = ["Deployment", "StatefulSet", "Job", "Pod"]


def settings(objects):
    return tomllib.loads(one(objects, "ConfigMap", "rc-roomcast")["data"]["config.toml"])


# Deployment

def test_a_node_by_default():
    objects = chart()
    deployment = one(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 2 and deployment["minReadySeconds"] == 15
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = pod(objects)
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert [each["topologyKey"] for each in spec["topologySpreadConstraints"]] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    node = gateway(objects)
    assert node["image"].startswith("roomcast/gateway:") and not node["image"].endswith(":")
    assert {port["name"]: port["containerPort"] for port in node["ports"]} == {"http": 8080, "admin": 8081}
    assert node["livenessProbe"]["httpGet"] == node["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert node["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    assert variables(node)["ROOMCAST_NODE_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_the_spread_leaves_no_pod_pending():
    """Not without labels of zones, and not for a machine that is tainted because it is lost."""
    for values, file in (("", CHART / "ci/default-values.yaml"), ("externalRedis: {url: rediss+sentinel://a/b}", CHART / "values-ha.yaml")):
        constraints = pod(chart(values, file))["topologySpreadConstraints"]
        assert [each["whenUnsatisfiable"] for each in constraints] == ["ScheduleAnyway"] * 2
    strict = pod(chart("topologySpread: {zone: DoNotSchedule}"))["topologySpreadConstraints"]
    assert [each["whenUnsatisfiable"] for each in strict] == ["ScheduleAnyway", "DoNotSchedule"]
    assert {each["nodeTaintsPolicy"] for each in strict} == {"Honor"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_everything_is_restricted(file):
    """Pod security level `restricted`, and more: a root file system that nobody can write to."""
    seen = 0
    for made in chart("{initContainers: [], extraContainers: []}", file):
        if made["kind"] not in RESTRICTED_KINDS:
            continue
        spec = made["spec"] if made["kind"] == "Pod" else made["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"] == RESTRICTED, container["name"]
            if file.name != "single-values.yaml":  # which asks for none
                assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["memory"]
            seen += 1
    assert seen


def test_the_grace_is_the_sum_of_what_takes_time():
    objects = chart("shutdown: {preStopSeconds: 7, drainSeconds: 30, marginSeconds: 5}")
    assert pod(objects)["terminationGracePeriodSeconds"] == 7 + (30 + 10) + 5
    assert settings(objects) | {"drain_window": "30s", "shutdown_timeout": "40s", "drain_delay": "0s"} == settings(objects)
    assert gateway(objects)["lifecycle"]["preStop"] == {"sleep": {"seconds": 7}}
    assert one(objects, "Deployment")["spec"]["progressDeadlineSeconds"] == 52 + 15 + 300
    assert pod(chart("", FULL))["terminationGracePeriodSeconds"] == 200
    # The least that is allowed.
    assert pod(chart("shutdown: {terminationGracePeriodSeconds: 81}"))["terminationGracePeriodSeconds"] == 81


@pytest.mark.parametrize("kubernetes, values, expected", [
    ("1.29.9", "", {"exec": {"command": ["gateway", "pause", "10s"]}}),
    ("1.30.0", "", {"sleep": {"seconds": 10}}),
    ("1.30.4-gke.100", "", {"sleep": {"seconds": 10}}),
    ("1.36.0", "shutdown: {preStop: gateway}", {"exec": {"command": ["gateway", "pause", "10s"]}}),
    ("1.30.0", "shutdown: {preStop: native, preStopSeconds: 3}", {"sleep": {"seconds": 3}}),
])
def test_pre_stop(kubernetes, values, expected):
    assert gateway(chart(values, kubernetes=kubernetes))["lifecycle"]["preStop"] == expected


def test_no_pre_stop():
    assert "lifecycle" not in gateway(chart("shutdown: {preStopSeconds: 0}"))


@pytest.mark.parametrize("values, expected", [
    ("", "requests.cpu"),
    ("resources: {limits: {cpu: '3'}}", "limits.cpu"),
    ("workers: 5", "5"),
    ("resources: null", None),
    ("resources: {requests: {cpu: null}}", None),
])
def test_workers(values, expected):
    entry = variables(gateway(chart(values))).get("ROOMCAST_WORKERS")
    if expected is None:
        assert entry is None
    elif expected.isdigit():
        assert entry["value"] == expected
    else:
        assert entry["valueFrom"]["resourceFieldRef"] == {"containerName": "gateway", "resource": expected, "divisor": "1"}


def test_another_setting_is_another_pod():
    def mark(values):
        return one(chart(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert mark("") == mark("replicaCount: 3")
    assert len({mark(""), mark("config: {publishRate: 7}"), mark("rooms: [{pattern: a}]"), mark("log: {filter: debug}")}) == 4


def test_a_new_chart_alone_is_no_new_pod():
    """What a new version of the chart changes in every object is not in the pods' labels."""
    for made in [*every(chart(), "Deployment"), *every(chart(), "StatefulSet")]:
        labels = made["spec"]["template"]["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"} & labels.keys()
        assert made["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_what_is_extra():
    objects = chart("", FULL)
    spec, node = pod(objects), gateway(objects)
    assert [container["name"] for container in spec["containers"]] == ["gateway", "side"]
    assert [container["name"] for container in spec["initContainers"]] == ["wait"]
    assert {"name": "scratch", "emptyDir": {}} in spec["volumes"] and {"name": "scratch", "mountPath": "/scratch"} in node["volumeMounts"]
    assert variables(node)["TZ"]["value"] == "UTC" and node["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert spec["schedulerName"] == "custom" and spec["runtimeClassName"] == "gvisor" and spec["priorityClassName"] == "high"
    assert spec["dnsPolicy"] == "None" and spec["hostAliases"] and spec["affinity"] and spec["tolerations"]
    assert spec["nodeSelector"] == {"pool": "realtime"} and spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["securityContext"]["sysctls"] == [{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}]
    assert one(objects, "ConfigMap", "chat-service-extra") and one(objects, "ConfigMap", "rc-text")
    metadata = one(objects, "Deployment")["metadata"]
    assert metadata["labels"] | {"tier": "front", "team": "realtime"} == metadata["labels"]
    assert metadata["annotations"] == {"reloader": "true", "owner": "realtime@example.com", "roomcast/replicas": "autoscaler"}
    pod_metadata = one(objects, "Deployment")["spec"]["template"]["metadata"]
    assert pod_metadata["labels"]["sidecar"] == "no" and pod_metadata["annotations"]["sidecar.istio.io/inject"] == "false"


def test_a_digest_wins_over_the_tag():
    assert re.fullmatch(r"registry\.example\.com/roomcast@sha256:[0-9a-f]{64}", gateway(chart("image: {tag: x}", FULL))["image"])
    assert gateway(chart("image: {tag: edge}"))["image"] == "roomcast/gateway:edge"


def test_recreate_has_no_rolling_update():
    """Which the API refuses."""
    assert one(chart("deployment: {strategy: {type: Recreate}}"), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_names():
    assert one(chart(release="roomcast"), "Deployment")["metadata"]["name"] == "roomcast"
    assert one(chart("nameOverride: chat", release="a"), "Deployment")["metadata"]["name"] == "a-chat"
    long = chart("", FULL, release="r" * 53) + chart("loadtest: {enabled: true}", release="r" * 53)
    for made in long:
        assert len(made["metadata"]["name"]) <= 63, made["metadata"]["name"]
    # A node's id is its pod's name: the Deployment's, a hash of up to 10, and 5 more.
    assert len(one(chart(release="r" * 53), "Deployment")["metadata"]["name"]) + 17 <= 64


# Settings

def test_settings_become_a_file():
    made = settings(chart("""
      config: {maxConnections: 10000000, pingInterval: 20s, trustedProxies: [10.0.0.0/8], allowedOrigins: ["https://<a>&\\"b\\""]}
      rooms: [{pattern: "cursor-*", mode: ephemeral}, {pattern: "*", historySize: 1000000, historyTtl: 7days, uniqueNames: true}]
      otlp: {endpoint: "http://c:4317", sampleRatio: 0.25}
    """))
    assert made["max_connections"] == 10000000 and made["ping_interval"] == "20s" and made["trusted_proxies"] == ["10.0.0.0/8"]
    assert made["allowed_origins"] == ['https://<a>&"b"']
    assert made["rooms"] == [{"pattern": "cursor-*", "mode": "ephemeral"},
                             {"pattern": "*", "history_size": 1000000, "history_ttl": "7days", "unique_names": True}]
    assert made["otlp_endpoint"] == "http://c:4317" and made["otlp_sample_ratio"] == 0.25
    assert made["log_format"] == "json" and "otlp_endpoint" not in settings(chart())


def test_the_collectors_token_is_a_secret():
    entry = variables(gateway(chart("", EXTERNAL)))["OTEL_EXPORTER_OTLP_HEADERS"]
    assert entry["valueFrom"]["secretKeyRef"] == {"name": "otlp", "key": "headers"}


# Redis

def test_its_own_redis():
    objects = chart()
    entries = variables(gateway(objects))
    assert entries["ROOMCAST_REDIS"]["value"] == "redis://rc-roomcast-redis:6379"
    reference = entries["ROOMCAST_REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"]
    secret = one(objects, "Secret", reference["name"])
    assert len(secret["data"][reference["key"]]) >= 40
    redis = one(objects, "StatefulSet")["spec"]
    assert redis["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert one(objects, "Service", "rc-roomcast-redis")["spec"]["type"] == "ClusterIP"
    # Nothing shows the password: not the command, not a variable, not the ConfigMap.
    assert "env" not in redis["template"]["spec"]["containers"][0]


def test_its_own_redis_with_a_given_secret_and_no_volume():
    objects = chart("redis: {auth: {existingSecret: s, passwordKey: k}, persistence: {enabled: false}}")
    assert not every(objects, "Secret")
    assert variables(gateway(objects))["ROOMCAST_REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "k"}
    redis = one(objects, "StatefulSet")["spec"]
    assert "volumeClaimTemplates" not in redis and {"name": "data", "emptyDir": {}} in redis["template"]["spec"]["volumes"]
    assert "appendonly no" in one(objects, "ConfigMap", "rc-roomcast-redis")["data"]["redis.conf"]


def test_an_external_redis():
    objects = chart("", EXTERNAL)
    assert not every(objects, "StatefulSet")
    entries = variables(gateway(objects))
    assert entries["ROOMCAST_REDIS"]["value"] == "rediss+cluster://roomcast@redis-0.redis:6380,redis-1.redis:6380"
    assert entries["ROOMCAST_REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "redis-credentials", "key": "word"}
    assert entries["ROOMCAST_REDIS_CA"]["value"] == "/etc/roomcast-ca/bundle.pem"
    assert {"name": "redis-ca", "configMap": {"name": "redis-ca"}} in pod(objects)["volumes"]
    assert settings(objects)["redis_prefix"] == "chat"


def test_an_external_redis_whose_url_is_secret():
    objects = chart("""{redis: {enabled: false}, networkPolicy: {redisPorts: [6380]},
        externalRedis: {existingSecret: s, urlKey: url, passwordKey: '', ca: {existingSecret: c}}}""")
    entries = variables(gateway(objects))
    assert entries["ROOMCAST_REDIS"]["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "url"}
    assert "ROOMCAST_REDIS_PASSWORD" not in entries
    assert {"name": "redis-ca", "secret": {"secretName": "c"}} in pod(objects)["volumes"]


def test_the_sentinels_have_a_password_of_their_own():
    entries = variables(gateway(chart("", CHART / "values-ha.yaml")))
    assert entries["ROOMCAST_REDIS_SENTINEL_PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "roomcast-redis-external", "key": "sentinel-password"}
    assert entries["ROOMCAST_REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"]["key"] == "redis-password"


def test_no_redis():
    objects = chart("", CHART / "ci/single-values.yaml")
    assert not {"ROOMCAST_REDIS", "ROOMCAST_REDIS_PASSWORD"} & variables(gateway(objects)).keys()
    assert {made["kind"] for made in objects} == {"ConfigMap", "Deployment", "Service"}
    assert pod(objects)["serviceAccountName"] == "default" and "topologySpreadConstraints" not in pod(objects)
