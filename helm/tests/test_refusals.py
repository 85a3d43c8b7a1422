"""What cannot work is refused before anything is changed, in words that say what to do."""

import json
import re

import pytest
from conftest import CHART, chart, one, refusal, rendered
from live import upgrade

REFUSED = {
    "nodes without Redis": ("redis: {enabled: false}", "Up to 2 nodes and no Redis"),
    "scaling without Redis": ("{replicaCount: 1, redis: {enabled: false}, autoscaling: {enabled: true}}", "Up to 10 nodes and no Redis"),
    "keda without Redis": ("{replicaCount: 1, redis: {enabled: false}, keda: {enabled: true, maxReplicas: 7}}", "Up to 7 nodes and no Redis"),
    "two Redis": ("externalRedis: {url: redis://r}", "Both redis.enabled and externalRedis are set"),
    "two URLs": ("{redis: {enabled: false}, externalRedis: {url: redis://r, existingSecret: s, urlKey: u}}", "Keep one of them"),
    "a Secret with the name of the chart's own": (
        "{redis: {enabled: false}, externalRedis: {url: redis://r, existingSecret: rc-roomcast-redis}}", "externalRedis.existingSecret is rc-roomcast-redis"),
    "the same for its own Redis": ("redis: {auth: {existingSecret: rc-roomcast-redis}}", "redis.auth.existingSecret is rc-roomcast-redis"),
    "a key of no Secret": ("{redis: {enabled: false}, externalRedis: {urlKey: u}}", "existingSecret, which is not set"),
    "the sentinels' password of no Secret": (
        "{redis: {enabled: false}, externalRedis: {url: 'redis+sentinel://s/main', sentinelPasswordKey: p}}", "existingSecret, which is not set"),
    "the sentinels' password without sentinels": (
        "{redis: {enabled: false}, externalRedis: {url: redis://r, existingSecret: s, sentinelPasswordKey: p}}", "names no sentinels"),
    "a policy for unknown ports": (
        "{redis: {enabled: false}, externalRedis: {existingSecret: s, urlKey: u}}", "name them in networkPolicy.redisPorts"),
    "a password in the open": ("{redis: {enabled: false}, externalRedis: {url: 'redis://u:p@r'}}", "has a password"),
    "a password without a user": ("{redis: {enabled: false}, externalRedis: {url: 'redis://:p@r'}}", "has a password"),
    "the sentinels' password in the open": (
        "{redis: {enabled: false}, externalRedis: {url: 'redis+sentinel://s/main?sentinel_password=p'}}", "has a password"),
    "an authority for no TLS": (
        "{redis: {enabled: false}, externalRedis: {url: redis://r, ca: {existingSecret: c}}}", "does not begin with rediss"),
    "two authorities": (
        "{redis: {enabled: false}, externalRedis: {url: rediss://r, ca: {existingSecret: c, existingConfigMap: d}}}",
        "both a Secret and a ConfigMap"),
    "a timeout shorter than the drain": ("shutdown: {drainSeconds: 60, timeoutSeconds: 60}", "must be longer than shutdown.drainSeconds"),
    "a grace shorter than the end": (
        "shutdown: {preStopSeconds: 10, drainSeconds: 60, terminationGracePeriodSeconds: 80}", "grace (80 s) is shorter than"),
    "a margin of nothing": ("shutdown: {marginSeconds: 0}", "grace (80 s) is shorter than"),
    "no way to roll out": (
        "deployment: {strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 0}}}", "no rollout could begin"),
    "two that scale": (
        "{autoscaling: {enabled: true}, keda: {enabled: true, connections: {serverAddress: 'http://p'}}}", "Keep one of them"),
    "more least than most": ("autoscaling: {enabled: true, minReplicas: 5, maxReplicas: 4}", "minReplicas (5) is more than maxReplicas (4)"),
    "scaling by nothing": ("autoscaling: {enabled: true, targetCPU: null}", "needs something to look at"),
    "CPU of no request": (
        "{autoscaling: {enabled: true}, resources: {requests: {cpu: null}}}", "percentage of resources.requests.cpu"),
    "memory of no request": (
        "{autoscaling: {enabled: true, targetMemory: 80}, resources: {requests: {memory: null}}}", "percentage of resources.requests.memory"),
    "a target above the limit": (
        "{autoscaling: {enabled: true, connections: {enabled: true, target: 20000}}}", "is not below config.maxConnections (20000)"),
    "keda without Prometheus": ("keda: {enabled: true}", "KEDA must know where Prometheus is"),
    "a budget of all": ("podDisruptionBudget: {minAvailable: 2}", "allows none of 2 nodes to go"),
    "a budget of all, in percent": ("podDisruptionBudget: {minAvailable: 100%}", "minAvailable (100%) allows none of 2 nodes to go"),
    "a budget that is all when rounded up": (
        "{podDisruptionBudget: {minAvailable: 70%}, autoscaling: {enabled: true, minReplicas: 3}}", "minAvailable (70%) allows none of 3 nodes to go"),
    "a budget of none": ("podDisruptionBudget: {maxUnavailable: 0}", "must be 1 or more"),
    "an ingress of no host": ("ingress: {enabled: true}", "needs ingress.hosts"),
    "a route of no gateway": ("httpRoute: {enabled: true}", "needs httpRoute.parentRefs"),
    "a route of two gateways": (
        "httpRoute: {enabled: true, parentRefs: [{name: p}], gateway: {enabled: true, className: c}}", "both set: keep the release's own"),
    "a gateway of no class": ("httpRoute: {enabled: true, gateway: {enabled: true}}", "needs httpRoute.gateway.className"),
    "listeners with two certificates": (
        "httpRoute: {enabled: true, gateway: {enabled: true, className: c, tlsSecret: t, listeners: [{name: a}]}}", "listeners and tlsSecret"),
    "an admin route of no gateway": ("adminRoute: {enabled: true}", "needs adminRoute.parentRefs"),
    "an admin route to no Service": (
        "{adminRoute: {enabled: true, parentRefs: [{name: p}]}, internalService: {enabled: false}}", "needs internalService.enabled"),
    "metrics for everyone": (
        "{adminRoute: {enabled: true}, httpRoute: {enabled: true, gateway: {enabled: true, className: c}}}", "needs adminRoute.hostnames"),
    "a check of a Redis that is not there yet": ("check: {enabled: true}", "check.enabled looks at an external Redis"),
    "pings slower than their timeout": ("config: {pingInterval: 1m}", "pingTimeout (45s) must be longer than config.pingInterval (1m)"),
    "a lease shorter than two beats": ("config: {leaseBeat: 7s 600ms}", "leaseExpiry (15s) must be at least twice config.leaseBeat (7s 600ms)"),
    "messages that fit no queue": ("config: {maxMessageBytes: 262144}", "must be at least 2048 less"),
    "more from one address than there may be": ("config: {maxConnectionsPerAddress: 20001}", "must not exceed config.maxConnections (20000)"),
    "limits of addresses behind a proxy": (
        "{config: {maxConnectionsPerAddress: 10}, ingress: {enabled: true, hosts: [{host: a.b}]}}", "needs config.trustedProxies"),
    "a proxy more impatient than pings": (
        "{ingress: {enabled: true, preset: nginx, idleSeconds: 25, hosts: [{host: a.b}]}}", "idleSeconds (25) must be longer"),
    "an alert that is not there": ("prometheusRule: {enabled: true, disable: [NoSuch]}", "there is no alert NoSuch"),
    "a balancer's settings without one": ("service: {loadBalancerClass: x}", "mean nothing to a Service of type ClusterIP"),
    "a node port without one": ("service: {nodePort: 30000}", "mean nothing to a Service of type ClusterIP"),
    "a variable that is the chart's": ("extraEnv: [{name: ROOMCAST_NODE_ID, value: a}]", "which the chart sets itself"),
}


