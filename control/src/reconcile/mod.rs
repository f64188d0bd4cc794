//! Level-triggered reconcilers, as Knative's: each looks at one object and what it depends on, and settles its children
//! and its status. Pure: the store and `now` in, the store changed.
//!
//! ```text
//! Service ─▶ Configuration ─▶ Revision ◀─ statuses from scaling
//!    └─────▶ Route ◀─ Configuration, Revision (readiness) ─▶ hosts
//! ```

mod configuration;
mod revision;
mod route;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use manifests::exchange::{HostRoute, RevisionStatus};
use manifests::ids::{ObjectId, RevisionId};
use manifests::resources::ObjectMeta;
use manifests::units::Timestamp;

use crate::objects::{Kind, Object, Store};
use crate::pulls::Pulls;

pub use self::route::Hosts;

/// What every reconciler may look at beside the store.
pub struct Context<'a> {
    /// How hosts are named.
    pub hosts: Hosts<'a>,
    /// What scaling said last of each revision.
    pub statuses: &'a BTreeMap<RevisionId, RevisionStatus>,
    /// The images of revisions.
    pub pulls: &'a Pulls,
    /// The time.
    pub now: Timestamp,
}

/// The hosts of a Route, lower case, with what each serves.
pub type RouteHosts = Vec<(Arc<str>, Arc<HostRoute>)>;

/// What the reconcilers settled beside the objects themselves: what each Route's hosts serve.
#[derive(Debug, Default)]
pub struct Routing {
    /// By Route.
    pub routes: BTreeMap<ObjectId, RouteHosts>,
    /// Grows with every change of `routes`.
    pub version: u64,
}

/// Reconciles until nothing is left to do.
///
/// Every reconciler writes only what differs, so this ends: a change rises from Revisions to Services once.
pub fn settle(store: &mut Store, routing: &mut Routing, context: &Context<'_>) {
    while let Some(key) = store.next_dirty() {
        match key.kind {
            Kind::Service => service::reconcile(store, &key.id, context),
            Kind::Configuration => configuration::reconcile(store, &key.id, context),
            Kind::Revision => revision::reconcile(store, &key.id, context),
            Kind::Route => route::reconcile(store, routing, &key.id, context),
        }
    }
}

/// A child's metadata: name and namespace, `labels` on top of what the owner passes on, controlled by `owner`.
fn child_meta<T: Object>(owner: &T, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    let owner_meta = owner.metadata();
    ObjectMeta {
        name: name.to_owned(),
        namespace: owner_meta.namespace.clone(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        owner_references: vec![crate::objects::controlled_by(owner)].into(),
        ..ObjectMeta::default()
    }
}

/// Labels and annotations of `serving.knative.dev` (knative: serving.GroupName).
mod labels {
    pub(super) const SERVICE: &str = "serving.knative.dev/service";
    pub(super) const SERVICE_UID: &str = "serving.knative.dev/serviceUID";
    pub(super) const CONFIGURATION: &str = "serving.knative.dev/configuration";
    pub(super) const CONFIGURATION_UID: &str = "serving.knative.dev/configurationUID";
    pub(super) const CONFIGURATION_GENERATION: &str = "serving.knative.dev/configurationGeneration";
    pub(super) const ROUTING_STATE: &str = "serving.knative.dev/routingState";
    pub(super) const ROUTING_STATE_MODIFIED: &str = "serving.knative.dev/routingStateModified";
    pub(super) const ROUTES: &str = "serving.knative.dev/routes";
    pub(super) const ROLLOUT_DURATION: &str = "serving.knative.dev/rollout-duration";
    pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
}

#[cfg(test)]
mod tests;
