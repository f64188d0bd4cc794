//! The life of a fake sandbox: admitted, ready, ended; each change under one short lock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::{Bytes, Timestamp};
use tokio::sync::watch;
use tokio::time::sleep;

use super::serve::Server;
use super::{Behaviour, FakeDriver, SERIAL, Sandbox, Start, State, What, now};
use crate::driver::{DriverError, Event, Exit, ExitStatus, Phases, SandboxSpec, StartError, Started};
use crate::logs::{Entry, Stream};

impl FakeDriver {
    /// The last step of every sandbox; false when another end was first.
    pub(super) fn end(&self, id: &SandboxId, serial: u64, status: ExitStatus, oom_killed: bool) -> bool {
        let sandbox = {
            let mut state = self.state();
            match state.sandboxes.get(id) {
                Some(sandbox) if sandbox.serial == serial => state.sandboxes.remove(id),
                _ => None,
            }
        };
        let Some(sandbox) = sandbox else { return false };
        let last_output = sandbox.behaviour.output.join("\n");
        let exit = Exit {
            status,
            oom_killed,
            requested: sandbox.stop_asked,
            unhealthy: sandbox.unhealthy,
            last_output,
            peak_memory: Some(sandbox.behaviour.memory),
        };
        // Its listener and connections close before anybody hears of the exit.
        drop(sandbox.server);
        if sandbox.ready.is_some() {
            let event = Event::Exited {
                id: id.clone(),
                revision: sandbox.revision,
                exit: exit.clone(),
            };
            // Nobody may be listening.
            let _ = self.shared.events.send(event);
        }
        sandbox.ended.send_replace(Some(exit));
        true
    }

    pub(super) async fn start_one(&self, spec: SandboxSpec) -> Result<Started, StartError> {
        let Admitted {
            guard,
            behaviour,
            plan,
            mut ended,
        } = self.admit(&spec)?;
        let begin = now();
        let outcome = async {
            match plan {
                Start::Ready { after } => sleep(after).await,
                Start::NeverReady => std::future::pending().await,
                Start::Refused(why) => return Err(StartError::Refused(why)),
                Start::Exhausted(why) => return Err(StartError::Exhausted(why)),
                Start::Unhealthy { after, why } => {
                    sleep(after).await;
                    if let Some(sandbox) = self.state().sandboxes.get_mut(&spec.id) {
                        sandbox.unhealthy = Some(why.into());
                    }
                    self.end(&spec.id, guard.serial, ExitStatus::Signal(9), false);
                    std::future::pending().await
                }
                Start::Exits { after, status } => {
                    sleep(after).await;
                    self.end(&spec.id, guard.serial, status, false);
                    std::future::pending().await
                }
            }
            Server::open(&behaviour.serve, &spec.id)
                .await
                .map_err(|e| io_error("fake listener", e))
        };
        let server = tokio::select! {
            biased;
            exit = wait_for_end(&mut ended) => return Err(StartError::Exited(exit)),
            server = outcome => server?,
            () = sleep(spec.deadline) => {
                let last = "connection refused".to_owned();
                return Err(StartError::NotReady { after: spec.deadline, last });
            }
        };
        self.write_logs(&spec.id, &behaviour.output)
            .map_err(|e| io_error("fake logs", e))?;
        if !self.mark_ready(&spec.id, guard.serial, server) {
            return Err(StartError::Exited(wait_for_end(&mut ended).await));
        }
        let serial = guard.keep();
        if let Some((after, status)) = behaviour.exits_after {
            self.end_later(spec.id.clone(), serial, after, status);
        }
        if let Some(after) = behaviour.starves_after {
            let (driver, id) = (self.clone(), spec.id.clone());
            tokio::spawn(async move {
                sleep(after).await;
                driver.end(&id, serial, ExitStatus::Signal(9), true);
            });
        }
        if let Some((after, lasts)) = behaviour.unready_after {
            let (driver, id) = (self.clone(), spec.id.clone());
            tokio::spawn(async move {
                sleep(after).await;
                if driver.set_readiness(&id, Some("readiness probe failed: as planned")) {
                    sleep(lasts).await;
                    driver.set_readiness(&id, None);
                }
            });
        }
        if let Some(after) = behaviour.unhealthy_after {
            let (driver, id) = (self.clone(), spec.id);
            tokio::spawn(async move {
                sleep(after).await;
                driver.fail_liveness(&id, "liveness probe failed: as planned");
            });
        }
        Ok(Started {
            phases: Phases {
                spawned: Duration::ZERO,
                ready: now() - begin,
            },
            warnings: Vec::new(),
        })
    }

