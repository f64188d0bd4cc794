use super::*;

/// The paths found in a Service whose container (or pod, or template, or metadata) also has `yaml`, refused ones with `!`.
fn found(place: &str, yaml: &str) -> Vec<String> {
    let at = |wanted: &str| if place == wanted { yaml } else { "" };
    let text = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: a, {metadata}}}\nspec:\n  template:\n    metadata: \
         {{{template}}}\n    spec:\n      containers: [{{image: {image}, {container}}}{more}]\n      enableServiceLinks: false\n      \
         {pod}\n",
        metadata = at("metadata"),
        template = at("template"),
        image = if place == "image" { yaml } else { "host:/bin/app" },
        container = at("container"),
        more = at("more"),
        pod = at("pod"),
    );
    let (documents, problems) = crate::read::read("t.yaml", &text);
    assert_eq!(problems, [], "{text}");
    unsupported(&documents[0].resource)
        .into_iter()
        .map(|it| {
            format!(
                "{}{}",
                if it.refused { "!" } else { "" },
                it.path.replace("spec.template.spec", "S")
            )
        })
        .collect()
}

#[test]
fn accepts_what_is_built() {
    let fine = [
        ("container", ""),
        (
            "container",
            "command: [a], args: [b], workingDir: /, ports: [{containerPort: 80, name: h2c}], imagePullPolicy: Always",
        ),
        (
            "container",
            "env: [{name: A, value: b}, {name: C, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
        ),
        ("container", "envFrom: [{prefix: X_, configMapRef: {name: c}}]"),
        (
            "container",
            "resources: {limits: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}, requests: {cpu: 10m}}",
        ),
        (
            "container",
            "startupProbe: {grpc: {port: 1}}, livenessProbe: {exec: {command: [a]}}, volumeMounts: [{name: v, mountPath: /v, subPath: s, \
             mountPropagation: None}]",
        ),
        (
            "container",
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: B, valueFrom: {resourceFieldRef: {resource: \
             limits.cpu}}}]",
        ),
        ("image", "docker.io/library/nginx"),
        ("image", "oci:/dir"),
        (
            "more",
            ", {image: ab, securityContext: {runAsUser: 0, runAsNonRoot: false, readOnlyRootFilesystem: false, capabilities: {add: \
             [NET_ADMIN]}, seccompProfile: {type: Unconfined}}}",
        ),
        (
            "pod",
            "volumes: [{name: v, emptyDir: {}}, {name: w, hostPath: {path: /}}, {name: p, persistentVolumeClaim: {claimName: c}}]\n      \
             initContainers: [{image: ab}]\n      imagePullSecrets: [{name: x}]\n      serviceAccountName: default\n      \
             runtimeClassName: runc\n      hostAliases: [{ip: 1.2.3.4, hostnames: [a]}]",
        ),
        (
            "container",
            "readinessProbe: {httpGet: {path: /h, port: 0, scheme: HTTP}, periodSeconds: 1, failureThreshold: 2}",
        ),
        (
            "container",
            "readinessProbe: {tcpSocket: {port: 8080}, successThreshold: 1, initialDelaySeconds: 1}",
        ),
        (
            "container",
            "securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, privileged: \
             false, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}, seccompProfile: {type: RuntimeDefault}}",
        ),
        (
            "container",
            "terminationMessagePath: /x, terminationMessagePolicy: File",
        ),
        (
            "pod",
            "containerConcurrency: 1\n      timeoutSeconds: 5\n      automountServiceAccountToken: false",
        ),
        (
            "pod",
            "securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}",
        ),
        (
            "metadata",
            "annotations: {serving.knative.dev/rollout-duration: 0s, networking.knative.dev/http-protocol: Enabled}",
        ),
        (
            "template",
            "annotations: {autoscaling.knative.dev/class: kpa.autoscaling.knative.dev}",
        ),
        (
            "template",
            "annotations: {features.knative.dev/http-full-duplex: Enabled}, name: a-b, labels: {x: z}",
        ),
    ];
    for (place, yaml) in fine {
        assert_eq!(found(place, yaml), [""; 0], "{yaml}");
    }
}

