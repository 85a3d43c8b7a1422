{{/* Parts of the nodes' pods. */}}

{{/* Worker threads: as said, or as much CPU as the container may or should have. */}}
{{- define "roomcast.workersEnv" -}}
{{- $limits := default dict (default dict .Values.resources).limits -}}
{{- $requests := default dict (default dict .Values.resources).requests -}}
{{- if .Values.workers }}
- name: ROOMCAST_WORKERS
  value: {{ .Values.workers | quote }}
{{- else if or (hasKey $limits "cpu") (hasKey $requests "cpu") }}
- name: ROOMCAST_WORKERS
  valueFrom:
    resourceFieldRef:
      containerName: gateway
      resource: {{ hasKey $limits "cpu" | ternary "limits.cpu" "requests.cpu" }}
      divisor: "1"
{{- end }}
{{- end -}}

{{/* Where pods run. */}}
{{- define "roomcast.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "hostAliases" "dnsConfig" }}
{{- with get $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $key := list "priorityClassName" "schedulerName" "runtimeClassName" "dnsPolicy" }}
{{- with get $.Values $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else if .Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range $key, $when := dict "topology.kubernetes.io/zone" .Values.topologySpread.zone "kubernetes.io/hostname" .Values.topologySpread.host }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- include "roomcast.selector" (list $ "gateway") | nindent 8 }}
    # A machine that is lost or full, and tainted for it, is no place that could even things out.
    nodeTaintsPolicy: Honor
    # Each rollout is spread by itself.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* The Service for clients, as they reach it within the cluster. */}}
{{- define "roomcast.serviceTarget" -}}
ws://{{ include "roomcast.fullname" . }}.{{ .Release.Namespace }}:{{ .Values.service.port }}
{{- end -}}

{{/* Where the load tester finds each node. It looks names up once: nodes that come later are not among them. */}}
{{- define "roomcast.testTarget" -}}
{{- if .Values.headlessService.enabled -}}
ws://{{ include "roomcast.fullname" . }}-headless.{{ .Release.Namespace }}:8080
{{- else -}}
{{ include "roomcast.serviceTarget" . }}
{{- end -}}
{{- end -}}
