//! A part of a resource that its copies share until one of them changes it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mirror::{Mirror, Shape};

/// Reads and prints as a `T`, and is one to look at and to change; a clone costs a count.
///
/// A pod's spec is kilobytes, and the manifest, its Service, the Configuration and every Revision of one generation all
/// have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    /// Takes a copy of its own first, where others have it too.
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        // Nothing in a resource differs from itself: numbers come from JSON, which has no NaN.
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: Mirror> Mirror for Shared<T> {
    const SHAPE: Shape = T::SHAPE;

    fn is_empty(&self) -> bool {
        T::is_empty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_of_one_copy_alone() {
        let first = Shared::from(vec![1]);
        let mut second = first.clone();
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!(first, second);
        second.push(2);
        assert_eq!((&**first, &**second), (&[1][..], &[1, 2][..]));
        assert_ne!(first, second);
        assert_eq!(first, Shared::from(vec![1]), "equal without being shared");
    }
}
