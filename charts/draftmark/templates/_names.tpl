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

{{/*
An image from the registry that stands for all of them: list of the image and the registry. As the operator does it: what
comes before the first slash is a registry if it has a dot or a colon in it, or is localhost.
*/}}
{{- define "draftmark.mirrored" -}}
{{- $image := index . 0 }}
{{- $registry := index . 1 }}
{{- if $registry }}
{{- $parts := splitn "/" 2 $image }}
{{- $isRegistry := and $parts._1 (or (contains "." $parts._0) (contains ":" $parts._0) (eq $parts._0 "localhost")) }}
{{- printf "%s/%s" (trimSuffix "/" $registry) (ternary $parts._1 $image (not (empty $isRegistry))) }}
{{- else }}
{{- $image }}
{{- end }}
{{- end }}

{{- define "draftmark.image" -}}
{{- $repository := include "draftmark.mirrored" (list .Values.image.repository (default "" (default (dict) .Values.global).imageRegistry)) }}
{{- with .Values.image }}
{{- if .digest }}{{ $repository }}@{{ .digest }}{{ else }}{{ $repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Pull secrets of the operator's pods, or of the services' pods: list of the context and their own. */}}
{{- define "draftmark.pullSecrets" -}}
{{- $context := index . 0 }}
{{- $secrets := concat (default (list) (default (dict) $context.Values.global).imagePullSecrets) (default (list) (index . 1)) | uniq }}
{{- if $secrets }}{{ toYaml $secrets }}{{ end }}
{{- end }}

{{/* The administrator's defaults as the operator reads them: what is empty is left out, or filled in from the release. */}}
{{- define "draftmark.defaults" -}}
{{- $defaults := deepCopy .Values.defaults }}
{{- $global := default (dict) .Values.global }}
{{- $traffic := dict "reloaderImage" (include "draftmark.image" .) }}
{{- range $name, $image := $defaults.traffic }}
{{- if $image }}{{ $_ := set $traffic $name $image }}{{ end }}
{{- end }}
{{- $network := default (dict) $defaults.network }}
{{- $_ := set $network "operatorNamespace" (default .Release.Namespace $network.operatorNamespace) }}
{{- $hub := dict }}
{{- range $name, $value := $defaults.hub }}
{{- if $value }}{{ $_ := set $hub $name $value }}{{ end }}
{{- end }}
{{- $_ := set $defaults "hub" $hub }}
{{- $benchmarks := dict }}
{{- range $name, $value := $defaults.benchmarks }}
{{- if $value }}{{ $_ := set $benchmarks $name $value }}{{ end }}
{{- end }}
{{- $_ := set $defaults "benchmarks" $benchmarks }}
{{- if not (and $defaults.prices $defaults.prices.perHour) }}{{ $_ := unset $defaults "prices" }}{{ end }}
{{- $_ := set $defaults "traffic" $traffic }}
{{- $_ := set $defaults "network" $network }}
{{- if and $global.imageRegistry (not $defaults.registryMirror) }}{{ $_ := set $defaults "registryMirror" $global.imageRegistry }}{{ end }}
{{- with include "draftmark.pullSecrets" (list . $defaults.imagePullSecrets) }}{{ $_ := set $defaults "imagePullSecrets" (fromYamlArray .) }}{{ end }}
{{- if .Values.watchNamespaces }}{{ $_ := set $defaults "namespaced" true }}{{ end }}
{{- toYaml $defaults }}
{{- end }}