@pytest.mark.parametrize("values, words", REFUSED.values(), ids=REFUSED.keys())
def test_is_refused(values, words):
    assert words in refusal(values)


def test_each_check_is_provoked(tmp_path):
    """As many as the templates have: a check that no test provokes may never have worked."""
    sources = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file())
    said = [re.sub(r"\\n|%[dsq]", "\n", words).strip().splitlines()[0].strip()
            for words in re.findall(r'fail \(?(?:printf )?"((?:[^"\\]|\\.)*)"', sources)]
    assert len(said) > 25
    told = "".join(refusal(values) for values, _ in REFUSED.values())
    told += refusal("shutdown: {preStop: native}", kubernetes="1.29.0") + refusal("loadtest: {enabled: true}", kubernetes="1.28.0")
    told += upgrade("redis: {persistence: {size: 3Gi}}", [one(chart(), "StatefulSet")], tmp_path).stderr
    missing = [words for words in said if words not in told and "make chart" not in words and "no files/" not in words]
    assert missing == []


def test_old_clusters():
    assert "needs Kubernetes 1.30; this is v1.29.0" in refusal("shutdown: {preStop: native}", kubernetes="1.29.0")
    assert "needs Kubernetes 1.29; this is v1.28.0" in refusal("loadtest: {enabled: true}", kubernetes="1.28.0")
    assert "requires kubeVersion: >=1.27.0-0" in refusal("", kubernetes="1.26.9")


