use std::time::Duration;

use super::*;
use crate::resources::Resource;
use crate::revision::{Aggregation, IdlePolicy, Metric};
use crate::units::{Bytes, Concurrency, Millicores, Replicas, Rps};
use crate::workload::{
    Capabilities, Check, Image, Probes, Protocol, PullPolicy, Resources, Seccomp, Security, TerminationMessage,
};

/// The revision `shop-00001` of a Service `shop` with these annotations and this spec, not defaulted.
fn convert(annotations: &str, spec: &str) -> Result<Revision, Vec<String>> {
    convert_in(&ClusterConfig::default(), annotations, spec)
}

fn convert_in(cluster: &ClusterConfig, annotations: &str, spec: &str) -> Result<Revision, Vec<String>> {
    convert_with(cluster, &Sources::default(), annotations, spec)
}

fn convert_with(
    cluster: &ClusterConfig,
    sources: &Sources,
    annotations: &str,
    spec: &str,
) -> Result<Revision, Vec<String>> {
    let text = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Revision\nmetadata:\n  name: shop-00001\n  namespace: ns\n  labels: \
         {{serving.knative.dev/configuration: shop, serving.knative.dev/service: shop}}\n  annotations: {{{annotations}}}\nspec: {{{spec}}}\n"
    );
    let (mut documents, problems) = crate::read::read("t", &text);
    assert_eq!(problems, [], "{text}");
    let Resource::Revision(object) = documents.remove(0).resource else {
        panic!("{text}")
    };
    let around = Surroundings { cluster, sources };
    revision_of(&object, Timestamp::from_millis(7), around)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

const PLAIN: &str = "containers: [{image: 'host:/bin/app'}]";

#[test]
fn what_new_revisions_are_is_what_a_plain_manifest_says() {
    let id = RevisionId::new("ns", "shop-00001");
    let expected = Revision {
        configuration: ObjectId::new("ns", "shop"),
        service: Some(ObjectId::new("ns", "shop")),
        created: Timestamp::from_millis(7),
        reachability: Reachability::Unknown,
        ..Revision::new(id, crate::workload::Workload::host("/bin/app"))
    };
    let named = "containers: [{name: user-container, image: 'host:/bin/app'}]";
    assert_eq!(convert("", named).unwrap(), expected);
}

#[test]
fn a_plain_manifest_behaves_as_knative() {
    let revision = convert("", PLAIN).unwrap();
    assert_eq!(revision.id.to_string(), "ns/shop-00001");
    assert_eq!(revision.configuration, ObjectId::new("ns", "shop"));
    assert_eq!(revision.service, Some(ObjectId::new("ns", "shop")));
    assert_eq!(revision.created, Timestamp::from_millis(7));
    assert_eq!(
        (&revision.idle, revision.server_timing, revision.upstream_keepalive),
        (&IdlePolicy::Knative, false, true)
    );
    assert_eq!(
        revision.timeouts,
        Timeouts {
            request: Duration::from_secs(300),
            response_start: None,
            idle: None
        }
    );

    let workload = &revision.workload;
    assert_eq!(workload.serving.image, Image::Host("/bin/app".into()));
    assert_eq!((workload.port, workload.protocol), (8080, Protocol::Http1));
    assert_eq!(workload.stop_grace, Duration::from_secs(300));
    assert_eq!(
        workload.serving.probes.readiness.as_ref().unwrap().check,
        Check::Tcp { port: 8080 }
    );
    assert_eq!(
        (
            workload.serving.probes.readiness.as_ref().unwrap().period,
            workload.serving.probes.readiness.as_ref().unwrap().timeout
        ),
        (None, Duration::from_millis(100))
    );

    let scaling = &revision.scaling;
    assert_eq!(
        scaling.metric,
        Metric::Concurrency {
            target: Concurrency(70.0),
            total: Concurrency(100.0)
        }
    );
    assert_eq!(
        (scaling.stable_window, scaling.panic_window),
        (Duration::from_secs(60), Duration::from_secs(6))
    );
    assert_eq!(
        (scaling.panic_threshold, scaling.target_burst_capacity),
        (2.0, Some(211.0))
    );
    assert_eq!(
        (
            scaling.max_scale_up_rate,
            scaling.max_scale_down_rate,
            scaling.activator_capacity
        ),
        (1000.0, 2.0, 100.0)
    );
    assert_eq!((scaling.min_scale, scaling.max_scale), (Replicas(0), None));
    assert_eq!(
        (scaling.initial_scale, scaling.activation_scale),
        (Replicas(1), Replicas(1))
    );
    assert_eq!(
        (scaling.scale_to_zero, scaling.scale_to_zero_grace),
        (true, Duration::from_secs(30))
    );
    assert_eq!(
        (scaling.retention, scaling.scale_down_delay),
        (Duration::ZERO, Duration::ZERO)
    );
    assert_eq!(scaling.progress_deadline, Duration::from_secs(600));
}

