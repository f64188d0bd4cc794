//! The atomics and the lock under the slot and waiting protocol: std's, or loom's when the protocol is model-checked.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, fence},
};

use std::sync::PoisonError;
pub(crate) use std::sync::atomic::Ordering;

/// Locks, also after a panic of another holder: every critical section here leaves the data whole before it may panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
