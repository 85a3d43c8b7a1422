{{/* Times of a node's end, computed in one place. Seconds. */}}

{{- define "roomcast.timeout" -}}
{{- if kindIs "invalid" .Values.shutdown.timeoutSeconds -}}
{{- add (int .Values.shutdown.drainSeconds) 10 -}}
{{- else -}}
{{- int .Values.shutdown.timeoutSeconds -}}
{{- end -}}
{{- end -}}

{{/* The least grace: what is waited, what the node takes, and a second to end. */}}
{{- define "roomcast.leastGrace" -}}
{{- add (int .Values.shutdown.preStopSeconds) (include "roomcast.timeout" . | int) 1 -}}
{{- end -}}

{{- define "roomcast.grace" -}}
{{- if kindIs "invalid" .Values.shutdown.terminationGracePeriodSeconds -}}
{{- add (int .Values.shutdown.preStopSeconds) (include "roomcast.timeout" . | int) (int .Values.shutdown.marginSeconds) -}}
{{- else -}}
{{- int .Values.shutdown.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* native or gateway. */}}
{{- define "roomcast.preStop" -}}
{{- if ne .Values.shutdown.preStop "auto" -}}
{{- .Values.shutdown.preStop -}}
{{- else if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
native
{{- else -}}
gateway
{{- end -}}
{{- end -}}

{{/* Seconds of a duration of the settings: `45s`, `1m 30s`, `250ms` (which is 0). */}}
{{- define "roomcast.seconds" -}}
{{- $units := dict "s" 1 "sec" 1 "m" 60 "min" 60 "h" 3600 "hr" 3600 "d" 86400 "day" 86400 "days" 86400 "ms" 0 "us" 0 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int) (get $units (regexFind "[a-z]+" .) | int)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