#[test]
fn targets_as_knative_resolves_them() {
    let concurrency = |target: f64, total: f64| Metric::Concurrency {
        target: Concurrency(target),
        total: Concurrency(total),
    };
    let rps = |target: f64, total: f64| Metric::Rps {
        target: Rps(target),
        total: Rps(total),
    };
    let table = [
        ("", "", concurrency(70.0, 100.0)),
        ("", "containerConcurrency: 10", concurrency(7.0, 10.0)),
        ("autoscaling.knative.dev/target: '5'", "", concurrency(3.5, 5.0)),
        ("autoscaling.knative.dev/target: '500'", "", concurrency(350.0, 500.0)),
        (
            "autoscaling.knative.dev/target: '500'",
            "containerConcurrency: 10",
            concurrency(7.0, 10.0),
        ),
        (
            "autoscaling.knative.dev/target: '5'",
            "containerConcurrency: 10",
            concurrency(3.5, 5.0),
        ),
        (
            "autoscaling.knative.dev/target-utilization-percentage: '50'",
            "containerConcurrency: 1",
            concurrency(0.5, 1.0),
        ),
        (
            "autoscaling.knative.dev/target: '0.01', autoscaling.knative.dev/targetUtilizationPercentage: '1'",
            "",
            concurrency(0.01, 0.01),
        ),
        (
            "autoscaling.knative.dev/metric: rps",
            "containerConcurrency: 10",
            rps(140.0, 200.0),
        ),
        (
            "autoscaling.knative.dev/metric: rps, autoscaling.knative.dev/target: '50'",
            "containerConcurrency: 10",
            rps(35.0, 50.0),
        ),
    ];
    for (annotations, spec, want) in table {
        let got = convert(annotations, &format!("{PLAIN}, {spec}"))
            .unwrap()
            .scaling
            .metric;
        assert_eq!(format!("{got:?}"), format!("{want:?}"), "{annotations} {spec}");
    }
}

#[test]
fn annotations_go_over_the_config() {
    let annotations = "autoscaling.knative.dev/window: 6s, autoscaling.knative.dev/panic-window-percentage: '1', \
         autoscaling.knative.dev/panicThresholdPercentage: '150', autoscaling.knative.dev/target-burst-capacity: '-1', \
         autoscaling.knative.dev/min-scale: '2', autoscaling.knative.dev/maxScale: '9', autoscaling.knative.dev/initial-scale: '3', \
         autoscaling.knative.dev/activation-scale: '4', autoscaling.knative.dev/scale-down-delay: 1m, \
         autoscaling.knative.dev/scale-to-zero-pod-retention-period: 1m5s, serving.knative.dev/progress-deadline: 10s, \
         autoscaling.knative.dev/metric-aggregation-algorithm: weightedExponential, knarr.dev/idle: auto";
    let revision = convert(annotations, PLAIN).unwrap();
    let scaling = &revision.scaling;
    assert_eq!(
        (scaling.stable_window, scaling.panic_window),
        (Duration::from_secs(6), Duration::from_secs(1))
    );
    assert_eq!((scaling.panic_threshold, scaling.target_burst_capacity), (1.5, None));
    assert_eq!((scaling.min_scale, scaling.max_scale), (Replicas(2), Some(Replicas(9))));
    assert_eq!(
        (scaling.initial_scale, scaling.activation_scale),
        (Replicas(3), Replicas(4))
    );
    assert_eq!(
        (scaling.scale_down_delay, scaling.retention),
        (Duration::from_secs(60), Duration::from_secs(65))
    );
    assert_eq!(
        (scaling.progress_deadline, scaling.aggregation),
        (Duration::from_secs(10), Aggregation::WeightedExponential)
    );
    assert!(revision.idle == IdlePolicy::Auto);
}