    /// False when it has ended in the last moment.
    fn mark_ready(&self, id: &SandboxId, serial: u64, server: Server) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(id).filter(|s| s.serial == serial) else {
            return false;
        };
        (sandbox.ready, sandbox.server) = (Some(now()), Some(server));
        true
    }

    /// Takes the name, or says why not.
    fn admit(&self, spec: &SandboxSpec) -> Result<Admitted, DriverError> {
        let mut state = self.state();
        let state = &mut *state;
        self.record(
            state,
            &spec.id,
            What::Start {
                revision: spec.revision.clone(),
                limits: spec.limits,
            },
        );
        if state.shutting_down {
            return Err(DriverError::ShuttingDown);
        }
        if state.sandboxes.contains_key(&spec.id) {
            return Err(DriverError::Exists(spec.id.clone()));
        }
        let behaviour = state.by_revision.get(&spec.revision).unwrap_or(&state.default).clone();
        let count = state.starts.entry(spec.revision.clone()).or_default();
        let plan = behaviour.starts.nth(*count);
        *count += 1;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let (ended, receiver) = watch::channel(None);
        let sandbox = Sandbox {
            serial,
            revision: spec.revision.clone(),
            containers: spec.workload.running().map(|it| Arc::clone(&it.name)).collect(),
            behaviour: behaviour.clone(),
            limits: spec.limits,
            ready: None,
            stop_asked: false,
            stop_grace: spec.workload.stop_grace,
            unready: None,
            unhealthy: None,
            frozen: None,
            stood_still: Duration::ZERO,
            turn: 0,
            ended,
            server: None,
        };
        state.sandboxes.insert(spec.id.clone(), sandbox);
        let guard = Guard {
            driver: self.clone(),
            id: spec.id.clone(),
            serial,
            kept: false,
        };
        Ok(Admitted {
            guard,
            behaviour,
            plan,
            ended: receiver,
        })
    }

    pub(super) async fn freeze_one(&self, id: &SandboxId) -> Result<Bytes, DriverError> {
        let (after, turn) = self.turn(id, What::Freeze)?;
        let Some(after) = after.freezes_after else {
            return Err(DriverError::CannotFreeze("it does not stand still".to_owned()));
        };
        sleep(after).await;
        let mut state = self.state();
        let cannot = state.cannot_freeze;
        let sandbox = state.running(id)?;
        if sandbox.turn != turn || cannot {
            return Err(DriverError::CannotFreeze("it was thawed meanwhile".to_owned()));
        }
        sandbox.set_frozen(true);
        Ok(sandbox.behaviour.memory)
    }

    pub(super) async fn thaw_one(&self, id: &SandboxId) -> Result<(), DriverError> {
        let (after, _) = self.turn(id, What::Thaw)?;
        sleep(after.thaws_after).await;
        self.state().running(id)?.set_frozen(false);
        Ok(())
    }

    fn turn(&self, id: &SandboxId, what: What) -> Result<(Behaviour, u64), DriverError> {
        let mut state = self.state();
        let state = &mut *state;
        let thaws = what == What::Thaw;
        self.record(state, id, what);
        let sandbox = state.running(id)?;
        // A freeze that is frozen already, or on its way, is the same turn.
        if thaws {
            sandbox.turn += 1;
        }
        Ok((sandbox.behaviour.clone(), sandbox.turn))
    }

    pub(super) fn end_later(&self, id: SandboxId, serial: u64, after: Duration, status: ExitStatus) {
        let driver = self.clone();
        tokio::spawn(async move {
            sleep(after).await;
            driver.end(&id, serial, status, false);
        });
    }

    /// Begins a stop, which goes on whether somebody waits or not; `None` when there is nothing to stop.
    pub(super) fn begin_stop(&self, id: &SandboxId, grace: Duration) -> Option<watch::Receiver<Option<Exit>>> {
        let mut state = self.state();
        let state = &mut *state;
        self.record(state, id, What::Stop { grace });
        let sandbox = state.sandboxes.get_mut(id)?;
        sandbox.stop_asked = true;
        sandbox.set_frozen(false);
        let (after, status) = sandbox.behaviour.end_within(grace);
        self.end_later(id.clone(), sandbox.serial, after, status);
        Some(sandbox.ended.subscribe())
    }

    pub(super) async fn stop_one(&self, id: &SandboxId, grace: Duration) -> Option<Exit> {
        let mut ended = self.begin_stop(id, grace)?;
        Some(wait_for_end(&mut ended).await)
    }

    fn write_logs(&self, id: &SandboxId, output: &[String]) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        let time = Timestamp::EPOCH.plus(now() - self.shared.born);
        output
            .iter()
            .for_each(|line| Entry::format(&mut text, time, Stream::Stdout, false, line.as_bytes()));
        std::fs::create_dir_all(&self.shared.logs)?;
        std::fs::write(self.log_file(id), text)
    }
}

impl State {
    /// One that is ready and was not asked to stop.
    fn running(&mut self, id: &SandboxId) -> Result<&mut Sandbox, DriverError> {
        let found = self
            .sandboxes
            .get_mut(id)
            .filter(|s| s.ready.is_some() && !s.stop_asked);
        found.ok_or_else(|| DriverError::NotFound(id.clone()))
    }
}

impl Sandbox {
    fn set_frozen(&mut self, frozen: bool) {
        match (self.frozen, frozen) {
            (None, true) => self.frozen = Some(now()),
            (Some(since), false) => {
                self.stood_still += now() - since;
                self.frozen = None;
            }
            _ => return,
        }
        if let Some(server) = &self.server {
            server.freeze(frozen);
        }
    }
}

/// A start that has its name.
struct Admitted {
    guard: Guard,
    behaviour: Behaviour,
    plan: Start,
    ended: watch::Receiver<Option<Exit>>,
}

/// Undoes a start whose future is dropped, or that fails.
struct Guard {
    driver: FakeDriver,
    id: SandboxId,
    serial: u64,
    kept: bool,
}

impl Guard {
    fn keep(mut self) -> u64 {
        self.kept = true;
        self.serial
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.kept {
            self.driver.end(&self.id, self.serial, ExitStatus::Signal(9), false);
        }
    }
}

pub(super) async fn wait_for_end(ended: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match ended.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
        Ok(Some(exit)) => exit,
        // The sender says how before it goes; a sandbox is never just dropped.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn io_error(context: &str, source: io::Error) -> StartError {
    DriverError::Io {
        context: context.to_owned(),
        source,
    }
    .into()
}
