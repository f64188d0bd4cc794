//! One thread's tasks: those that clients wait for, which a drain lets finish, and the others.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::Notify;

/// Spawns and counts.
#[derive(Default)]
pub(crate) struct Tasks {
    clients: Cell<usize>,
    none: Notify,
    closing: Cell<bool>,
}

impl Tasks {
    /// For something that a client waits for.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let counted = Counted::new(self);
        tokio::task::spawn_local(async move {
            task.await;
            drop(counted);
        });
    }

    /// For something that may be cut off when the thread ends.
    pub(crate) fn spawn_background(&self, task: impl Future<Output = ()> + 'static) {
        if !self.closing() {
            tokio::task::spawn_local(task);
        }
    }

    /// How many tasks clients wait for.
    pub(crate) fn clients(&self) -> usize {
        self.clients.get()
    }

    /// Resolves when there is no task that a client waits for.
    pub(crate) async fn finished(&self) {
        while self.clients.get() > 0 {
            self.none.notified().await;
        }
    }

    /// From now on the runtime is being taken down: nothing is spawned any more.
    pub(crate) fn close(&self) {
        self.closing.set(true);
    }

    /// Whether [`Self::close`] has been called.
    pub(crate) fn closing(&self) -> bool {
        self.closing.get()
    }
}

struct Counted(Rc<Tasks>);

impl Counted {
    fn new(tasks: &Rc<Tasks>) -> Self {
        tasks.clients.set(tasks.clients.get() + 1);
        Self(Rc::clone(tasks))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let left = self.0.clients.get() - 1;
        self.0.clients.set(left);
        if left == 0 {
            self.0.none.notify_one();
        }
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy)]
pub(crate) struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
