{{/* Who may do what: secrets and files of settings, from Secrets and ConfigMaps of yours. */}}

{{/* Variables of the gateway. */}}
{{- define "roomcast.accessEnv" -}}
{{- range $name := keys .Values.secrets | sortAlpha }}
{{- $secret := get $.Values.secrets $name }}
- name: ROOMCAST_{{ snakecase $name | upper }}
  valueFrom:
    secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.key }}}
{{- end }}
{{- range $name := keys .Values.files | sortAlpha }}
- name: ROOMCAST_{{ snakecase $name | upper }}
  value: /etc/roomcast-{{ kebabcase $name }}/{{ (get $.Values.files $name).key }}
{{- end }}
{{- end -}}

{{- define "roomcast.accessMounts" -}}
{{- range $name := keys .Values.files | sortAlpha }}
- {name: {{ kebabcase $name }}, mountPath: /etc/roomcast-{{ kebabcase $name }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "roomcast.accessVolumes" -}}
{{- range $name := keys .Values.files | sortAlpha }}
{{- $file := get $.Values.files $name }}
- name: {{ kebabcase $name }}
  {{- if $file.secret }}
  secret: {secretName: {{ $file.secret }}}
  {{- else }}
  configMap: {name: {{ $file.configMap }}}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Whether clients need a token: not empty then. */}}
{{- define "roomcast.isClosed" -}}
{{- with .Values }}
{{- if or .secrets.jwtSecret .files.jwtPublicKey .config.jwtJwksUrl .issuers }}closed{{ end -}}
{{- end -}}
{{- end -}}

{{/* Whether nodes call others than Redis and the collector: not empty then. */}}
{{- define "roomcast.callsOut" -}}
{{- $fetched := false -}}
{{- range .Values.issuers }}{{ if .jwksUrl }}{{ $fetched = true }}{{ end }}{{ end -}}
{{- with .Values }}
{{- if or $fetched .config.jwtJwksUrl .config.webhookUrl .config.authorizeUrl .webhooks }}out{{ end -}}
{{- end -}}
{{- end -}}

{{/* How the load tester gets tokens: it signs them with the nodes' own secret, or has one for all its clients. Empty, if
     nodes want tokens and it has no way to one. */}}
{{- define "roomcast.testEnv" -}}
{{- with .Values.tests.token }}
- name: LOADTEST_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .name }}, key: {{ .key }}}
{{- else }}
{{- with .Values.secrets.jwtSecret }}
- name: LOADTEST_JWT_SECRET
  valueFrom:
    secretKeyRef: {name: {{ .name }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "roomcast.testArgs" -}}
{{- if and .Values.secrets.jwtSecret (not .Values.tests.token) }}
- --jwt-audience={{ first (default (list "") .Values.config.jwtAudience) }}
- '--jwt-claims={"rooms":["*"]}'
{{- with .Values.config.jwtIssuer }}
- --jwt-issuer={{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether the load tester would be let in: not empty then. */}}
{{- define "roomcast.isTestable" -}}
{{- if or (not (include "roomcast.isClosed" .)) .Values.secrets.jwtSecret .Values.tests.token }}testable{{ end -}}
{{- end -}}
