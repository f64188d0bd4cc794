//! Knative's ConfigMaps (`config-*` in namespace `knative-serving`), typed, with Knative's defaults.

mod domain;
mod gc;
mod keys;
mod network;

pub use domain::DomainConfig;
pub use gc::GcConfig;
pub use keys::ConfigError;
pub use network::{HttpProtocol, MeshCompatibility, NetworkConfig};

/// The namespace of Knative's ConfigMaps.
pub const SYSTEM_NAMESPACE: &str = "knative-serving";
