{{/* Names, labels and references that several templates share. */}}

{{/* Cut at 40: a pod's name, which is the node's id, has up to 17 more, and an id up to 64. */}}
{{- define "roomcast.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What never changes: a selector cannot. Called with (list $ component). */}}
{{- define "roomcast.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Called with (list $ component). */}}
{{- define "roomcast.labels" -}}
{{- $root := index . 0 -}}
{{ include "roomcast.selector" . }}
app.kubernetes.io/part-of: roomcast
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod, without those that a new version of the chart changes: it need not mean new pods.
     Called with (list $ component labels). */}}
{{- define "roomcast.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := fromYaml (include "roomcast.selector" (list $root (index . 1))) -}}
{{- merge $own (dict "app.kubernetes.io/part-of" "roomcast") (index . 2) $root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* Begins an object's metadata. Called with (list $ component name [labels [annotations [namespace]]]). */}}
{{- define "roomcast.metadata" -}}
{{- $root := index . 0 -}}
{{- $labels := dict -}}{{- $annotations := dict -}}{{- $namespace := "" -}}
{{- if gt (len .) 3 }}{{ $labels = index . 3 }}{{ end -}}
{{- if gt (len .) 4 }}{{ $annotations = index . 4 }}{{ end -}}
{{- if gt (len .) 5 }}{{ $namespace = index . 5 }}{{ end -}}
name: {{ index . 2 }}
namespace: {{ default $root.Release.Namespace $namespace }}
labels:
  {{- merge (deepCopy $labels) (fromYaml (include "roomcast.labels" (list $root (index . 1)))) | toYaml | nindent 2 }}
{{- with merge (deepCopy $annotations) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's reference. Called with (list image tag). */}}
{{- define "roomcast.reference" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end -}}
{{- end -}}

{{- define "roomcast.image" -}}
{{- include "roomcast.reference" (list .Values.image .Chart.AppVersion) -}}
{{- end -}}

{{- define "roomcast.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "roomcast.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Selects all pods of the release, whatever they do. */}}
{{- define "roomcast.siblings" -}}
matchLabels:
  app.kubernetes.io/instance: {{ .Release.Name }}
  app.kubernetes.io/part-of: roomcast
{{- end -}}
