{{- /* Takes the rules out of a schema, in place. Renders nothing. */ -}}
{{- define "flashplane-crds.withoutRules" -}}
{{- if kindIs "map" . -}}
{{- $_ := unset . "x-kubernetes-validations" -}}
{{- range $_, $value := . -}}{{- include "flashplane-crds.withoutRules" $value -}}{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "flashplane-crds.withoutRules" . -}}{{- end -}}
{{- end -}}
{{- end -}}
