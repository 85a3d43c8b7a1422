{{/* What can be known to fail is refused here, before anything is changed in the cluster. */}}
{{- define "roomcast.checks" -}}
{{- $v := .Values -}}
{{- $kind := include "roomcast.redisKind" . -}}
{{- $most := int $v.replicaCount -}}
{{- if $v.autoscaling.enabled }}{{ $most = int $v.autoscaling.maxReplicas }}{{ end -}}
{{- if $v.keda.enabled }}{{ $most = int $v.keda.maxReplicas }}{{ end -}}

{{- if and (eq $kind "none") (gt $most 1) -}}
{{- fail (printf "\nUp to %d nodes and no Redis: each would have rooms of its own. Set redis.enabled, or externalRedis.url (or its existingSecret and urlKey), or a replicaCount of 1 without autoscaling." $most) -}}
{{- end -}}
{{- $external := $v.externalRedis -}}
{{- if and $v.redis.enabled (or $external.url $external.urlKey) -}}
{{- fail "\nBoth redis.enabled and externalRedis are set. Set redis.enabled: false to use the external one." -}}
{{- end -}}
{{- range $path, $secret := dict "externalRedis" $external.existingSecret "redis.auth" $v.redis.auth.existingSecret -}}
{{- if eq (toString $secret) (include "roomcast.redisName" $) -}}
{{- fail (printf "\n%s.existingSecret is %s, the name of the Secret that the chart makes for its own Redis: it would be replaced, or deleted by the upgrade that leaves that Redis. Give yours another name." $path $secret) -}}
{{- end -}}
{{- end -}}
{{- if and $external.url $external.urlKey -}}
{{- fail "\nexternalRedis.url and externalRedis.urlKey are both set. Keep one of them." -}}
{{- end -}}
{{- if and (or $external.urlKey $external.sentinelPasswordKey) (not $external.existingSecret) -}}
{{- fail "\nexternalRedis.urlKey and sentinelPasswordKey are keys of externalRedis.existingSecret, which is not set." -}}
{{- end -}}
{{- if and $external.sentinelPasswordKey $external.url (not (contains "+sentinel://" $external.url)) -}}
{{- fail "\nexternalRedis.sentinelPasswordKey is set, but externalRedis.url names no sentinels (redis+sentinel://)." -}}
{{- end -}}
{{- if or (regexMatch "//[^/@]*:[^/@]*@" $external.url) (contains "sentinel_password=" $external.url) -}}
{{- fail "\nexternalRedis.url has a password, and would show it to everyone who may read the Deployment. Put the password into a Secret and name it in externalRedis.existingSecret, with its key in passwordKey, or sentinelPasswordKey for that of the sentinels." -}}
{{- end -}}
{{- if and (or $external.ca.existingSecret $external.ca.existingConfigMap) (not $external.urlKey) (not (hasPrefix "rediss" $external.url)) -}}
{{- fail "\nexternalRedis.ca is set, but externalRedis.url does not begin with rediss: nothing would be verified." -}}
{{- end -}}
{{- if and $external.ca.existingSecret $external.ca.existingConfigMap -}}
{{- fail "\nexternalRedis.ca names both a Secret and a ConfigMap. Keep one of them." -}}
{{- end -}}
{{- if and $external.urlKey $v.networkPolicy.enabled (not $v.networkPolicy.redisPorts) -}}
{{- fail "\nexternalRedis.urlKey hides where Redis is, and the NetworkPolicy must let the nodes reach its ports: name them in networkPolicy.redisPorts, such as [6379], and with sentinels theirs, too." -}}
{{- end -}}
{{- with include "roomcast.volumeChange" . -}}
{{- fail (printf "\nredis.persistence cannot be changed by an upgrade, because Kubernetes lets nobody change the volume of a StatefulSet (%s). docs/kubernetes.md, Redis, says how to enlarge it." .) -}}
{{- end -}}

