{{/* How many nodes. */}}

{{/* The least there are, whoever decides. */}}
{{- define "roomcast.leastNodes" -}}
{{- if .Values.autoscaling.enabled }}{{ int .Values.autoscaling.minReplicas -}}
{{- else if .Values.keda.enabled }}{{ int .Values.keda.minReplicas -}}
{{- else }}{{ int .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* `replicas` of the Deployment, or nothing. Helm deletes a field that the last revision had and the next has not, and
     Kubernetes makes 1 of that: nearly all nodes would go at once. So under an autoscaler the field is left out only where
     no revision before had it, which an annotation tells; elsewhere it says what is there. */}}
{{- define "roomcast.replicas" -}}
{{- if not (or .Values.autoscaling.enabled .Values.keda.enabled) -}}
{{ .Values.replicaCount }}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "roomcast.fullname" .) -}}
{{- $marks := default dict (dig "metadata" "annotations" dict $live) -}}
{{- if and $live (ne (get $marks "roomcast/replicas") "autoscaler") -}}
{{ dig "spec" "replicas" 1 $live | int }}
{{- end -}}
{{- end -}}
{{- end -}}
