//! The table: key, alias, place, default, range, meaning. Read with `Annotation::of`.

use super::{Annotation, Place};

macro_rules! table {
    ($( $name:ident: $key:literal $(| $alias:literal)?, $place:ident, default $default:literal, range $range:literal, $meaning:literal; )*) => {
        $(
            #[doc = concat!("`", $key, "`: ", $meaning, " Default: ", $default, ". Range: ", $range, ".")]
            pub const $name: Annotation = Annotation {
                key: $key,
                alias: concat!($($alias)?),
                place: Place::$place,
                default: $default,
                range: $range,
                meaning: $meaning,
            };
        )*
        /// All of them.
        pub const ALL: &[&Annotation] = &[$( &$name, )*];
    };
}

// Knative: pkg/apis/autoscaling, pkg/apis/serving and networking/pkg/apis/networking, each in register.go. Those under knarr.dev are
// ours; those of Alibaba's are read as its own Knative reads them, as far as they mean something here.
table! {
    CLASS: "autoscaling.knative.dev/class", Template,
        default "kpa.autoscaling.knative.dev", range "kpa.autoscaling.knative.dev, hpa.autoscaling.knative.dev, or a name outside knative.dev",
        "Which autoscaler scales the revision.";
    METRIC: "autoscaling.knative.dev/metric", Template,
        default "concurrency", range "concurrency, rps",
        "What is measured per replica.";
    TARGET: "autoscaling.knative.dev/target", Template,
        default "containerConcurrency, or container-concurrency-target-default (100); rps: 200", range "at least 0.01",
        "The most one replica should take, before utilization.";
    TARGET_UTILIZATION: "autoscaling.knative.dev/target-utilization-percentage"
        | "autoscaling.knative.dev/targetUtilizationPercentage", Template,
        default "70", range "1 to 100",
        "The share of the target that is aimed at.";
    TARGET_BURST_CAPACITY: "autoscaling.knative.dev/target-burst-capacity"
        | "autoscaling.knative.dev/targetBurstCapacity", Template,
        default "211", range "0 or more, or -1 for no limit",
        "How large a burst is buffered before it reaches the replicas.";
    WINDOW: "autoscaling.knative.dev/window", Template,
        default "60s", range "6s to 1h, whole seconds",
        "The stable window that averages are taken over.";
    PANIC_WINDOW: "autoscaling.knative.dev/panic-window-percentage"
        | "autoscaling.knative.dev/panicWindowPercentage", Template,
        default "10", range "1 to 100",
        "The panic window as a share of the stable window.";
    PANIC_THRESHOLD: "autoscaling.knative.dev/panic-threshold-percentage"
        | "autoscaling.knative.dev/panicThresholdPercentage", Template,
        default "200", range "110 to 1000",
        "Demand over ready replicas at which panic mode begins.";
    MIN_SCALE: "autoscaling.knative.dev/min-scale"
        | "autoscaling.knative.dev/minScale", Template,
        default "0", range "0 or more",
        "Least replicas while a route names the revision.";
    MAX_SCALE: "autoscaling.knative.dev/max-scale"
        | "autoscaling.knative.dev/maxScale", Template,
        default "0 (no limit)", range "0 or more, not less than min-scale",
        "Most replicas.";
    INITIAL_SCALE: "autoscaling.knative.dev/initial-scale"
        | "autoscaling.knative.dev/initialScale", Template,
        default "1", range "1 or more; 0 where allow-zero-initial-scale is on",
        "Replicas a new revision must reach once before it is ready.";
    ACTIVATION_SCALE: "autoscaling.knative.dev/activation-scale"
        | "autoscaling.knative.dev/activationScale", Template,
        default "1", range "2 or more, between min-scale and max-scale",
        "Least replicas when scaling from zero.";
    SCALE_DOWN_DELAY: "autoscaling.knative.dev/scale-down-delay"
        | "autoscaling.knative.dev/scaleDownDelay", Template,
        default "0s", range "0s to 1h, whole seconds",
        "How long the highest recent demand is kept before going down.";
    RETENTION: "autoscaling.knative.dev/scale-to-zero-pod-retention-period"
        | "autoscaling.knative.dev/scaleToZeroPodRetentionPeriod", Template,
        default "0s", range "0s to 1h, whole seconds",
        "How long the last replica stays after the decision to go to zero.";
    AGGREGATION: "autoscaling.knative.dev/metric-aggregation-algorithm"
        | "autoscaling.knative.dev/metricAggregationAlgorithm", Template,
        default "linear", range "linear, weighted-exponential",
        "How the seconds of a window weigh.";
    CREATOR: "serving.knative.dev/creator", Object,
        default "set by the server", range "cannot be changed",
        "Who made the object.";
    LAST_MODIFIER: "serving.knative.dev/lastModifier", Object,
        default "set by the server", range "set by the server",
        "Who changed the object last.";
    ROLLOUT_DURATION: "serving.knative.dev/rollout-duration"
        | "serving.knative.dev/rolloutDuration", Object,
        default "rollout-duration of config-network (0s)", range "0s or more, whole seconds",
        "How long traffic takes to move to a new revision.";
    PROGRESS_DEADLINE: "serving.knative.dev/progress-deadline", Template,
        default "600s", range "1s or more, whole seconds",
        "How long a start may take before it counts as failed.";
    NO_GC: "serving.knative.dev/no-gc", Template,
        default "false", range "true, false",
        "Keep the revision when old ones are deleted.";
    ROUTES: "serving.knative.dev/routes", Template,
        default "set by the server", range "set by the server",
        "Which routes name the revision.";
    ROUTING_STATE_MODIFIED: "serving.knative.dev/routingStateModified", Template,
        default "set by the server", range "set by the server",
        "When a route last began or ceased to name the revision.";
    FORCE_UPGRADE: "serving.knative.dev/forceUpgrade", Object,
        default "absent", range "true, false",
        "Left over from Knative's v1alpha1; no effect.";
    INGRESS_CLASS: "networking.knative.dev/ingress-class"
        | "networking.knative.dev/ingress.class", Object,
        default "ingress-class of config-network", range "any name",
        "Which ingress serves a route. Knarr is the ingress, whatever it says.";
    CERTIFICATE_CLASS: "networking.knative.dev/certificate-class"
        | "networking.knative.dev/certificate.class", Object,
        default "certificate-class of config-network", range "any name",
        "Who makes certificates.";
    DISABLE_TLS: "networking.knative.dev/disable-external-domain-tls", Object,
        default "false", range "true, false",
        "No TLS for this route, whatever the cluster does.";
    DISABLE_AUTO_TLS: "networking.knative.dev/disable-auto-tls"
        | "networking.knative.dev/disableAutoTLS", Object,
        default "false", range "true, false",
        "The former name of disable-external-domain-tls.";
    HTTP_PROTOCOL: "networking.knative.dev/http-protocol"
        | "networking.knative.dev/httpOption", Object,
        default "http-protocol of config-network", range "enabled, redirected",
        "What happens to plain HTTP.";
    WILDCARD_DOMAIN: "networking.knative.dev/wildcardDomain", Object,
        default "set by the server", range "set by the server",
        "The wildcard a certificate is for.";
    VISIBILITY: "networking.knative.dev/visibility", Object,
        default "absent", range "cluster-local",
        "A label, not an annotation: as an annotation it has no effect.";
    FULL_DUPLEX: "features.knative.dev/http-full-duplex", Template,
        default "Disabled", range "Enabled, Disabled",
        "Whether an HTTP/1 app may answer before it has read the request.";
    PODINFO: "features.knative.dev/queueproxy-podinfo", Template,
        default "Disabled", range "enabled, disabled",
        "Pod information for queue-proxy, which Knarr does not have: no effect.";
    QP_CPU_REQUEST: "queue.sidecar.serving.knative.dev/cpu-resource-request"
        | "queue.sidecar.serving.knative.dev/cpuResourceRequest", Template,
        default "25m", range "a quantity",
        "CPU for queue-proxy, which Knarr does not have: no effect.";
    QP_CPU_LIMIT: "queue.sidecar.serving.knative.dev/cpu-resource-limit"
        | "queue.sidecar.serving.knative.dev/cpuResourceLimit", Template,
        default "absent", range "a quantity",
        "CPU for queue-proxy, which Knarr does not have: no effect.";
    QP_MEMORY_REQUEST: "queue.sidecar.serving.knative.dev/memory-resource-request"
        | "queue.sidecar.serving.knative.dev/memoryResourceRequest", Template,
        default "absent", range "a quantity",
        "Memory for queue-proxy, which Knarr does not have: no effect.";
    QP_MEMORY_LIMIT: "queue.sidecar.serving.knative.dev/memory-resource-limit"
        | "queue.sidecar.serving.knative.dev/memoryResourceLimit", Template,
        default "absent", range "a quantity",
        "Memory for queue-proxy, which Knarr does not have: no effect.";
    QP_STORAGE_REQUEST: "queue.sidecar.serving.knative.dev/ephemeral-storage-resource-request"
        | "queue.sidecar.serving.knative.dev/ephemeralStorageResourceRequest", Template,
        default "absent", range "a quantity",
        "Storage for queue-proxy, which Knarr does not have: no effect.";
    QP_STORAGE_LIMIT: "queue.sidecar.serving.knative.dev/ephemeral-storage-resource-limit"
        | "queue.sidecar.serving.knative.dev/ephemeralStorageResourceLimit", Template,
        default "absent", range "a quantity",
        "Storage for queue-proxy, which Knarr does not have: no effect.";
    QP_PERCENTAGE: "queue.sidecar.serving.knative.dev/resource-percentage"
        | "queue.sidecar.serving.knative.dev/resourcePercentage", Template,
        default "absent", range "0.1 to 100",
        "Resources of queue-proxy, which Knarr does not have: no effect.";
    ECI_USE_SPECS: "k8s.aliyun.com/eci-use-specs", Template,
        default "absent", range "names of specs, or sizes as CPU-MEMORY, separated by commas: 2-4Gi, ecs.c6.large",
        "Alibaba's instance specs, in order of preference: as knarr.dev/instance-specs, which wins; what the catalogue does not have is left out.";
    RESERVE_INSTANCE: "knative.aliyun.com/reserve-instance", Template,
        default "disable", range "enable, disable",
        "Alibaba's reserved instance: as knarr.dev/idle: reserve, which wins.";
    RESERVE_CPU_LIMIT: "knative.aliyun.com/reserve-instance-cpu-resource-limit", Template,
        default "absent", range "an amount of CPU such as 500m or 1",
        "The least CPU of a reserved instance, where its specs are not listed.";
    RESERVE_CPU_REQUEST: "knative.aliyun.com/reserve-instance-cpu-resource-request", Template,
        default "absent", range "an amount of CPU such as 500m or 1",
        "As reserve-instance-cpu-resource-limit, which wins.";
    RESERVE_SPECS: "knative.aliyun.com/reserve-instance-eci-use-specs", Template,
        default "the cheapest that serves", range "names of specs, or sizes as CPU-MEMORY, separated by commas: 1-2Gi, ecs.t6-c1m1.large",
        "The specs of a reserved instance, in order of preference.";
    RESERVE_MEMORY_LIMIT: "knative.aliyun.com/reserve-instance-memory-resource-limit", Template,
        default "absent", range "an amount of memory such as 512Mi or 1Gi",
        "The least memory of a reserved instance, where its specs are not listed.";
    RESERVE_MEMORY_REQUEST: "knative.aliyun.com/reserve-instance-memory-resource-request", Template,
        default "absent", range "an amount of memory such as 512Mi or 1Gi",
        "As reserve-instance-memory-resource-limit, which wins.";
    RESERVE_REPLICAS: "knative.aliyun.com/reserve-instance-replicas", Template,
        default "1", range "1 to 1000",
        "How many reserved instances.";
    RESERVE_TYPE: "knative.aliyun.com/reserve-instance-type", Template,
        default "eci", range "eci, ecs, acs",
        "Where Alibaba takes the reserved instance from; the catalogue's pools say that here.";
    COLD_START_SLA: "knarr.dev/cold-start-sla", Template,
        default "p99<1s", range "pNN<DURATION or pNN.N<DURATION with us, ms or s, up to 1h: p99<500ms",
        "The limit on the latency that a start, or a slower spec, adds to a request. Alone it means knarr.dev/idle: auto.";
    EGRESS: "knarr.dev/egress", Template,
        default "the server's setting", range "none, full, allow-list",
        "Where the app may connect to: nowhere, everywhere but this host, or only where knarr.dev/egress-allow says.";
    EGRESS_ALLOW: "knarr.dev/egress-allow", Template,
        default "absent", range "names, *.names, addresses and networks, each with a :port or without, separated by commas: api.example.com:443, *.example.org, 10.0.0.0/8",
        "Where the app may connect to, where knarr.dev/egress is allow-list.";
    FREEZE_DELAY: "knarr.dev/freeze-delay", Template,
        default "when Knative would go to zero", range "0s to 1h",
        "How long nothing was asked for before an idle revision is frozen, where knarr.dev/idle is frozen.";
    IDLE: "knarr.dev/idle", Template,
        default "knative", range "knative, auto, zero, frozen, throttled, reserve, keep",
        "What an idle revision does: Knative's window, grace and zero (or min-scale); what costs least within the SLA; nothing stays; one sandbox stays, frozen, or under a small CPU limit, or as a cheaper instance, or as it is.";
    IDLE_IGNORE: "knarr.dev/idle-ignore", Template,
        default "none", range "none, or paths and `user-agent: TEXT`, with * for any text and -> STATUS behind, separated by commas: /healthz, /ping -> 204, user-agent: UptimeRobot",
        "GET and HEAD requests that the gateway answers itself: they wake nothing, keep nothing awake and count nowhere.";
    INSTANCE_SPECS: "knarr.dev/instance-specs", Template,
        default "all", range "all, or names of specs in the catalogue and sizes as CPU-MEMORY, separated by commas: small-1c1g, std-1c2g, 2-4Gi",
        "Which instance specs the planner may choose from, in order of preference.";
    KEEP_WARM: "knarr.dev/keep-warm", Template,
        default "none", range "none, or up to 32 windows of days, hours and a time zone, separated by commas or semicolons: Mon-Fri 07:00-23:00 Europe/Oslo",
        "Hours in which at least one replica stays, as if min-scale were 1.";
    MIN_SCALE_AS: "knarr.dev/min-scale-as", Template,
        default "full", range "full, throttled, reserve, frozen",
        "What min-scale's replicas (and those of keep-warm) are while nobody asks.";
    SERVER_TIMING: "knarr.dev/server-timing", Template,
        default "disabled", range "enabled, disabled",
        "Server-Timing on every response, not only when a request asks for it.";
    UPSTREAM_KEEPALIVE: "knarr.dev/upstream-keepalive", Template,
        default "enabled", range "enabled, disabled",
        "Whether connections to the app are used again; off for apps that serve one connection at a time.";
}
