//! `config-features`: which parts of a pod's spec users may set, and what is on by default (Knative: `config.Features`).

use std::collections::BTreeMap;

use super::keys::{ConfigError, Keys, word};

/// A feature flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// On.
    Enabled,
    /// Off unless asked for; for pod fields the same as enabled, except where Knative wants exactly "enabled".
    Allowed,
    /// Off.
    Disabled,
}

impl Flag {
    /// Whether it is exactly "enabled".
    pub fn is_enabled(self) -> bool {
        self == Self::Enabled
    }

    /// Whether it is "enabled" or "allowed".
    pub fn permits(self) -> bool {
        self != Self::Disabled
    }
}

/// What `secure-pod-defaults` does to containers that say nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecurePodDefaults {
    /// Nothing.
    Disabled,
    /// No privilege escalation, the runtime's seccomp profile, no capabilities.
    AllowRootBounded,
    /// The same, and not as root.
    Enabled,
}

macro_rules! features {
    ($( $(#[$doc:meta])* $field:ident: $key:literal = $default:ident, )*) => {
        /// The flags of `config-features`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Features {
            $(
                #[doc = concat!("`", $key, "`.")]
                $(#[$doc])*
                pub $field: Flag,
            )*
            /// `secure-pod-defaults`.
            pub secure_pod_defaults: SecurePodDefaults,
        }

        impl Default for Features {
            fn default() -> Self {
                Self { $( $field: Flag::$default, )* secure_pod_defaults: SecurePodDefaults::Disabled }
            }
        }

        impl Features {
            /// From the ConfigMap's `data`. Knative ignores values it does not know; here they are errors.
            pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
                let mut keys = Keys::new(data);
                let features = Self {
                    $( $field: keys.value($key, "", Flag::$default, flag), )*
                    secure_pod_defaults: keys.value(
                        "secure-pod-defaults", "", SecurePodDefaults::Disabled, secure_pod_defaults,
                    ),
                };
                keys.finish(features)
            }
        }
    };
}

features! {
    multi_container: "multi-container" = Enabled,
    /// Probes on sidecars; wants exactly "enabled".
    multi_container_probing: "multi-container-probing" = Disabled,
    tag_header_based_routing: "tag-header-based-routing" = Disabled,
    autodetect_http2: "autodetect-http2" = Disabled,
    queueproxy_mount_podinfo: "queueproxy.mount-podinfo" = Disabled,
    queueproxy_resource_defaults: "queueproxy.resource-defaults" = Disabled,
    podspec_dryrun: "kubernetes.podspec-dryrun" = Allowed,
    /// Wants exactly "enabled".
    add_capabilities: "kubernetes.containerspec-addcapabilities" = Disabled,
    affinity: "kubernetes.podspec-affinity" = Disabled,
    topology_spread_constraints: "kubernetes.podspec-topologyspreadconstraints" = Disabled,
    host_aliases: "kubernetes.podspec-hostaliases" = Disabled,
    node_selector: "kubernetes.podspec-nodeselector" = Disabled,
    tolerations: "kubernetes.podspec-tolerations" = Disabled,
    field_ref: "kubernetes.podspec-fieldref" = Disabled,
    runtime_class_name: "kubernetes.podspec-runtimeclassname" = Disabled,
    dns_policy: "kubernetes.podspec-dnspolicy" = Disabled,
    dns_config: "kubernetes.podspec-dnsconfig" = Disabled,
    security_context: "kubernetes.podspec-securitycontext" = Disabled,
    share_process_namespace: "kubernetes.podspec-shareprocessnamespace" = Disabled,
    host_ipc: "kubernetes.podspec-hostipc" = Disabled,
    host_pid: "kubernetes.podspec-hostpid" = Disabled,
    host_network: "kubernetes.podspec-hostnetwork" = Disabled,
    priority_class_name: "kubernetes.podspec-priorityclassname" = Disabled,
    scheduler_name: "kubernetes.podspec-schedulername" = Disabled,
    init_containers: "kubernetes.podspec-init-containers" = Disabled,
    persistent_volume_claim: "kubernetes.podspec-persistent-volume-claim" = Disabled,
    persistent_volume_write: "kubernetes.podspec-persistent-volume-write" = Disabled,
    volumes_empty_dir: "kubernetes.podspec-volumes-emptydir" = Enabled,
    volumes_host_path: "kubernetes.podspec-volumes-hostpath" = Disabled,
    volumes_csi: "kubernetes.podspec-volumes-csi" = Disabled,
    volumes_ephemeral: "kubernetes.podspec-volumes-ephemeral" = Disabled,
    volumes_image: "kubernetes.podspec-volumes-image" = Disabled,
    volumes_mount_propagation: "kubernetes.podspec-volumes-mount-propagation" = Disabled,
}

fn flag(text: &str) -> Result<Flag, String> {
    word(
        text,
        &[
            ("enabled", Flag::Enabled),
            ("allowed", Flag::Allowed),
            ("disabled", Flag::Disabled),
        ],
    )
}

fn secure_pod_defaults(text: &str) -> Result<SecurePodDefaults, String> {
    word(
        text,
        &[
            ("enabled", SecurePodDefaults::Enabled),
            ("AllowRootBounded", SecurePodDefaults::AllowRootBounded),
            ("disabled", SecurePodDefaults::Disabled),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_any_case_and_typos_are_named() {
        let data = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let features = Features::from_data(&data("kubernetes.podspec-affinity", "ALLOWED")).unwrap();
        assert!(features.affinity.permits() && !features.affinity.is_enabled());
        let features = Features::from_data(&data("secure-pod-defaults", "allowrootbounded")).unwrap();
        assert_eq!(features.secure_pod_defaults, SecurePodDefaults::AllowRootBounded);
        for (key, value, said) in [
            ("multi-container", "on", "data.multi-container: invalid value \"on\""),
            ("multi-containr", "enabled", "data.multi-containr: unknown key"),
        ] {
            let errors = Features::from_data(&data(key, value)).unwrap_err();
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].to_string(), said);
            assert!(!errors[0].hint.is_empty());
        }
        assert_eq!(Features::from_data(&data("_example", "x")), Ok(Features::default()));
    }
}