TYPOS = [
    "replicas: 3", "image: {tags: x}", "config: {maxConnection: 5}", "config: {maxConnections: many}", "config: {pingInterval: 25}",
    "config: {pingInterval: soon}", "config: {redis: redis://r}", "config: {trustedProxies: 10.0.0.0/8}", "rooms: [{patern: x}]",
    "rooms: [{mode: durable}]", "rooms: [{pattern: x, mode: lasting}]", "log: {format: text}", "workers: 0", "redis: {maxmemory: much}",
    "redis: {auth: {secret: x}}", "redis: {image: {digest: abc}}", "externalRedis: {url: 'http://r'}", "shutdown: {preStop: maybe}",
    "shutdown: {graceSeconds: 5}", "deployment: {strategy: {type: Sometimes}}", "service: {type: Loadbalancer}",
    "service: {port: 70000}", "ingress: {preset: caddy}", "ingress: {hosts: [chat.example.com]}", "ingress: {hosts: [{paths: []}]}",
    "httpRoute: {parentRefs: [{namespace: x}]}", "httpRoute: {timeouts: {idle: 5s}}", "autoscaling: {targetCpu: 5}",
    "autoscaling: {behavior: {down: {}}}", "keda: {connections: {target: 0}}", "podDisruptionBudget: {maxUnavailable: most}",
    "topologySpread: {zone: Never}", "networkPolicy: {redisPorts: [0]}", "serviceMonitor: {interval: 15}",
    "prometheusRule: {disable: Alert}", "dashboards: {label: x}", "readinessProbe: {http: {}}", "extraEnv: [{value: x}]",
    "tests: {duration: 5}", "loadtest: {scenario: chaos}", "loadtest: {startAt: tomorrow}", "resources: {limit: {}}",
    "resources: {limits: {memory: lots}}", "serviceAccount: {created: true}", "sysctls: [{name: a}]", "listenAddress: localhost",
    "redisPrefix: 'a b'", "commonLabels: {a: 1}", "otlp: {endpoint: 'collector:4317'}", "otlp: {sampleRatio: 2}",
]


@pytest.mark.parametrize("values", TYPOS)
def test_the_schema_refuses(values):
    assert "don't meet the specifications of the schema" in refusal(values)


def test_every_map_of_known_keys_is_closed():
    """Nowhere in the schema is a map with properties open to others."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(part, path):
        if isinstance(part, dict):
            if "properties" in part and part.get("additionalProperties") is not False:
                yield path
            for key, value in part.items():
                yield from walk(value, f"{path}/{key}")
        elif isinstance(part, list):
            for index, value in enumerate(part):
                yield from walk(value, f"{path}/{index}")

    assert list(walk(schema, "")) == []


def test_every_default_is_in_the_schema_and_the_other_way_round():
    import yaml
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def known(part):
        while "$ref" in part:
            part = schema["definitions"][part["$ref"].rsplit("/", 1)[1]]
        return part

    def unsaid(part, value, path):
        """Keys of the schema that values.yaml does not show."""
        for key, below in known(part).get("properties", {}).items():
            if not isinstance(value, dict) or key not in value:
                yield f"{path}{key}"
            elif value[key]:
                yield from unsaid(below, value[key], f"{path}{key}.")

    # What an API of Kubernetes has, and settings with defaults of their own, need not be shown.
    shown_elsewhere = ("config.", "startupProbe.", "livenessProbe.", "readinessProbe.", "global", "resources.claims")
    missing = [key for key in unsaid(schema, values, "")
               if not key.startswith(shown_elsewhere) and not key.endswith("resources.claims")]
    assert missing == []


def test_a_good_one_is_not_refused():
    assert rendered("replicaCount: 3", (), "1.32.0", "rc", "chat").returncode == 0
