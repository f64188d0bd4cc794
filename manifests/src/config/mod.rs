//! Knative's ConfigMaps (`config-*` in namespace `knative-serving`), typed, with Knative's defaults; and Knarr's own beside
//! them.

mod autoscaler;
mod cluster;
pub(crate) mod defaults;
mod deployment;
mod domain;
mod features;
mod gc;
mod instances;
mod keys;
mod network;
mod planner;
mod sandbox;

pub use autoscaler::{AutoscalerConfig, HPA, KPA, TARGET_MIN, WINDOW_MAX, WINDOW_MIN};
pub use cluster::ClusterConfig;
pub use defaults::Defaults;
pub use deployment::DeploymentConfig;
pub use domain::DomainConfig;
pub use features::{Features, Flag, SecurePodDefaults};
pub use gc::GcConfig;
pub use instances::instances;
pub use keys::ConfigError;
pub use network::{HttpProtocol, MeshCompatibility, NetworkConfig};
pub use planner::{DEFAULTABLE, PlannerConfig};
pub use sandbox::{SandboxConfig, egress};

/// The namespace of Knative's ConfigMaps.
pub const SYSTEM_NAMESPACE: &str = "knative-serving";
