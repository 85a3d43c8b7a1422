"""What stands around the nodes: Services, routes, scaling, budgets, policies, monitoring, helm test."""

import pytest
import yaml
from conftest import CHART, chart, every, one

FULL = CHART / "ci/full-values.yaml"
EXTERNAL = CHART / "ci/external-values.yaml"


# Services, Ingress, HTTPRoute

def test_services():
    objects = chart()
    public = one(objects, "Service", "rc-roomcast")["spec"]
    assert public["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}]
    for name in ("rc-roomcast-internal", "rc-roomcast-headless"):
        assert {port["name"]: port["port"] for port in one(objects, "Service", name)["spec"]["ports"]} == {"http": 8080, "admin": 8081}
    assert one(objects, "Service", "rc-roomcast-headless")["spec"]["clusterIP"] == "None"
    nodes = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    redis = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for service in every(objects, "Service"):
        selector = service["spec"]["selector"].items()
        expected = redis if service["metadata"]["name"].endswith("-redis") else nodes
        other = nodes if expected is redis else redis
        assert selector <= expected.items() and not selector <= other.items()


def test_a_load_balancer():
    spec = one(chart("", FULL), "Service", "chat-service")["spec"]
    assert spec["type"] == "LoadBalancer" and spec["loadBalancerClass"] == "service.k8s.aws/nlb"
    assert spec["loadBalancerSourceRanges"] == ["192.0.2.0/24"] and spec["externalTrafficPolicy"] == "Local"
    assert spec["ipFamilyPolicy"] == "PreferDualStack" and spec["ports"][0]["nodePort"] == 30443
    assert spec["ports"][0]["appProtocol"] == "kubernetes.io/ws"


@pytest.mark.parametrize("preset, annotation, value", [
    ("haproxy", "haproxy.org/load-balance", "leastconn"),
    ("haproxy-ingress", "haproxy-ingress.github.io/timeout-tunnel", "900s"),
    ("nginx", "nginx.ingress.kubernetes.io/proxy-read-timeout", "900"),
    ("nginx-inc", "nginx.org/proxy-read-timeout", "900s"),
    ("azure", "appgw.ingress.kubernetes.io/request-timeout", "900"),
    ("contour", "projectcontour.io/response-timeout", "infinity"),
    ("alb", "alb.ingress.kubernetes.io/load-balancer-attributes", "idle_timeout.timeout_seconds=900"),
])
def test_ingress_presets(preset, annotation, value):
    made = one(chart(f"ingress: {{enabled: true, preset: {preset}, idleSeconds: 900, hosts: [{{host: a.b}}]}}"), "Ingress")
    assert made["metadata"]["annotations"][annotation] == value
    own = f"ingress: {{enabled: true, preset: {preset}, annotations: {{{annotation}: mine}}, hosts: [{{host: a.b}}]}}"
    assert one(chart(own), "Ingress")["metadata"]["annotations"][annotation] == "mine"


def test_no_annotation_that_its_controller_does_not_read():
    """HAProxy Technologies' reads `timeout-tunnel` from its ConfigMap only."""
    made = one(chart("ingress: {enabled: true, preset: haproxy, hosts: [{host: a.b}]}"), "Ingress")
    assert made["metadata"]["annotations"] == {"haproxy.org/load-balance": "leastconn"}


def test_ingress():
    spec = one(chart("", FULL), "Ingress")["spec"]
    assert spec["ingressClassName"] == "haproxy" and spec["tls"][0]["secretName"] == "chat-tls"
    assert [(rule["host"], rule["http"]["paths"][0]["path"], rule["http"]["paths"][0]["pathType"]) for rule in spec["rules"]] == [
        ("chat.example.com", "/chat", "Exact"), ("chat.example.org", "/", "Prefix")]
    backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "chat-service", "port": {"name": "http"}}


