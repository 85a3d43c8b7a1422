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
{{- if and $external.url $external.urlKey -}}
{{- fail "\nexternalRedis.url and externalRedis.urlKey are both set. Keep one of them." -}}
{{- end -}}
{{- if and $external.urlKey (not $external.existingSecret) -}}
{{- fail "\nexternalRedis.urlKey is a key of externalRedis.existingSecret, which is not set." -}}
{{- end -}}
{{- if or (regexMatch "//[^/@]*:[^/@]*@" $external.url) (contains "sentinel_password=" $external.url) -}}
{{- fail "\nexternalRedis.url has a password, and would show it to everyone who may read the Deployment. Put the password into a Secret and name it in externalRedis.existingSecret (and passwordKey); a URL with other secret parts into the same one, under externalRedis.urlKey." -}}
{{- end -}}
{{- if and (or $external.ca.existingSecret $external.ca.existingConfigMap) (not $external.urlKey) (not (hasPrefix "rediss" $external.url)) -}}
{{- fail "\nexternalRedis.ca is set, but externalRedis.url does not begin with rediss: nothing would be verified." -}}
{{- end -}}
{{- if and $external.ca.existingSecret $external.ca.existingConfigMap -}}
{{- fail "\nexternalRedis.ca names both a Secret and a ConfigMap. Keep one of them." -}}
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
{{- end -}}
