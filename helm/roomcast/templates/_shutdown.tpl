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

{{/* Milliseconds of a duration of the settings: `45s`, `1m 30s`, `250ms`. */}}
{{- define "roomcast.millis" -}}
{{- $units := dict "us" 0 "ms" 1 "s" 1000 "sec" 1000 "m" 60000 "min" 60000 "h" 3600000 "hr" 3600000 "d" 86400000 "day" 86400000 "days" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | int) (get $units (regexFind "[a-z]+" .) | int)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