def test_kong_reads_its_times_from_the_service():
    values = "ingress: {enabled: true, preset: kong, idleSeconds: 900, hosts: [{host: a.b}]}"
    public = lambda text: next(made for made in every(chart(text), "Service") if made["metadata"]["labels"].get("roomcast/service") == "public")
    assert public(values)["metadata"]["annotations"] == {"konghq.com/read-timeout": "900000", "konghq.com/write-timeout": "900000"}
    assert "annotations" not in public("")["metadata"]


def test_gateway_of_its_own():
    values = "httpRoute: {enabled: true, hostnames: [c.d, e.f], gateway: {enabled: true, className: envoy, tlsSecret: %s}}"
    objects = chart(values % "tls")
    gateway, route = one(objects, "Gateway"), one(objects, "HTTPRoute")
    assert route["spec"]["parentRefs"] == [{"name": gateway["metadata"]["name"]}]
    assert gateway["spec"]["gatewayClassName"] == "envoy"
    assert [(made["name"], made["port"], made["protocol"], made["hostname"]) for made in gateway["spec"]["listeners"]] == [
        ("https-0", 443, "HTTPS", "c.d"), ("https-1", 443, "HTTPS", "e.f")]
    assert gateway["spec"]["listeners"][0]["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "tls"}]
    plain = one(chart("httpRoute: {enabled: true, gateway: {enabled: true, className: envoy}}"), "Gateway")["spec"]["listeners"]
    assert plain == [{"name": "http-0", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}}]
    own = "httpRoute: {enabled: true, gateway: {enabled: true, className: c, listeners: [{name: a, port: 8443, protocol: TLS}]}}"
    assert one(chart(own), "Gateway")["spec"]["listeners"][0]["port"] == 8443
    assert not every(chart(""), "Gateway")


def test_admin_route():
    made = one(chart("adminRoute: {enabled: true, parentRefs: [{name: inner}], hostnames: [m.x]}"), "HTTPRoute")
    assert made["metadata"]["name"] == "rc-roomcast-admin"
    rule = made["spec"]["rules"][0]
    assert rule["backendRefs"] == [{"name": "rc-roomcast-internal", "port": 8081}]
    assert rule["matches"] == [{"path": {"type": "Exact", "value": "/metrics"}}]


