{{/* What a node may reach, and so what a check of its settings has to. */}}
{{- define "roomcast.egress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $kind := include "roomcast.redisKind" . -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- if eq $kind "own" }}
- ports: [{port: 6379, protocol: TCP}]
  to:
    - podSelector:
        matchLabels:
          {{- include "roomcast.selector" (list . "redis") | nindent 10 }}
{{- else if eq $kind "external" }}
- ports:
    {{- range include "roomcast.redisPorts" . | fromJsonArray }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with $policy.redis }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .Values.otlp.endpoint }}
- ports: [{port: {{ regexFind ":[0-9]+" (trimPrefix "http://" .) | trimPrefix ":" | default "4317" }}, protocol: TCP}]
  {{- with $policy.collector }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with $policy.extraEgress }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}