#[test]
fn the_whole_container() {
    let spec = "timeoutSeconds: 20, idleTimeoutSeconds: 5, responseStartTimeoutSeconds: 10, containerConcurrency: 3, containers: [{image: \
                'host:python3', name: web, command: [$(K_SERVICE)], args: [--port, $(PORT), $(A), $(NO), $$(A)], workingDir: /srv, env: \
                [{name: A, value: a$(PORT)}], ports: [{name: h2c, containerPort: 9000}], resources: {limits: {cpu: 1500m, memory: 1Gi}, \
                requests: {cpu: 1}}, readinessProbe: {httpGet: {path: health, port: 0, httpHeaders: [{name: X-A, value: b}]}, \
                initialDelaySeconds: 1, periodSeconds: 5, timeoutSeconds: 2, successThreshold: 2, failureThreshold: 4}}]";
    let revision = convert("", spec).unwrap();
    let workload = &revision.workload;
    assert_eq!(workload.serving.image, Image::Host("python3".into()));
    assert_eq!(workload.serving.command, ["shop"]);
    let args: Vec<String> = workload.serving.args.iter().map(ToString::to_string).collect();
    assert_eq!(args, ["--port", "{Port}", "a$(PORT)", "$(NO)", "$(A)"]);
    assert_eq!(workload.serving.env["A"], "a$(PORT)");
    assert_eq!(
        (workload.serving.working_dir.as_deref(), &*workload.serving.name),
        (Some("/srv".as_ref()), "web")
    );
    assert_eq!((workload.port, workload.protocol), (9000, Protocol::H2c));
    assert_eq!(
        (workload.cpu_limit(), workload.memory_limit()),
        (Some(Millicores(1500)), Some(Bytes(1 << 30)))
    );
    let probe = workload.serving.probes.readiness.as_ref().unwrap();
    let headers = vec![("X-A".to_owned(), "b".to_owned())];
    assert_eq!(
        probe.check,
        Check::Http {
            tls: false,
            port: 9000,
            path: "/health".to_owned(),
            headers
        }
    );
    assert_eq!((probe.success_threshold, probe.failure_threshold), (2, 4));
    assert_eq!(
        (probe.initial_delay, probe.period),
        (Duration::from_secs(1), Some(Duration::from_secs(5)))
    );
    assert_eq!(
        (probe.timeout, workload.stop_grace),
        (Duration::from_secs(2), Duration::from_secs(20))
    );
    assert_eq!(revision.timeouts.response_start, Some(Duration::from_secs(10)));
    assert_eq!(
        (revision.timeouts.idle, revision.container_concurrency.0),
        (Some(Duration::from_secs(5)), 3)
    );
}

#[test]
fn probe_ports_by_number_and_name() {
    let port_of = |port: &str| {
        let spec = format!(
            "containers: [{{image: 'host:a', ports: [{{name: http1, containerPort: 81}}], readinessProbe: {{tcpSocket: {{port: {port}}}}}}}]"
        );
        convert("", &spec).map(|revision| {
            revision
                .workload
                .serving
                .probes
                .readiness
                .as_ref()
                .unwrap()
                .check
                .clone()
        })
    };
    for (port, want) in [("0", 81), ("90", 90), ("'91'", 91), ("http1", 81)] {
        assert_eq!(port_of(port), Ok(Check::Tcp { port: want }), "{port}");
    }
    for port in ["other", "70000", "-1"] {
        assert!(port_of(port).is_err(), "{port}");
    }
}

#[test]
fn says_all_faults_at_once() {
    let annotations = "autoscaling.knative.dev/target: NaN, autoscaling.knative.dev/window: Inf, knarr.dev/idle: maybe";
    let spec = "timeoutSeconds: -1, containers: [{image: 'host:./app', workingDir: rel, env: [{name: '', value: x}], resources: {limits: \
                {cpu: -1}, requests: {cpu: 2}}, readinessProbe: {httpGet: {path: /a b}}}]";
    assert_eq!(
        convert(annotations, spec).unwrap_err(),
        [
            "spec.containers[0].env[0]: \"\" cannot be a variable; names have no \"=\", values no zero byte",
            "spec.containers[0].image: invalid value: host:./app; write host:/path/to/program, or host:NAME for a program on the PATH",
            "spec.containers[0].workingDir: invalid value: rel; write an absolute path",
            "spec.containers[0].readinessProbe.httpGet.path: invalid value: \"/a b\"; write spaces and the like as %20",
            "spec.containers[0].resources.requests.cpu: is more than its limit -1; raise the limit",
            "spec.containers[0].resources.limits.cpu: invalid value: -1; must be above 0",
            "metadata.annotations.autoscaling.knative.dev/target: invalid value: NaN; must be a finite number",
            "metadata.annotations.autoscaling.knative.dev/window: invalid value: Inf; must be a duration such as 60s",
            "metadata.annotations.knarr.dev/idle: invalid value: maybe",
            "spec.timeoutSeconds: invalid value: -1; must be 0 to 4294967295",
        ]
    );
}