def test_check_before_install():
    objects = chart("{check: {enabled: true}, extraEnv: [{name: ROOMCAST_LOG, value: debug}]}", EXTERNAL)
    job = one(objects, "Job")
    hooks = [made for made in objects if "helm.sh/hook" in made["metadata"].get("annotations", {}) and "check" in made["metadata"]["name"]]
    assert {made["kind"] for made in hooks} == {"ConfigMap", "NetworkPolicy", "Job"}
    assert all(made["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade" for made in hooks)
    weights = {made["kind"]: int(made["metadata"]["annotations"]["helm.sh/hook-weight"]) for made in hooks}
    assert max(weights["ConfigMap"], weights["NetworkPolicy"]) < weights["Job"]
    pod, node = job["spec"]["template"]["spec"], one(objects, "Deployment")["spec"]["template"]["spec"]
    check, gateway = pod["containers"][0], node["containers"][0]
    assert check["args"] == ["check"] and check["image"] == gateway["image"]
    redis = lambda container: [made for made in container["env"] if "REDIS" in made["name"] or made["name"] == "ROOMCAST_LOG"]
    assert redis(check) == redis(gateway) and len(redis(check)) >= 4, "the same Redis, password and authority"
    file = lambda name: next(made for made in every(objects, "ConfigMap") if made["metadata"]["name"] == name)["data"]["config.toml"]
    assert file("rc-roomcast-check") == file("rc-roomcast")
    policies = {made["metadata"]["name"]: made["spec"] for made in every(objects, "NetworkPolicy")}
    assert policies["rc-roomcast-check"]["egress"] == policies["rc-roomcast"]["egress"], "what a node may reach"
    assert policies["rc-roomcast-check"]["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert not every(chart("", EXTERNAL), "Job")


def test_http_route():
    spec = one(chart("", EXTERNAL), "HTTPRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    rule = spec["rules"][0]
    assert rule["backendRefs"] == [{"name": "rc-roomcast", "port": 80}]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"} and rule["filters"] and rule["matches"]
    bare = one(chart("httpRoute: {enabled: true, parentRefs: [{name: p}]}"), "HTTPRoute")["spec"]["rules"][0]
    assert not {"timeouts", "filters"} & bare.keys()


# Scaling and disruption

def test_hpa():
    values = "autoscaling: {enabled: true, maxReplicas: 8, connections: {enabled: true, target: 15000}}"
    objects = chart(values)
    assert "replicas" not in one(objects, "Deployment")["spec"], "it would be set back at each upgrade"
    spec = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 8)
    assert spec["scaleTargetRef"]["name"] == one(objects, "Deployment")["metadata"]["name"]
    assert spec["metrics"] == [
        {"type": "Pods", "pods": {"metric": {"name": "roomcast_connections"}, "target": {"type": "AverageValue", "averageValue": "15000"}}},
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]
    down = spec["behavior"]["scaleDown"]
    assert down == {"stabilizationWindowSeconds": 600, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}]}
    full = one(chart("", FULL), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert full[0]["pods"]["target"]["averageValue"] == "1000000"
    assert {metric["type"] for metric in full} == {"Pods", "Resource", "External"} and len(full) == 4


def test_keda():
    objects = chart("", EXTERNAL)
    assert "replicas" not in one(objects, "Deployment")["spec"] and not every(objects, "HorizontalPodAutoscaler")
    spec = one(objects, "ScaledObject")["spec"]
    trigger = spec["triggers"][0]
    assert trigger["metadata"]["query"] == 'sum(roomcast_connections{namespace="chat",job="rc"})'
    assert trigger["metadata"]["threshold"] == "10000" and trigger["authenticationRef"] == {"name": "prometheus"}
    assert trigger["metricType"] == "AverageValue" and spec["triggers"][1]["type"] == "cpu"
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    own = chart("keda: {connections: {query: up}}", EXTERNAL)
    assert one(own, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"] == "up"


def test_the_query_of_keda_is_that_of_the_monitor():
    """`job` is what the ServiceMonitor makes of the label that it names."""
    objects = chart("serviceMonitor: {enabled: true}")
    spec = one(objects, "ServiceMonitor")["spec"]
    service = one(objects, "Service", "rc-roomcast-metrics")["metadata"]
    assert service["labels"][spec["jobLabel"]] == "rc"
    assert spec["selector"]["matchLabels"].items() <= service["labels"].items()
    others = [made for made in every(objects, "Service") if made["metadata"]["name"] != "rc-roomcast-metrics"]
    for other in others:
        assert not spec["selector"]["matchLabels"].items() <= other["metadata"]["labels"].items(), "scraped twice"
    assert spec["namespaceSelector"] == {"matchNames": ["chat"]} and spec["endpoints"][0]["port"] == "admin"


def test_nodes_are_scraped_while_they_drain():
    """Kubernetes leaves pods that are told to end out of a Service's addresses, unless those are published that are not ready."""
    objects = chart("serviceMonitor: {enabled: true}")
    scraped = one(objects, "Service", "rc-roomcast-metrics")["spec"]
    assert scraped["publishNotReadyAddresses"] is True and scraped["clusterIP"] == "None"
    assert [port["name"] for port in scraped["ports"]] == ["admin"]
    # Clients are not sent to nodes that go.
    assert not [made for made in every(objects, "Service") if made["spec"].get("publishNotReadyAddresses") and made["spec"] != scraped]
    assert chart("{serviceMonitor: {enabled: true}, headlessService: {enabled: false}}")


def test_redis_figures():
    assert len(every(chart("serviceMonitor: {enabled: true}"), "ServiceMonitor")) == 1
    objects = chart("{serviceMonitor: {enabled: true, labels: {release: p}}, redis: {metrics: {enabled: true}}}")
    template = one(objects, "StatefulSet")["spec"]["template"]
    _, exporter = template["spec"]["containers"]
    port, = exporter["ports"]
    password, = [entry["valueFrom"]["secretKeyRef"] for entry in exporter["env"] if entry["name"] == "REDIS_PASSWORD"]
    assert password["key"] in one(objects, "Secret", password["name"])["data"] and "readinessProbe" not in exporter
    monitor = one(objects, "ServiceMonitor", "rc-roomcast-redis")
    assert monitor["metadata"]["labels"]["release"] == "p"
    chosen = [made for made in every(objects, "Service") if monitor["spec"]["selector"]["matchLabels"].items() <= made["metadata"]["labels"].items()]
    assert [made["metadata"]["name"] for made in chosen] == ["rc-roomcast-redis"]
    named = {each["name"]: each["targetPort"] for each in chosen[0]["spec"]["ports"]}
    assert named[monitor["spec"]["endpoints"][0]["port"]] == port["name"]
    clients, monitoring = one(objects, "NetworkPolicy", "rc-roomcast-redis")["spec"]["ingress"]
    assert ports(clients) == ["redis"] and ports(monitoring) == ["metrics"] and monitoring["from"]


def test_budget():
    spec = one(chart(), "PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1 and "minAvailable" not in spec
    spec = one(chart("", FULL), "PodDisruptionBudget")["spec"]
    assert spec["minAvailable"] == "50%" and "maxUnavailable" not in spec
    assert one(chart("", CHART / "ci/loadtest-values.yaml"), "PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("least, nodes", [("50%", 2), ("66%", 3), ("90%", 10), (1, 2)])
def test_budgets_that_let_one_go(least, nodes):
    made = chart(f"{{replicaCount: {nodes}, podDisruptionBudget: {{minAvailable: {least}}}}}")
    assert one(made, "PodDisruptionBudget")["spec"]["minAvailable"] == least


# Network policies

def ports(rule):
    return [port["port"] for port in rule["ports"]]


def test_network_policy():
    objects = chart()
    spec = one(objects, "NetworkPolicy", "rc-roomcast")["spec"]
    clients, admin = spec["ingress"]
    assert ports(clients) == ["http"] and "from" not in clients
    assert ports(admin) == ["admin"] and len(admin["from"]) == 2
    dns, redis = spec["egress"]
    assert ports(dns) == [53, 53] and "to" not in dns
    assert ports(redis) == [6379]
    redis_pod = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert redis["to"][0]["podSelector"]["matchLabels"].items() <= redis_pod.items()
    server = one(objects, "NetworkPolicy", "rc-roomcast-redis")["spec"]
    assert server["policyTypes"] == ["Ingress", "Egress"] and "egress" not in server
    nodes = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert server["ingress"][0]["from"] == [{"podSelector": {"matchLabels": server["ingress"][0]["from"][0]["podSelector"]["matchLabels"]}}]
    assert server["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= nodes.items()
    assert not server["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= redis_pod.items()


def test_network_policy_of_what_is_external():
    spec = one(chart("", EXTERNAL), "NetworkPolicy", "rc-roomcast")["spec"]
    assert spec["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "gateways"}
    _, redis, collector, more = spec["egress"]
    assert ports(redis) == [6379, 6380] and redis["to"] == [{"ipBlock": {"cidr": "10.0.9.0/24"}}]
    assert ports(collector) == [4317] and collector["to"] and ports(more) == [443]
    assert ports(spec["ingress"][2]) == [8081]


@pytest.mark.parametrize("values, expected", [
    ("externalRedis: {url: redis://r}", [6379]),
    ("externalRedis: {url: 'redis://u@r:7000/3'}", [6379, 7000]),
    ("externalRedis: {url: 'rediss+sentinel://a,b:5000/main'}", [6379, 26379, 5000]),
    ("externalRedis: {url: redis://r}, networkPolicy: {redisPorts: [6400]}", [6400]),
    ("externalRedis: {existingSecret: s, urlKey: u}, networkPolicy: {redisPorts: [6380, 26380]}", [6380, 26380]),
])
def test_ports_of_redis(values, expected):
    spec = one(chart(f"{{redis: {{enabled: false}}, {values}}}"), "NetworkPolicy", "rc-roomcast")["spec"]
    assert ports(spec["egress"][1]) == expected


# Monitoring

def test_rules():
    source = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    made = one(chart("prometheusRule: {enabled: true, labels: {release: p}, namespace: monitoring}"), "PrometheusRule")
    assert made["spec"]["groups"] == source["groups"] and made["metadata"]["namespace"] == "monitoring"
    assert made["metadata"]["labels"]["release"] == "p"
    names = [rule["alert"] for group in source["groups"] for rule in group["rules"] if "alert" in rule]
    less = one(chart(f"prometheusRule: {{enabled: true, disable: [{names[0]}]}}"), "PrometheusRule")
    assert [rule["alert"] for group in less["spec"]["groups"] for rule in group["rules"] if "alert" in rule] == \
        [name for name in names if name != names[0]]
    assert one(chart("", FULL), "PrometheusRule")["spec"]["groups"][-1]["name"] == "mine"


def test_alerts_link_to_where_the_runbook_is():
    def links(values):
        made = one(chart(f"prometheusRule: {{enabled: true{values}}}"), "PrometheusRule")
        return {rule["annotations"]["runbook_url"] for group in made["spec"]["groups"] for rule in group["rules"] if "alert" in rule}

    assert all(link.startswith("docs/runbook.md#") for link in links(""))
    for base in ("https://git.example.com/roomcast/blob/main", "https://git.example.com/roomcast/blob/main/"):
        made = links(f", runbookBase: '{base}'")
        assert made and all(link.startswith("https://git.example.com/roomcast/blob/main/docs/runbook.md#") for link in made)


def test_dashboards():
    objects = chart("dashboards: {enabled: true, namespace: grafana, annotations: {grafana_folder: Chat}}")
    made = [each for each in every(objects, "ConfigMap") if each["metadata"]["labels"].get("grafana_dashboard") == "1"]
    files = sorted((CHART / "files/dashboards").glob("*.json"))
    assert files and len(made) == len(files)
    for each, file in zip(sorted(made, key=lambda each: each["metadata"]["name"]), files):
        assert each["data"] == {f"roomcast-{file.name}": file.read_text().strip() + "\n"}
        assert each["metadata"]["namespace"] == "grafana" and each["metadata"]["annotations"] == {"grafana_folder": "Chat"}


# helm test

def test_the_chat_across_nodes():
    container = one(chart(), "Pod")["spec"]["containers"][0]
    assert container["command"] == ["loadtest"]
    assert "--target=ws://rc-roomcast-headless.chat:8080" in container["args"]
    assert "--assert=delivery_cross.count>0" in container["args"], "one node would do"
    assert one(chart(), "Pod")["metadata"]["annotations"]["helm.sh/hook"] == "test"
    alone = one(chart("{replicaCount: 1}"), "Pod")["spec"]["containers"][0]
    assert not [word for word in alone["args"] if "cross" in word]
    assert {"name": "WANTED", "value": "1"} in one(chart("{replicaCount: 1}"), "Pod")["spec"]["initContainers"][0]["env"]
    nowhere = one(chart("headlessService: {enabled: false}"), "Pod")["spec"]["containers"][0]
    assert "--target=ws://rc-roomcast.chat:80" in nowhere["args"]
    assert "initContainers" not in one(chart("headlessService: {enabled: false}"), "Pod")["spec"]
