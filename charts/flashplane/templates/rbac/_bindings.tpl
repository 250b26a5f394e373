{{- /* Binds a role of the same name to a component. Takes (list $ component suffix cluster-wide). */ -}}
{{- define "flashplane.binding" -}}
{{- $root := index . 0 -}}
{{- $wide := index . 3 -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRoleBinding" "RoleBinding" $wide }}
metadata:
  {{- if $wide }}
  name: {{ include "flashplane.name" $root }}-{{ index . 2 }}
  labels:
    {{- include "flashplane.labels" . | nindent 4 }}
  {{- else }}
  {{- include "flashplane.metadata" . | nindent 2 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "ClusterRole" "Role" $wide }}
  name: {{ include "flashplane.name" $root }}-{{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ include "flashplane.name" $root }}-{{ index . 1 }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}