#[test]
fn a_pod_of_several_containers() {
    let spec = "securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000, supplementalGroups: [3000, 3001], seccompProfile: \
                {type: Unconfined}}, hostAliases: [{ip: 10.0.0.1, hostnames: [db, db.local]}], runtimeClassName: native, volumes: [{name: \
                d, emptyDir: {}}], initContainers: [{name: prepare, image: tools:1, command: [make, $(K_REVISION), $(PORT)], volumeMounts: \
                [{name: d, mountPath: /d}]}], containers: [{name: log, image: 'oci:/srv/log', args: [$(PORT)], livenessProbe: {exec: \
                {command: [ok]}}, startupProbe: {grpc: {port: 9, service: s}, failureThreshold: 30}, securityContext: {runAsUser: 5, \
                readOnlyRootFilesystem: true, capabilities: {drop: [all], add: [CAP_NET_RAW, kill]}, seccompProfile: {type: Localhost, \
                localhostProfile: own/p.json}}, terminationMessagePath: /log/last, terminationMessagePolicy: File}, {name: web, image: \
                'app:v2', ports: [{containerPort: 80}], readinessProbe: {exec: {command: [ready, now]}}, resources: {requests: {cpu: 100m, \
                memory: 1Mi}, limits: {ephemeral-storage: 1Gi}}, volumeMounts: [{name: d, mountPath: /d, readOnly: true}]}]";
    let revision = convert("", spec).unwrap();
    let workload = &revision.workload;
    let names: Vec<&str> = workload.containers().map(|container| &*container.name).collect();
    assert_eq!(names, ["prepare", "web", "log"]);
    assert_eq!((workload.port, workload.runtime.as_deref()), (80, None));
    assert_eq!(
        (workload.fs_group, &workload.supplemental_groups),
        (Some(2000), &vec![3000, 3001])
    );
    assert_eq!(workload.host_aliases[0].names, ["db", "db.local"]);

    let (init, web, log) = (&workload.init[0], &workload.serving, &workload.sidecars[0]);
    assert_eq!(init.command, ["make", "shop-00001", "$(PORT)"]);
    assert_eq!((&init.probes, init.mounts.len()), (&Probes::default(), 1));
    assert_eq!((init.security.user, init.security.group), (Some(1000), Some(1001)));
    assert_eq!(init.security.seccomp, Seccomp::Unconfined);

    assert_eq!(web.pull, PullPolicy::IfNotPresent);
    let ready = web.probes.readiness.as_ref().unwrap();
    let command = vec!["ready".to_owned(), "now".to_owned()];
    assert_eq!(
        (&ready.check, ready.timeout),
        (&Check::Exec { command }, Duration::from_secs(1))
    );
    assert_eq!(
        web.resources,
        Resources {
            cpu_request: Some(Millicores(100)),
            memory_request: Some(Bytes(1 << 20)),
            ephemeral_limit: Some(Bytes(1 << 30)),
            ..Resources::default()
        }
    );
    assert!(web.mounts[0].read_only);

    assert_eq!((log.pull, &log.args[0]), (PullPolicy::Always, &"$(PORT)".into()));
    assert_eq!(log.probes.readiness, None);
    let alive = log.probes.liveness.as_ref().unwrap();
    assert_eq!(
        (alive.period, alive.timeout),
        (Some(Duration::from_secs(10)), Duration::from_secs(1))
    );
    assert_eq!((alive.failure_threshold, alive.success_threshold), (3, 1));
    let startup = log.probes.startup.as_ref().unwrap();
    let service = "s".to_owned();
    assert_eq!(
        (&startup.check, startup.failure_threshold),
        (&Check::Grpc { port: 9, service }, 30)
    );
    assert_eq!(
        log.security,
        Security {
            user: Some(5),
            group: Some(1001),
            non_root: false,
            read_only_root: true,
            capabilities: Capabilities {
                drop: vec!["ALL".to_owned()],
                add: vec!["NET_RAW".to_owned(), "KILL".to_owned()],
            },
            seccomp: Seccomp::Localhost("own/p.json".into()),
        }
    );
    let last = TerminationMessage {
        path: "/log/last".into(),
        fall_back_to_logs: false,
    };
    assert_eq!(log.termination, last);
}

