//! The API objects as typed mirrors: what users write and clients read, field by field, printed exactly as Go prints them.
//!
//! These types hold what a manifest says, not whether it is right: [`crate::read`] finds unknown fields and wrong types,
//! [`crate::knative`] defaults and validates. Fields that Knative knows but refuses are here too, so that its refusal can be
//! worded as Knative's.

mod config;
mod container;
mod env;
mod int_or_string;
mod meta;
pub(crate) mod mirror;
mod pod;
mod probe;
mod quantity;
mod security;
mod serving;
mod shared;
mod status;
mod volume;

use serde::Serialize;
use serde_json::Value;

pub use self::config::*;
pub use self::container::*;
pub use self::env::*;
pub use self::int_or_string::IntOrString;
pub use self::meta::*;
pub(crate) use self::mirror::mirror;
pub use self::mirror::{FieldShape, Mirror, ObjectShape, Shape};
pub use self::pod::*;
pub use self::probe::*;
pub use self::quantity::Quantity;
pub use self::security::*;
pub use self::serving::*;
pub use self::shared::Shared;
pub use self::status::*;
pub use self::volume::*;

/// Any object that Knarr reads.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Resource {
    /// `serving.knative.dev/v1` Service.
    Service(Box<Service>),
    /// `serving.knative.dev/v1` Configuration.
    Configuration(Box<Configuration>),
    /// `serving.knative.dev/v1` Revision.
    Revision(Box<Revision>),
    /// `serving.knative.dev/v1` Route.
    Route(Box<Route>),
    /// `serving.knative.dev/v1beta1` DomainMapping.
    DomainMapping(Box<DomainMapping>),
    /// `v1` ConfigMap.
    ConfigMap(Box<ConfigMap>),
    /// `v1` Secret.
    Secret(Box<Secret>),
    /// `v1` PersistentVolumeClaim.
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
}

/// A kind that Knarr reads.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// `serving.knative.dev/v1`, ...
    pub api_version: &'static str,
    /// `Service`, ...
    pub kind: &'static str,
    /// Its fields.
    pub shape: Shape,
    parse: fn(Value) -> serde_json::Result<Resource>,
}

/// The kinds that Knarr reads. A kind may stand here once per API version.
pub const KINDS: &[Kind] = &[
    kind("serving.knative.dev/v1", "Service", Service::SHAPE, |v| {
        parse(v, Resource::Service)
    }),
    kind("serving.knative.dev/v1", "Configuration", Configuration::SHAPE, |v| {
        parse(v, Resource::Configuration)
    }),
    kind("serving.knative.dev/v1", "Revision", Revision::SHAPE, |v| {
        parse(v, Resource::Revision)
    }),
    kind("serving.knative.dev/v1", "Route", Route::SHAPE, |v| {
        parse(v, Resource::Route)
    }),
    kind(
        "serving.knative.dev/v1beta1",
        "DomainMapping",
        DomainMapping::SHAPE,
        |v| parse(v, Resource::DomainMapping),
    ),
    kind("v1", "ConfigMap", ConfigMap::SHAPE, |v| parse(v, Resource::ConfigMap)),
    kind("v1", "Secret", Secret::SHAPE, |v| parse(v, Resource::Secret)),
    kind("v1", "PersistentVolumeClaim", PersistentVolumeClaim::SHAPE, |v| {
        parse(v, Resource::PersistentVolumeClaim)
    }),
];

impl Resource {
    /// From JSON, by its `apiVersion` and `kind`. Unknown fields are ignored and `null` is read as "not given", as the
    /// Kubernetes API server does. The error says which type was expected; [`crate::read`] says it better, with lines.
    pub fn from_value(value: Value) -> Result<Self, String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let known = KINDS
            .iter()
            .find(|known| known.api_version == api_version && known.kind == kind);
        let known = known.ok_or_else(|| format!("{api_version:?} {kind:?} is not a kind that Knarr reads"))?;
        (known.parse)(value).map_err(|error| error.to_string())
    }

    /// As JSON, as Go prints it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(it) => &it.metadata,
            Self::Configuration(it) => &it.metadata,
            Self::Revision(it) => &it.metadata,
            Self::Route(it) => &it.metadata,
            Self::DomainMapping(it) => &it.metadata,
            Self::ConfigMap(it) => &it.metadata,
            Self::Secret(it) => &it.metadata,
            Self::PersistentVolumeClaim(it) => &it.metadata,
        }
    }

    /// Its metadata, to change it.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Service(it) => &mut it.metadata,
            Self::Configuration(it) => &mut it.metadata,
            Self::Revision(it) => &mut it.metadata,
            Self::Route(it) => &mut it.metadata,
            Self::DomainMapping(it) => &mut it.metadata,
            Self::ConfigMap(it) => &mut it.metadata,
            Self::Secret(it) => &mut it.metadata,
            Self::PersistentVolumeClaim(it) => &mut it.metadata,
        }
    }

    /// Its kind, without the group: `Service`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::Configuration(_) => "Configuration",
            Self::Revision(_) => "Revision",
            Self::Route(_) => "Route",
            Self::DomainMapping(_) => "DomainMapping",
            Self::ConfigMap(_) => "ConfigMap",
            Self::Secret(_) => "Secret",
            Self::PersistentVolumeClaim(_) => "PersistentVolumeClaim",
        }
    }
}

const fn kind(
    api_version: &'static str,
    kind: &'static str,
    shape: Shape,
    parse: fn(Value) -> serde_json::Result<Resource>,
) -> Kind {
    Kind {
        api_version,
        kind,
        shape,
        parse,
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value, wrap: fn(Box<T>) -> Resource) -> serde_json::Result<Resource> {
    serde_json::from_value(value).map(|it| wrap(Box::new(it)))
}

#[cfg(test)]
mod tests;
