{{/* The file of settings. JSON texts, numbers, booleans and lists are TOML, too. */}}
{{- define "roomcast.config" -}}
listen = {{ printf "%s:8080" .Values.listenAddress | toJson }}
admin_listen = {{ printf "%s:8081" .Values.listenAddress | toJson }}
redis_prefix = {{ .Values.redisPrefix | toJson }}
log_format = {{ .Values.log.format | toJson }}
log = {{ .Values.log.filter | toJson }}
# The time in which load balancers notice is waited before SIGTERM, in preStop.
drain_delay = "0s"
drain_window = "{{ int .Values.shutdown.drainSeconds }}s"
shutdown_timeout = "{{ include "roomcast.timeout" . }}s"
{{- if .Values.otlp.endpoint }}
otlp_endpoint = {{ .Values.otlp.endpoint | toJson }}
otlp_sample_ratio = {{ .Values.otlp.sampleRatio | toJson }}
{{- end }}
{{- range $key := keys .Values.config | sortAlpha }}
{{ snakecase $key }} = {{ get $.Values.config $key | toJson }}
{{- end }}
{{- range $table := list "rooms" "issuers" "webhooks" }}
{{- range $entry := get $.Values $table }}

[[{{ $table }}]]
{{- range $key := keys $entry | sortAlpha }}
{{ snakecase $key }} = {{ get $entry $key | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