#[test]
fn refuses_by_name_what_is_not() {
    let table: &[(&str, &str, &[&str])] = &[
        (
            "more",
            ", {image: ab, ports: [{containerPort: 1}], tty: true}",
            &["!S.containers[1].tty"],
        ),
        (
            "container",
            "livenessProbe: {httpGet: {port: 1, scheme: HTTPS}, terminationGracePeriodSeconds: 1}",
            &[],
        ),
        (
            "container",
            "readinessProbe: {httpGet: {host: h, scheme: https}}",
            &[
                "!S.containers[0].readinessProbe.httpGet.host",
                "!S.containers[0].readinessProbe.httpGet.scheme",
            ],
        ),
        (
            "container",
            "startupProbe: {tcpSocket: {host: h}}",
            &["!S.containers[0].startupProbe.tcpSocket.host"],
        ),
        (
            "container",
            "volumeMounts: [{name: v, mountPath: /v, mountPropagation: HostToContainer, subPathExpr: x}]",
            &[
                "!S.containers[0].volumeMounts[0].subPathExpr",
                "!S.containers[0].volumeMounts[0].mountPropagation",
            ],
        ),
        (
            "container",
            "stdin: true, lifecycle: {}",
            &["!S.containers[0].lifecycle", "!S.containers[0].stdin"],
        ),
        (
            "container",
            "resources: {limits: {hugepages-2Mi: 1Gi}, requests: {nvidia.com/gpu: 1, ephemeral-storage: 1}}",
            &[
                "!S.containers[0].resources.limits.hugepages-2Mi",
                "!S.containers[0].resources.requests.nvidia.com/gpu",
                "S.containers[0].resources.requests.ephemeral-storage",
            ],
        ),
        (
            "container",
            "env: [{name: A, valueFrom: {fileKeyRef: {}}}]",
            &["!S.containers[0].env[0].valueFrom.fileKeyRef"],
        ),
        (
            "container",
            "securityContext: {runAsUser: 0, runAsGroup: 5}",
            &[
                "!S.containers[0].securityContext.runAsUser",
                "!S.containers[0].securityContext.runAsGroup",
            ],
        ),
        (
            "container",
            "securityContext: {runAsNonRoot: false, readOnlyRootFilesystem: false, allowPrivilegeEscalation: true}",
            &[
                "!S.containers[0].securityContext.allowPrivilegeEscalation",
                "!S.containers[0].securityContext.runAsNonRoot",
                "!S.containers[0].securityContext.readOnlyRootFilesystem",
            ],
        ),
        (
            "container",
            "securityContext: {capabilities: {add: [NET_ADMIN]}, seccompProfile: {type: Unconfined}}",
            &[
                "!S.containers[0].securityContext.capabilities.add",
                "!S.containers[0].securityContext.seccompProfile",
            ],
        ),
        (
            "more",
            ", {image: ab, securityContext: {runAsUser: 0, privileged: true, procMount: Unmasked, seLinuxOptions: {}}}",
            &[
                "!S.containers[1].securityContext.seLinuxOptions",
                "!S.containers[1].securityContext.privileged",
                "!S.containers[1].securityContext.procMount",
            ],
        ),
        (
            "pod",
            "volumes: [{name: v, csi: {driver: d}}, {name: w, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
            &[
                "!S.volumes[0].csi",
                "!S.volumes[1].projected.sources[0].serviceAccountToken",
            ],
        ),
        (
            "pod",
            "initContainers: [{image: ab, restartPolicy: Always}]",
            &["!S.initContainers[0].restartPolicy"],
        ),
        ("pod", "serviceAccountName: x", &["!S.serviceAccountName"]),
        (
            "pod",
            "nodeSelector: {a: b}\n      hostNetwork: true",
            &["!S.nodeSelector", "!S.hostNetwork"],
        ),
        (
            "pod",
            "securityContext: {runAsUser: 5, fsGroup: 5, fsGroupChangePolicy: Always}",
            &["!S.securityContext.fsGroupChangePolicy", "!S.securityContext.runAsUser"],
        ),
        ("metadata", "generateName: a-", &["!metadata.generateName"]),
        ("metadata", "finalizers: [x]", &["!metadata.finalizers"]),
        (
            "metadata",
            "labels: {networking.knative.dev/visibility: cluster-local}",
            &["!metadata.labels.networking.knative.dev/visibility"],
        ),
        (
            "metadata",
            "annotations: {serving.knative.dev/rolloutDuration: 10s}",
            &["!metadata.annotations.serving.knative.dev/rolloutDuration"],
        ),
        (
            "metadata",
            "annotations: {networking.knative.dev/http-protocol: Redirected}",
            &["!metadata.annotations.networking.knative.dev/http-protocol"],
        ),
        (
            "template",
            "annotations: {autoscaling.knative.dev/class: hpa.autoscaling.knative.dev}",
            &["!spec.template.metadata.annotations.autoscaling.knative.dev/class"],
        ),
        (
            "template",
            "annotations: {queue.sidecar.serving.knative.dev/cpu-resource-request: 1}",
            &["spec.template.metadata.annotations.queue.sidecar.serving.knative.dev/cpu-resource-request"],
        ),
    ];
    for (place, yaml, want) in table {
        let yaml = yaml.replace("cpu-resource-request: 1", "cpu-resource-request: '1'");
        assert_eq!(found(place, &yaml), *want, "{yaml}");
    }
    let links = RevisionSpec {
        enable_service_links: Some(true),
        ..RevisionSpec::default()
    };
    let mut on = Found::default();
    on.revision("S", &links);
    assert_eq!(on.0[0].message(), "not supported yet: S.enableServiceLinks");
}