{{- $timeout := include "roomcast.timeout" . | int -}}
{{- if le $timeout (int $v.shutdown.drainSeconds) -}}
{{- fail (printf "\nshutdown.timeoutSeconds (%d) must be longer than shutdown.drainSeconds (%d): the last clients need time to go. 10 s more are well spent." $timeout (int $v.shutdown.drainSeconds)) -}}
{{- end -}}
{{- $grace := include "roomcast.grace" . | int -}}
{{- $least := include "roomcast.leastGrace" . | int -}}
{{- if lt $grace $least -}}
{{- fail (printf "\nThe pod's grace (%d s) is shorter than preStopSeconds + timeoutSeconds + 1 = %d + %d + 1 s: nodes would be killed before their clients have gone. Raise shutdown.terminationGracePeriodSeconds (or marginSeconds), or lower the others." $grace (int $v.shutdown.preStopSeconds) $timeout) -}}
{{- end -}}
{{- if and (eq $v.shutdown.preStop "native") (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "\nshutdown.preStop is native, which needs Kubernetes 1.30; this is %s. Use auto or gateway." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $rolling := default dict $v.deployment.strategy.rollingUpdate -}}
{{- if and (eq (toString $rolling.maxUnavailable) "0") (eq (toString $rolling.maxSurge) "0") -}}
{{- fail "\ndeployment.strategy: maxUnavailable and maxSurge are both 0, so no rollout could begin." -}}
{{- end -}}

{{- if and $v.autoscaling.enabled $v.keda.enabled -}}
{{- fail "\nautoscaling.enabled and keda.enabled are both set: two would fight over the number of nodes. Keep one of them." -}}
{{- end -}}
{{- range $key, $scaling := dict "autoscaling" $v.autoscaling "keda" $v.keda -}}
{{- if $scaling.enabled -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "\n%s.minReplicas (%d) is more than maxReplicas (%d)." $key (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if not (or $scaling.targetCPU $scaling.targetMemory $scaling.connections.enabled $scaling.metrics $scaling.triggers) -}}
{{- fail (printf "\n%s.enabled needs something to look at: targetCPU or connections." $key) -}}
{{- end -}}
{{- if and $scaling.targetCPU (not (hasKey (default dict (default dict $v.resources).requests) "cpu")) -}}
{{- fail (printf "\n%s.targetCPU is a percentage of resources.requests.cpu, which is not set." $key) -}}
{{- end -}}
{{- if and $scaling.targetMemory (not (hasKey (default dict (default dict $v.resources).requests) "memory")) -}}
{{- fail (printf "\n%s.targetMemory is a percentage of resources.requests.memory, which is not set." $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.keda.enabled $v.keda.connections.enabled (not $v.keda.connections.serverAddress) -}}
{{- fail "\nkeda.connections.serverAddress is not set: KEDA must know where Prometheus is, such as http://prometheus-operated.monitoring:9090." -}}
{{- end -}}
{{- $limit := int64 (default 20000 $v.config.maxConnections) -}}
{{- range $key, $scaling := dict "autoscaling" $v.autoscaling "keda" $v.keda -}}
{{- if and $scaling.enabled $scaling.connections.enabled (ge (int64 $scaling.connections.target) $limit) -}}
{{- fail (printf "\n%s.connections.target (%d) is not below config.maxConnections (%d): nodes would refuse clients before another one is started." $key (int $scaling.connections.target) $limit) -}}
{{- end -}}
{{- end -}}

{{- if $v.podDisruptionBudget.enabled -}}
{{- $budget := $v.podDisruptionBudget -}}
{{- $least := include "roomcast.leastNodes" . | int -}}
{{- if not (kindIs "invalid" $budget.minAvailable) -}}
{{- /* Of a percentage Kubernetes makes a number of nodes, rounded up. */}}
{{- $kept := int (trimSuffix "%" (toString $budget.minAvailable)) -}}
{{- if hasSuffix "%" (toString $budget.minAvailable) }}{{ $kept = div (add (mul $kept $least) 99) 100 | int }}{{ end -}}
{{- if ge $kept $least -}}
{{- fail (printf "\npodDisruptionBudget.minAvailable (%s) allows none of %d nodes to go: no machine could be drained. Use maxUnavailable: 1." (toString $budget.minAvailable) $least) -}}
{{- end -}}
{{- end -}}
{{- if and (kindIs "invalid" $budget.minAvailable) (or (kindIs "invalid" $budget.maxUnavailable) (has (toString $budget.maxUnavailable) (list "0" "0%"))) -}}
{{- fail "\npodDisruptionBudget.maxUnavailable must be 1 or more: otherwise no machine could be drained." -}}
{{- end -}}
{{- end -}}

{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "\ningress.enabled needs ingress.hosts, such as [{host: chat.example.com}]." -}}
{{- end -}}
{{- $own := and $v.httpRoute.enabled $v.httpRoute.gateway.enabled -}}
{{- if and $v.httpRoute.enabled (not $own) (not $v.httpRoute.parentRefs) -}}
{{- fail "\nhttpRoute.enabled needs httpRoute.parentRefs, such as [{name: public, namespace: gateways}], or httpRoute.gateway: a route without a Gateway does nothing." -}}
{{- end -}}
{{- if and $own $v.httpRoute.parentRefs -}}
{{- fail "\nhttpRoute.gateway and httpRoute.parentRefs are both set: keep the release's own Gateway, or yours." -}}
{{- end -}}
{{- if and $own (not $v.httpRoute.gateway.className) -}}
{{- fail "\nhttpRoute.gateway.enabled needs httpRoute.gateway.className, the GatewayClass that serves it: kubectl get gatewayclass." -}}
{{- end -}}
{{- if and $own $v.httpRoute.gateway.listeners $v.httpRoute.gateway.tlsSecret -}}
{{- fail "\nhttpRoute.gateway.listeners and tlsSecret are both set: a listener of yours names its own certificate." -}}
{{- end -}}
{{- if $v.adminRoute.enabled -}}
{{- if not (or $own $v.adminRoute.parentRefs) -}}
{{- fail "\nadminRoute.enabled needs adminRoute.parentRefs, a Gateway that only operators reach." -}}
{{- end -}}
{{- if not $v.internalService.enabled -}}
{{- fail "\nadminRoute.enabled needs internalService.enabled: the route leads to that Service." -}}
{{- end -}}
{{- if and $own (not $v.adminRoute.parentRefs) (not $v.adminRoute.hostnames) -}}
{{- fail "\nadminRoute on the Gateway for clients needs adminRoute.hostnames of its own: otherwise it would take their requests, or show /metrics to all." -}}
{{- end -}}
{{- end -}}
{{- if and $v.check.enabled (ne $kind "external") -}}
{{- fail "\ncheck.enabled looks at an external Redis before the release is installed; its own is not there yet then. Set externalRedis, or leave the check out." -}}
{{- end -}}
{{- $config := merge (deepCopy $v.config) (dict "pingInterval" "25s" "pingTimeout" "45s" "leaseBeat" "5s" "leaseExpiry" "15s" "maxMessageBytes" 65536 "outboundQueueBytes" 262144 "maxConnections" 20000 "maxConnectionsPerAddress" 0 "trustedProxies" list) -}}
{{- $interval := include "roomcast.millis" $config.pingInterval | int64 -}}
{{- if ge $interval (include "roomcast.millis" $config.pingTimeout | int64) -}}
{{- fail (printf "\nconfig.pingTimeout (%s) must be longer than config.pingInterval (%s)." $config.pingTimeout $config.pingInterval) -}}
{{- end -}}
{{- if gt (mul 2 (include "roomcast.millis" $config.leaseBeat | int64)) (include "roomcast.millis" $config.leaseExpiry | int64) -}}
{{- fail (printf "\nconfig.leaseExpiry (%s) must be at least twice config.leaseBeat (%s)." $config.leaseExpiry $config.leaseBeat) -}}
{{- end -}}
{{- if gt (add (int64 $config.maxMessageBytes) 2048) (int64 $config.outboundQueueBytes) -}}
{{- fail (printf "\nconfig.maxMessageBytes (%d) must be at least 2048 less than config.outboundQueueBytes (%d)." (int64 $config.maxMessageBytes) (int64 $config.outboundQueueBytes)) -}}
{{- end -}}
{{- if gt (int64 $config.maxConnectionsPerAddress) (int64 $config.maxConnections) -}}
{{- fail (printf "\nconfig.maxConnectionsPerAddress (%d) must not exceed config.maxConnections (%d)." (int64 $config.maxConnectionsPerAddress) (int64 $config.maxConnections)) -}}
{{- end -}}
{{- if and (gt (int64 $config.maxConnectionsPerAddress) 0) (not $config.trustedProxies) (or $v.ingress.enabled $v.httpRoute.enabled) -}}
{{- fail "\nconfig.maxConnectionsPerAddress behind a proxy needs config.trustedProxies: otherwise all clients have the proxy's address." -}}
{{- end -}}
{{- if and $v.ingress.enabled (ne $v.ingress.preset "none") (le (mul 1000 (int64 $v.ingress.idleSeconds)) $interval) -}}
{{- fail (printf "\ningress.idleSeconds (%d) must be longer than config.pingInterval (%s): the proxy would end silent connections before their next ping." (int $v.ingress.idleSeconds) $config.pingInterval) -}}
{{- end -}}

{{- if and $v.prometheusRule.enabled (not (.Files.Get "files/alerts.yaml")) -}}
{{- fail "\nThe chart has no files/alerts.yaml. It is copied from grafana/ by `make chart`." -}}
{{- end -}}
{{- if and $v.dashboards.enabled (not (.Files.Glob "files/dashboards/*.json")) -}}
{{- fail "\nThe chart has no files/dashboards. They are copied from grafana/ by `make chart`." -}}
{{- end -}}
{{- if and (ne $v.service.type "LoadBalancer") (or $v.service.loadBalancerClass $v.service.loadBalancerSourceRanges) -}}
{{- fail (printf "\nservice.loadBalancerClass and loadBalancerSourceRanges mean nothing to a Service of type %s." $v.service.type) -}}
{{- end -}}
{{- if and (eq $v.service.type "ClusterIP") (or $v.service.nodePort $v.service.externalTrafficPolicy) -}}
{{- fail "\nservice.nodePort and externalTrafficPolicy mean nothing to a Service of type ClusterIP." -}}
{{- end -}}

{{- $ours := list "ROOMCAST_CONFIG" "ROOMCAST_NODE_ID" "ROOMCAST_WORKERS" "ROOMCAST_REDIS" "ROOMCAST_REDIS_PASSWORD" "ROOMCAST_REDIS_SENTINEL_PASSWORD" "ROOMCAST_REDIS_CA" "ROOMCAST_DRAIN_DELAY" "ROOMCAST_DRAIN_WINDOW" "ROOMCAST_SHUTDOWN_TIMEOUT" "ROOMCAST_LISTEN" "ROOMCAST_ADMIN_LISTEN" -}}
{{- range $v.extraEnv -}}
{{- if has .name $ours -}}
{{- fail (printf "\nextraEnv sets %s, which the chart sets itself: use its own value (workers, redis, externalRedis, shutdown, listenAddress)." .name) -}}
{{- end -}}
{{- end -}}
{{- if and $v.loadtest.enabled (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "\nloadtest.enabled needs Kubernetes 1.29; this is %s. docs/loadtest.md shows how to run it by hand." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
