//! Knative's own judgement of a resource: the defaults it fills in and the errors it gives, texts included.
//!
//! [`set_defaults`] then [`validate`] do what Knative's two admission webhooks do, on the same rules: fields that Knative
//! forbids, ranges, names, references between fields, and what may change on update. What Knarr supports of what Knative
//! accepts is another question, asked elsewhere. One deliberate difference: `image:` may name what is not in a registry
//! ([`IMAGE_SCHEMES`]).
//!
//! ```text
//! service, configuration, route, revision, domain_mapping
//!    └─ metadata, template ─▶ annotations, pod ─▶ container ─▶ env, image, probe, port, security, volume_mount
//!    └─ traffic                                └─▶ volume
//! ```

mod annotations;
mod container;
mod defaults;
mod diff;
mod env;
mod field_error;
pub(crate) mod go;
pub(crate) mod image;
mod kinds;
mod metadata;
mod pod;
mod port;
mod probe;
mod security;
pub(crate) mod syntax;
mod template;
mod traffic;
mod volume;
mod volume_mount;

use crate::config::{AutoscalerConfig, Defaults, Features};
use crate::problem::Problem;
use crate::read::Document;
use crate::resources::{ObjectMeta, Resource};

pub use defaults::set_defaults;
pub use field_error::{FieldError, FieldErrors};
pub use image::{SCHEMES as IMAGE_SCHEMES, is_reference as is_image_reference};

/// The ConfigMaps that defaulting and validation depend on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Settings {
    /// `config-features`.
    pub features: Features,
    /// `config-defaults`.
    pub defaults: Defaults,
    /// `config-autoscaler`.
    pub autoscaler: AutoscalerConfig,
}

/// What is being done to a resource, by whom, under which settings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Created or updated.
    pub operation: Operation<'a>,
    /// Who does it; noted as creator and last modifier. `None` notes nobody.
    pub user: Option<&'a str>,
    /// The cluster's settings.
    pub settings: &'a Settings,
}

/// What is being done to a resource.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// It is new.
    Create,
    /// It replaces the stored one, which is of the same kind.
    Update {
        /// The stored one.
        old: &'a Resource,
    },
}

/// What Knative says of a resource, which should have been defaulted before. Errors refuse it; warnings
/// ([`FieldErrors::warnings`]) do not. ConfigMaps and Secrets are never wrong here.
pub fn validate(resource: &Resource, context: &Context<'_>) -> FieldErrors {
    let settings = context.settings;
    match (resource, context.operation) {
        (
            Resource::Service(new),
            Operation::Update {
                old: Resource::Service(old),
            },
        ) => kinds::service(new, Some(old), settings),
        (Resource::Service(new), _) => kinds::service(new, None, settings),
        (
            Resource::Configuration(new),
            Operation::Update {
                old: Resource::Configuration(old),
            },
        ) => kinds::configuration(new, Some(old), settings),
        (Resource::Configuration(new), _) => kinds::configuration(new, None, settings),
        (
            Resource::Revision(new),
            Operation::Update {
                old: Resource::Revision(old),
            },
        ) => kinds::revision(new, Some(old), settings),
        (Resource::Revision(new), _) => kinds::revision(new, None, settings),
        (
            Resource::Route(new),
            Operation::Update {
                old: Resource::Route(old),
            },
        ) => kinds::route(new, Some(old)),
        (Resource::Route(new), _) => kinds::route(new, None),
        (
            Resource::DomainMapping(new),
            Operation::Update {
                old: Resource::DomainMapping(old),
            },
        ) => kinds::domain_mapping(new, Some(old)),
        (Resource::DomainMapping(new), _) => kinds::domain_mapping(new, None),
        (Resource::ConfigMap(_) | Resource::Secret(_) | Resource::PersistentVolumeClaim(_), _) => FieldErrors::none(),
    }
}

/// The errors as problems of the document they came from, one for each field, at its line. Fields that the reader left out
/// as wrong are not complained about again.
pub fn problems(errors: &FieldErrors, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    for error in errors.merged() {
        let paths = if error.paths.is_empty() {
            vec![String::new()]
        } else {
            error.paths
        };
        for path in paths
            .iter()
            .filter(|path| path.is_empty() || !document.is_damaged(path))
        {
            problems.push(
                document
                    .problem(path, error.message.as_str())
                    .hint(error.details.as_str()),
            );
        }
    }
    problems
}

/// The fields in `set` that are not in `allowed`, as an error (Knative: CheckDisallowedFields).
fn check_disallowed(set: &[&'static str], allowed: &[&str]) -> FieldErrors {
    field_error::disallowed(set.iter().filter(|field| !allowed.contains(field)))
}

/// What a template's checks need to know of the object around it.
#[derive(Clone, Copy, Debug)]
struct Parent<'a> {
    meta: &'a ObjectMeta,
    settings: &'a Settings,
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
