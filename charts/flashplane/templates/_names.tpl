{{- define "flashplane.name" -}}
{{- if contains "flashplane" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-flashplane" .Release.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- /* What stays the same over all versions of a component. Takes (list $ component). */ -}}
{{- define "flashplane.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: flashplane
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "flashplane.labels" -}}
{{- $root := index . 0 -}}
{{ include "flashplane.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: flashplane
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- /* Name, namespace and labels. Takes (list $ component suffix). */ -}}
{{- define "flashplane.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "flashplane.name" $root }}-{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "flashplane.labels" . | nindent 2 }}
{{- end -}}

{{- define "flashplane.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}
{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A Secret's name, or the reason why nothing can be installed. Takes (list value path what). */ -}}
{{- define "flashplane.secret" -}}
{{- $message := printf "set %s to the name of a Secret that holds %s; see charts/flashplane/README.md" (index . 1) (index . 2) -}}
{{- required $message (index . 0) -}}
{{- end -}}
