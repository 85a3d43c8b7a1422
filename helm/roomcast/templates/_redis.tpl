{{/* Which Redis, and where its secrets are. */}}

{{/* own, external or none. */}}
{{- define "roomcast.redisKind" -}}
{{- if .Values.redis.enabled -}}own
{{- else if or .Values.externalRedis.url .Values.externalRedis.urlKey -}}external
{{- else -}}none
{{- end -}}
{{- end -}}

{{- define "roomcast.redisName" -}}
{{ include "roomcast.fullname" . }}-redis
{{- end -}}

{{/* The Secret with the own Redis' password. */}}
{{- define "roomcast.redisSecret" -}}
{{- default (include "roomcast.redisName" .) .Values.redis.auth.existingSecret -}}
{{- end -}}

{{/* Variables of the gateway about Redis. */}}
{{- define "roomcast.redisEnv" -}}
{{- $external := .Values.externalRedis -}}
{{- $kind := include "roomcast.redisKind" . -}}
{{- if eq $kind "own" }}
- name: ROOMCAST_REDIS
  value: redis://{{ include "roomcast.redisName" . }}:6379
- name: ROOMCAST_REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "roomcast.redisSecret" . }}, key: {{ .Values.redis.auth.passwordKey }}}
{{- else if eq $kind "external" }}
- name: ROOMCAST_REDIS
  {{- if $external.urlKey }}
  valueFrom:
    secretKeyRef: {name: {{ $external.existingSecret }}, key: {{ $external.urlKey }}}
  {{- else }}
  value: {{ $external.url | quote }}
  {{- end }}
{{- if and $external.existingSecret $external.passwordKey }}
- name: ROOMCAST_REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $external.existingSecret }}, key: {{ $external.passwordKey }}}
{{- end }}
{{- if and $external.existingSecret $external.sentinelPasswordKey }}
- name: ROOMCAST_REDIS_SENTINEL_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $external.existingSecret }}, key: {{ $external.sentinelPasswordKey }}}
{{- end }}
{{- if or $external.ca.existingSecret $external.ca.existingConfigMap }}
- name: ROOMCAST_REDIS_CA
  value: /etc/roomcast-ca/{{ $external.ca.key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Ports that an external Redis may have, as a JSON list: those named, else those of the URL, else the usual ones. */}}
{{- define "roomcast.redisPorts" -}}
{{- $url := .Values.externalRedis.url -}}
{{- $ports := list -}}
{{- if .Values.networkPolicy.redisPorts -}}
{{- range .Values.networkPolicy.redisPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- else -}}
{{- $ports = list 6379 -}}
{{- if contains "+sentinel" $url }}{{ $ports = append $ports 26379 }}{{ end -}}
{{- range regexFindAll ":[0-9]{1,5}(,|/|$)" $url -1 }}{{ $ports = append $ports (regexFind "[0-9]+" . | int) }}{{ end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* Configuration of the own Redis. */}}
{{- define "roomcast.redisConfig" -}}
bind * -::*
port 6379
dir /data
# The append-only file alone is enough, and no snapshot stops writes when it fails.
appendonly {{ .Values.redis.persistence.enabled | ternary "yes" "no" }}
appendfsync everysec
save ""
maxmemory {{ .Values.redis.maxmemory }}
maxmemory-policy noeviction
tcp-keepalive 60
# A node that is busy for a moment is not cut off: the default is 32mb.
client-output-buffer-limit pubsub 256mb 64mb 60
{{- end -}}
