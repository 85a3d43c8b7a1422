{{/* What of the own Redis' volume differs from what is there, in words, or nothing. Kubernetes refuses a change of it with words
     that name neither the value nor a way out. */}}
{{- define "roomcast.volumeChange" -}}
{{- $live := dict -}}
{{- if .Values.redis.enabled }}{{ $live = lookup "apps/v1" "StatefulSet" .Release.Namespace (include "roomcast.redisName" .) }}{{ end -}}
{{- if $live -}}
{{- $wanted := .Values.redis.persistence -}}
{{- $claims := default list (dig "spec" "volumeClaimTemplates" list $live) -}}
{{- if ne (not $wanted.enabled) (empty $claims) -}}
enabled: {{ not $wanted.enabled }} to {{ $wanted.enabled }}
{{- else if $wanted.enabled -}}
{{- $claim := (first $claims).spec -}}
{{- $size := dig "resources" "requests" "storage" "" $claim -}}
{{- $class := default "" $claim.storageClassName -}}
{{- if ne (include "roomcast.bytes" $size) (include "roomcast.bytes" $wanted.size) -}}
size: {{ $size }} to {{ $wanted.size }}
{{- else if ne $class $wanted.storageClass -}}
storageClass: {{ $class | quote }} to {{ $wanted.storageClass | quote }}
{{- else if ne (join "," $claim.accessModes) (join "," $wanted.accessModes) -}}
accessModes: {{ join "," $claim.accessModes }} to {{ join "," $wanted.accessModes }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity in bytes, for Kubernetes may write 2048Mi as 2Gi. */}}
{{- define "roomcast.bytes" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit) -}}
{{- end -}}
