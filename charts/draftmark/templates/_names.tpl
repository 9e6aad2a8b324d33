{{/* Name of the chart in labels. */}}
{{- define "draftmark.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Start of every object's name: short enough for the suffixes. */}}
{{- define "draftmark.fullname" -}}
{{- $name := include "draftmark.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Cluster-wide names carry the namespace: two releases of one name may stand in two namespaces. */}}
{{- define "draftmark.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "draftmark.fullname" .) }}
{{- end }}

{{- define "draftmark.selector" -}}
app.kubernetes.io/name: {{ include "draftmark.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "draftmark.labels" -}}
{{ include "draftmark.selector" . }}
app.kubernetes.io/part-of: draftmark
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "draftmark.serviceAccount" -}}
{{- default (ternary (include "draftmark.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "draftmark.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* The administrator's defaults as the operator reads them: what is empty is left out, or filled in from the release. */}}
{{- define "draftmark.defaults" -}}
{{- $defaults := deepCopy .Values.defaults }}
{{- $traffic := dict "reloaderImage" (include "draftmark.image" .) }}
{{- range $name, $image := $defaults.traffic }}
{{- if $image }}{{ $_ := set $traffic $name $image }}{{ end }}
{{- end }}
{{- $network := default (dict) $defaults.network }}
{{- $_ := set $network "operatorNamespace" (default .Release.Namespace $network.operatorNamespace) }}
{{- $_ := set $defaults "traffic" $traffic }}
{{- $_ := set $defaults "network" $network }}
{{- toYaml $defaults }}
{{- end }}
