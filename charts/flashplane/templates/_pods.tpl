{{- /* Fields of a pod that all components share. Takes (list $ component settings-of-it). */ -}}
{{- define "flashplane.podHead" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
automountServiceAccountToken: {{ has $component (list "operator" "jobs" "ssh-gateway" "orphans") }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if has $component (list "gateway" "api" "operator" "ssh-gateway") }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "flashplane.selector" (list $root $component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Labels and annotations of a pod. Takes (list $ component settings-of-it). */ -}}
{{- define "flashplane.podMetadata" -}}
{{- $values := index . 2 -}}
labels:
  {{- include "flashplane.labels" . | nindent 2 }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Image, security and resources of a container. Takes (list $ settings-of-it). */ -}}
{{- define "flashplane.containerHead" -}}
{{- $root := index . 0 -}}
image: {{ include "flashplane.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml (index . 1).resources | nindent 2 }}
{{- end -}}

{{- /* Whether a budget of disruptions helps: one replica's would only block drains. Takes the count. */ -}}
{{- define "flashplane.disruptionBudget" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $replicas := index . 2 | int -}}
{{- if gt $replicas 1 }}
---
{{- if semverCompare ">=1.21.0-0" $root.Capabilities.KubeVersion.Version }}
apiVersion: policy/v1
{{- else }}
apiVersion: policy/v1beta1
{{- end }}
kind: PodDisruptionBudget
metadata:
  {{- include "flashplane.metadata" (list $root $component $component) | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "flashplane.selector" (list $root $component) | nindent 6 }}
{{- end }}
{{- end -}}