#[test]
fn what_is_wrong_in_a_pod() {
    let spec = "imagePullSecrets: [{name: gone}], hostAliases: [{ip: home, hostnames: [x]}, {ip: '::1'}], securityContext: {runAsNonRoot: \
                true, runAsUser: 0}, containers: [{image: ab, ports: [{containerPort: 80}], securityContext: {capabilities: {add: [NOPE]}, \
                seccompProfile: {type: Localhost, localhostProfile: own/../../p}}, livenessProbe: {exec: {}}, readinessProbe: \
                {tcpSocket: {port: 80}, terminationGracePeriodSeconds: 3}, startupProbe: {httpGet: {port: \
                side}, successThreshold: 2}}, {image: ab, livenessProbe: {tcpSocket: {port: http1}}, startupProbe: {tcpSocket: {port: 1}, \
                terminationGracePeriodSeconds: 0}}]";
    assert_eq!(
        convert("", spec).unwrap_err(),
        [
            "spec.containers[0].startupProbe.httpGet.port: there is no port named \"side\"; write 0 for the container's port",
            "spec.containers[0].livenessProbe.exec.command: has no program; write a program and its arguments",
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: is of no use; a readiness probe ends nothing",
            "spec.containers[0].securityContext.capabilities.add[0]: invalid value: NOPE; write names such as NET_RAW, or ALL",
            "spec.securityContext.runAsUser: is 0 while runAsNonRoot is true; change one of them",
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: invalid value: \"own/../../p\"; write the path of \
             a profile below the directory of profiles: relative, without ..",
            "spec.containers[1].startupProbe.terminationGracePeriodSeconds: invalid value: 0; write at least 1",
            "spec.containers[1].livenessProbe.tcpSocket.port: there is no port named \"http1\"; write its number",
            "spec.securityContext.runAsUser: is 0 while runAsNonRoot is true; change one of them",
            "spec.imagePullSecrets[0]: there is no Secret ns/gone; add it",
            "spec.hostAliases[0].ip: invalid value: \"home\"; write an IP address",
            "spec.hostAliases[1].hostnames: is empty; write at least one",
        ]
    );
}

#[test]
fn what_another_runtime_cannot_do() {
    let spec = "runtimeClassName: runc, containers: [{image: ab, ports: [{containerPort: 80}]}, {image: 'host:/bin/true'}], \
                initContainers: [{image: 'host:sh'}]";
    let host = "runtimeClassName runc runs images, not programs of this machine; write an image, or leave out spec.runtimeClassName";
    let wanted = [
        format!("spec.containers[1].image: {host}"),
        format!("spec.initContainers[0].image: {host}"),
    ];
    assert_eq!(convert("", spec).unwrap_err(), wanted);
    let image = convert("", "runtimeClassName: runc, containers: [{image: ab}]").unwrap();
    assert_eq!(image.workload.runtime.as_deref(), Some("runc"));
}

#[test]
fn a_claim_that_nobody_shares_has_one_sandbox_at_a_time() {
    let claim = |modes: &str| {
        let text = format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data, namespace: ns}}\nspec: {{accessModes: [{modes}]}}\n"
        );
        match crate::read::read("t", &text).0.remove(0).resource {
            Resource::PersistentVolumeClaim(claim) => {
                let mut sources = Sources::default();
                sources.add_claim(&claim);
                sources
            }
            other => panic!("{other:?}"),
        }
    };
    let spec = "volumes: [{name: d, persistentVolumeClaim: {claimName: data}}], containers: [{image: ab, volumeMounts: [{name: d, mountPath: \
                /d}]}]";
    let scale = |modes: &str, annotations: &str| {
        let sources = claim(modes);
        convert_with(&ClusterConfig::default(), &sources, annotations, spec).map(|revision| {
            (
                revision.scaling.min_scale.0,
                revision.scaling.max_scale.map(|max| max.0),
            )
        })
    };
    assert_eq!(scale("ReadWriteOnce", ""), Ok((0, Some(1))));
    assert_eq!(
        scale("ReadWriteOncePod", "autoscaling.knative.dev/min-scale: '1'"),
        Ok((1, Some(1)))
    );
    assert_eq!(
        scale("ReadWriteMany", "autoscaling.knative.dev/min-scale: '3'"),
        Ok((3, None))
    );
    assert_eq!(
        scale("ReadWriteOnce", "autoscaling.knative.dev/maxScale: '3'"),
        Err(vec![
            "metadata.annotations.autoscaling.knative.dev/maxScale: is more than 1 with PersistentVolumeClaim ns/data, which one sandbox may \
             have; write accessModes: [ReadWriteMany] in the claim if the app can share it"
                .to_owned()
        ])
    );
}
