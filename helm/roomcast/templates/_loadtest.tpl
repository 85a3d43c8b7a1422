{{/* Parts of the load test's pods. */}}

{{- define "roomcast.loadtestPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $.Values.loadtest $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* How to reach the store of reports. Called with (list secret host). */}}
{{- define "roomcast.loadtestStore" -}}
- {name: STORE, value: {{ index . 1 }}}
- {name: STORE_PORT, value: "6379"}
- name: REDISCLI_AUTH
  valueFrom:
    secretKeyRef: {name: {{ index . 0 }}, key: password}
{{- end -}}

{{/* Containers that only pass reports on. */}}
{{- define "roomcast.loadtestSmall" -}}
resources:
  requests: {cpu: 50m, memory: 64Mi}
  limits: {memory: 512Mi}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}
