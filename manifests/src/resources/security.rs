//! Security contexts as `k8s.io/api/core/v1` prints them.

use serde_json::Value;

use super::mirror::mirror;

mirror! {
    /// What a container may do (Kubernetes: SecurityContext).
    pub struct SecurityContext {
        capabilities: Option<Capabilities> = "capabilities",
        privileged: Option<bool> = "privileged",
        se_linux_options: Option<Value> = "seLinuxOptions",
        windows_options: Option<Value> = "windowsOptions",
        run_as_user: Option<i64> = "runAsUser",
        run_as_group: Option<i64> = "runAsGroup",
        run_as_non_root: Option<bool> = "runAsNonRoot",
        read_only_root_filesystem: Option<bool> = "readOnlyRootFilesystem",
        allow_privilege_escalation: Option<bool> = "allowPrivilegeEscalation",
        proc_mount: Option<String> = "procMount",
        seccomp_profile: Option<SeccompProfile> = "seccompProfile",
        app_armor_profile: Option<Value> = "appArmorProfile",
    }

    /// Capabilities by name, without `CAP_` (Kubernetes: Capabilities).
    pub struct Capabilities {
        add: Vec<String> = "add",
        drop: Vec<String> = "drop",
    }

    /// A seccomp profile (Kubernetes: SeccompProfile).
    pub struct SeccompProfile {
        /// `RuntimeDefault`, `Unconfined` or `Localhost`.
        kind: String = "type" always,
        localhost_profile: Option<String> = "localhostProfile",
    }

    /// What all containers of a pod may do (Kubernetes: PodSecurityContext).
    pub struct PodSecurityContext {
        se_linux_options: Option<Value> = "seLinuxOptions",
        windows_options: Option<Value> = "windowsOptions",
        run_as_user: Option<i64> = "runAsUser",
        run_as_group: Option<i64> = "runAsGroup",
        run_as_non_root: Option<bool> = "runAsNonRoot",
        supplemental_groups: Vec<i64> = "supplementalGroups",
        supplemental_groups_policy: Option<String> = "supplementalGroupsPolicy",
        fs_group: Option<i64> = "fsGroup",
        sysctls: Vec<Value> = "sysctls",
        fs_group_change_policy: Option<String> = "fsGroupChangePolicy",
        seccomp_profile: Option<SeccompProfile> = "seccompProfile",
        app_armor_profile: Option<Value> = "appArmorProfile",
        se_linux_change_policy: Option<String> = "seLinuxChangePolicy",
    }
}
