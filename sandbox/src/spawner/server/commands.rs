//! Commands in sandboxes: made, looked after, told of.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{COMMAND, CONTROL, Spawner, unwatch};
use crate::spawner::command::{Command, Order};
use crate::spawner::kid::{Kid, Outcome};
use crate::spawner::protocol::{CommandId, Event, Plan, ShellId, Step};
use crate::wire;

/// What Knarr asks for, as it came.
pub(super) struct Request {
    pub plan: Plan,
    pub terminal: Option<(u16, u16)>,
    pub fds: Vec<OwnedFd>,
}

impl Spawner {
    pub(super) fn run(&mut self, id: CommandId, shell: ShellId, request: Request) -> io::Result<()> {
        match self.make(shell, request) {
            Ok(command) => {
                self.watch(command.pidfd.as_fd(), COMMAND | (id.0 * 2))?;
                if let Some(report) = &command.report {
                    self.watch(report.as_fd(), COMMAND | (id.0 * 2 + 1))?;
                }
                let made = Event::CommandMade { command: id };
                let told = wire::send(CONTROL, &made, &[command.pidfd.as_fd()]);
                self.commands.insert(id, command);
                told
            }
            Err(_) if self.kids.get(&shell).is_none_or(Kid::is_ending) => failed(id, Step::Enter, libc::ESRCH),
            Err(error) => failed(id, Step::Clone, error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    }

    fn make(&mut self, shell: ShellId, request: Request) -> io::Result<Command> {
        let sandbox = self.kids.get(&shell).ok_or(Errno::SRCH)?;
        let mut fds = request.fds.into_iter();
        let mut next = || fds.next().ok_or(io::ErrorKind::InvalidInput);
        let streams = match request.terminal {
            None => [next()?, next()?, next()?],
            Some(_) => {
                let socket = next()?;
                [socket.try_clone()?, socket.try_clone()?, socket]
            }
        };
        let filter = self.nursery.filter(&request.plan.filter, request.plan.capabilities);
        let order = Order {
            plan: self.nursery.workshop.plan(request.plan, filter)?,
            streams,
            terminal: request.terminal,
            join: fds.collect(),
        };
        Command::begin(&mut self.nursery, shell, sandbox, &order)
    }

    /// The report pipe has something: a failure, or its closing, which is success.
    pub(super) fn command_reported(&mut self, id: CommandId) -> io::Result<()> {
        let Some(command) = self.commands.get_mut(&id) else {
            return Ok(());
        };
        let outcome = command.outcome();
        if matches!(outcome, Outcome::Pending) {
            return Ok(());
        }
        if let Some(report) = command.report.take() {
            unwatch(&self.epoll, report.as_fd());
        }
        match outcome {
            Outcome::Failed(report) => {
                let step = Step::from_raw(report.step).unwrap_or(Step::Clone);
                failed(id, step, report.errno)
            }
            Outcome::Left | Outcome::Pending | Outcome::Rooted(_) => {
                wire::send(CONTROL, &Event::CommandExecuted { command: id }, &[])
            }
        }
    }

    pub(super) fn command_ended(&mut self, id: CommandId) -> io::Result<()> {
        // What it said last comes before its end.
        self.command_reported(id)?;
        let Some(status) = self.commands.get(&id).and_then(|command| command.reap(false)) else {
            return Ok(());
        };
        if let Some(command) = self.commands.remove(&id) {
            unwatch(&self.epoll, command.pidfd.as_fd());
        }
        wire::send(CONTROL, &Event::CommandExited { command: id, status }, &[])
    }
}

fn failed(command: CommandId, step: Step, errno: i32) -> io::Result<()> {
    wire::send(CONTROL, &Event::CommandFailed { command, step, errno }, &[])
}
