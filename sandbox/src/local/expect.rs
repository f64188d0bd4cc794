//! Shells for services that never ran: made when their images are there, off everybody's path.

use std::sync::Arc;

use super::app::{App, Role};
use super::start::{account, kept};
use super::state::Inner;
use crate::driver::SandboxSpec;

/// What became of an expectation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// It will have a shell, as soon as nothing else is to be made.
    Yes,
    /// Not now: its image is not in the store, or a start would fail. Its first start says why.
    NotYet,
    /// The pool remembers as many services as it may.
    Full,
}

/// Has a shell made for the first start of `spec`'s revision.
pub(super) async fn expect(inner: &Arc<Inner>, spec: &SandboxSpec) -> Expected {
    let bounds = inner.pool_bounds();
    if !inner.lock().pool.has_room(bounds) {
        return Expected::Full;
    }
    if !matches!(spec.workload.serving.image, manifests::workload::Image::Host(_))
        && inner.images.ready(&spec.workload.serving.image).is_none()
    {
        return Expected::NotYet;
    }
    let Ok(app) = App::find(inner, spec, Role::Serving).await else {
        return Expected::NotYet;
    };
    // What the image says about its users is looked up now, and not by the first start.
    let Ok(account) = account(inner, spec, &app).await else {
        return Expected::NotYet;
    };
    let (key, lease) = kept(&app, app.users(inner, &account));
    inner.lock().pool.expect((&key, &spec.revision), lease, bounds);
    inner.refill.notify_one();
    Expected::Yes
}
