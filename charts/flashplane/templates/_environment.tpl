{{- /* The environment of a process. Takes (list $ wants...), wants: database, redis, pepper, engineToken,
paymentEvents, auditAnchors. */ -}}
{{- define "flashplane.environment" -}}
{{- $root := index . 0 -}}
{{- $wants := rest . -}}
{{- $values := $root.Values -}}
{{- if has "redis" $wants }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "flashplane.secret" (list $values.redis.existingSecret "redis.existingSecret" "the URL of Redis or Valkey") }}
      key: {{ $values.redis.key }}
{{- end }}
{{- if has "database" $wants }}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "flashplane.secret" (list $values.database.existingSecret "database.existingSecret" "the URL of PostgreSQL") }}
      key: {{ $values.database.key }}
{{- end }}
{{- if has "pepper" $wants }}
- name: FLASHPLANE_KEY_PEPPER
  valueFrom:
    secretKeyRef:
      name: {{ include "flashplane.secret" (list $values.pepper.existingSecret "pepper.existingSecret" "the secret that API keys are hashed with") }}
      key: {{ $values.pepper.key }}
{{- with $values.pepper.previousKey }}
- name: FLASHPLANE_KEY_PEPPER_PREVIOUS
  valueFrom:
    secretKeyRef:
      name: {{ $values.pepper.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- if and (has "engineToken" $wants) $values.engineToken.existingSecret }}
- name: FLASHPLANE_ENGINE_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ $values.engineToken.existingSecret }}
      key: {{ $values.engineToken.key }}
{{- end }}
{{- if and (has "paymentEvents" $wants) $values.paymentEvents.existingSecret }}
- name: FLASHPLANE_PAYMENT_WEBHOOK_SECRETS
  valueFrom:
    secretKeyRef:
      name: {{ $values.paymentEvents.existingSecret }}
      key: {{ $values.paymentEvents.key }}
{{- end }}
{{- if and (has "auditAnchors" $wants) $values.auditAnchors.enabled }}
- name: FLASHPLANE_AUDIT_ANCHOR_FILE
  value: /var/lib/flashplane/audit/anchors
- name: FLASHPLANE_AUDIT_KEY_FILE
  value: /etc/flashplane/audit/{{ $values.auditAnchors.signingKey.key }}
{{- end }}
{{- range $name, $value := $values.settings }}
- name: FLASHPLANE_{{ upper $name }}
  {{- /* Numbers of a file are floats, and a large one would become 8.388608e+06. */}}
  {{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
  value: {{ $value | int64 | toString | quote }}
  {{- else }}
  value: {{ $value | toString | quote }}
  {{- end }}
{{- end }}
{{- end -}}
