//! The spawner's loop: requests in, children's ends out.

#![allow(unsafe_code)]

mod commands;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::Signal;

use super::command::Command;
use super::kid::{Kid, Nursery, Outcome};
use super::protocol::{
    CommandId, Event, FilterPlan, Isolation, Plan, Request, RootPlan, Setup, ShellId, Step, Users, VERSION,
};
use super::{dialer, setup};
use crate::cgroup::Hierarchy;
use crate::volumes;
use crate::wire;

/// The socket to Knarr is standard input; the dialer's is standard output.
const CONTROL: BorrowedFd<'static> = rustix::stdio::stdin();

/// Epoll data of the two descriptors that belong to no child. A child's are `number * 2` (pidfd) and `+ 1` (report); a
/// command's the same with this bit set.
const COMMAND: u64 = 1 << 62;
const FROM_KNARR: u64 = u64::MAX;
const FROM_DIALER: u64 = u64::MAX - 1;

/// How long leftovers are hunted when Knarr is gone.
const CLEANUP: Duration = Duration::from_secs(10);

/// Runs until Knarr is gone; returns the exit code.
pub(super) fn run() -> i32 {
    setup::calm_down();
    let _ = std::ffi::CString::new(super::NAME).map(|name| rustix::thread::set_name(&name));
    match wire::wait::<Request>(CONTROL) {
        // The descriptors that came along are the lock on the data directory: released when this process ends.
        Ok((Request::Setup(setup), _lock)) => match begin(setup) {
            Ok(mut spawner) => {
                let result = spawner.serve();
                spawner.clean_up();
                i32::from(result.is_err())
            }
            Err(reason) => {
                let _ = wire::send(CONTROL, &Event::Refused { reason }, &[]);
                1
            }
        },
        _ => 1,
    }
}

fn begin(setup: Setup) -> Result<Spawner, String> {
    if setup.version != VERSION {
        return Err(format!("this spawner speaks version {VERSION}, not {}", setup.version));
    }
    let nursery = setup::nursery(&setup)?;
    let abilities = nursery.abilities.clone();
    let broken = |error: io::Error| format!("cannot begin: {error}");
    let mut spawner = Spawner {
        nursery,
        temporary: setup.temporary,
        cgroup_group: setup.cgroup_group,
        kids: HashMap::new(),
        commands: HashMap::new(),
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| broken(e.into()))?,
        dialer: None,
    };
    spawner.watch(CONTROL, FROM_KNARR).map_err(broken)?;
    if abilities.isolation == Isolation::UserNamespace {
        spawner.start_dialer().map_err(broken)?;
    }
    wire::send(CONTROL, &Event::Ready { abilities }, &[]).map_err(broken)?;
    Ok(spawner)
}

/// What kind of shell.
struct Wanted {
    users: Users,
    root: Option<RootPlan>,
    beside: Option<ShellId>,
}

struct Spawner {
    nursery: Nursery,
    /// Directories that must not outlive Knarr.
    temporary: Vec<PathBuf>,
    cgroup_group: Option<String>,
    kids: HashMap<ShellId, Kid>,
    commands: HashMap<CommandId, Command>,
    epoll: OwnedFd,
    dialer: Option<OwnedFd>,
}

impl Spawner {
    /// Until Knarr's end is closed.
    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                match event.data.u64() {
                    FROM_KNARR => match wire::receive(CONTROL) {
                        Ok((request, fds)) => self.handle(request, fds)?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                        Err(error) => return Err(error),
                    },
                    FROM_DIALER => self.start_dialer()?,
                    data if data & COMMAND != 0 => {
                        let command = CommandId((data & !COMMAND) / 2);
                        if data % 2 == 0 {
                            self.command_ended(command)?;
                        } else {
                            self.command_reported(command)?;
                        }
                    }
                    data if data % 2 == 0 => self.ended(ShellId(data / 2))?,
                    data => self.reported(ShellId(data / 2))?,
                }
            }
        }
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        match request {
            Request::Setup(_) => Err(io::ErrorKind::InvalidData.into()),
            Request::Prepare {
                shell,
                users,
                root,
                beside,
            } => {
                let wanted = Wanted {
                    users,
                    root: root.map(|root| *root),
                    beside,
                };
                self.prepare(shell, wanted, &fds)
            }
            Request::Go { shell, plan } => self.go(shell, *plan),
            Request::Kill { shell } => {
                if let Some(kid) = self.kids.get(&shell) {
                    kid.kill();
                }
                Ok(())
            }
            Request::Command {
                command,
                shell,
                plan,
                terminal,
            } => {
                let order = commands::Request {
                    plan: *plan,
                    terminal,
                    fds,
                };
                self.run(command, shell, order)
            }
            Request::Signal { command, signal } => {
                if let (Some(command), Some(signal)) = (self.commands.get(&command), Signal::from_named_raw(signal)) {
                    command.signal(signal);
                }
                Ok(())
            }
        }
    }

    fn prepare(&mut self, shell: ShellId, wanted: Wanted, join: &[OwnedFd]) -> io::Result<()> {
        let beside = wanted
            .beside
            .map(|first| self.kids.get(&first).ok_or(rustix::io::Errno::SRCH));
        let born = match beside.transpose() {
            Ok(beside) => self.nursery.bear(join, wanted.users, wanted.root, beside),
            Err(gone) => Err(gone.into()),
        };
        let kid = match born {
            Ok(kid) => kid,
            Err(error) => {
                let detail = match error.raw_os_error() {
                    Some(libc::EUSERS) => "find uids for one more sandbox: all of the range given to it are taken",
                    Some(_) => Step::Clone.name(),
                    // Ours, with its own words.
                    None => &error.to_string(),
                };
                return failed(shell, Step::Clone, detail, &error, false);
            }
        };
        let mut fds = vec![kid.pidfd.as_fd(), kid.output[0].as_fd(), kid.output[1].as_fd()];
        fds.extend(kid.netns.as_ref().map(AsFd::as_fd));
        self.watch(kid.pidfd.as_fd(), shell.0 * 2)?;
        if let Some(report) = &kid.report {
            self.watch(report.as_fd(), shell.0 * 2 + 1)?;
        }
        wire::send(CONTROL, &Event::Prepared { shell, pid: kid.pid }, &fds)?;
        self.kids.insert(shell, kid);
        Ok(())
    }

    fn go(&mut self, shell: ShellId, plan: Plan) -> io::Result<()> {
        // One that has ended already: its end was told.
        let Some(kid) = self.kids.get_mut(&shell) else {
            return Ok(());
        };
        let unusual = plan.filter != FilterPlan::Default;
        if let Some(identity) = &kid.identity
            && unusual
        {
            identity.used_up.set(true);
        }
        let filter = self.nursery.filter(&plan.filter, plan.capabilities);
        if let Err(error) = self.nursery.workshop.plan(plan, filter).and_then(|plan| kid.go(plan)) {
            kid.kill();
            // Killed before it could read: that is an end, not a failure, and is told as one.
            if error.kind() != io::ErrorKind::BrokenPipe {
                return failed(shell, Step::WaitForPlan, "read the plan", &error, true);
            }
        }
        Ok(())
    }

    /// The report socket has something: its root, a failure, or its closing, which is success.
    fn reported(&mut self, shell: ShellId) -> io::Result<()> {
        let Some(kid) = self.kids.get_mut(&shell) else {
            return Ok(());
        };
        let event = match kid.outcome() {
            Outcome::Pending => return Ok(()),
            Outcome::Rooted(fds) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                wire::send(CONTROL, &Event::Rooted { shell }, &fds)?;
                // What comes next may be there already, and its end is told last.
                return self.reported(shell);
            }
            Outcome::Left => Event::Executed { shell },
            Outcome::Failed(report) => {
                let (step, detail) = setup::explain(report, kid);
                Event::Failed {
                    shell,
                    step,
                    detail,
                    errno: report.errno,
                    had_process: true,
                }
            }
        };
        if let Some(report) = kid.report.take() {
            unwatch(&self.epoll, report.as_fd());
        }
        // A child that failed still has a few instructions to go in our memory; `ended` settles it.
        if matches!(event, Event::Executed { .. }) {
            kid.settle(&mut self.nursery);
        }
        wire::send(CONTROL, &event, &[])
    }

    fn ended(&mut self, shell: ShellId) -> io::Result<()> {
        // What it said last comes before its end.
        self.reported(shell)?;
        let Some(kid) = self.kids.get(&shell) else {
            return Ok(());
        };
        // Without a PID namespace its children are still there.
        kid.kill();
        for command in self.commands.values().filter(|command| command.sandbox == shell) {
            command.signal(Signal::KILL);
        }
        let Some(status) = kid.reap(false) else { return Ok(()) };
        if let Some(mut kid) = self.kids.remove(&shell) {
            unwatch(&self.epoll, kid.pidfd.as_fd());
            kid.settle(&mut self.nursery);
        }
        wire::send(CONTROL, &Event::Exited { shell, status }, &[])
    }

    fn watch(&self, fd: BorrowedFd<'_>, data: u64) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(data),
            epoll::EventFlags::IN,
        )?)
    }

    /// Forks the dialer; again when it has died, on the same socket, for it remembers nothing.
    fn start_dialer(&mut self) -> io::Result<()> {
        if let Some(old) = self.dialer.take() {
            unwatch(&self.epoll, old.as_fd());
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(old.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
        }
        // SAFETY: this process has one thread, so the child may go on as usual.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                let _ = rustix::thread::set_name(c"knarr-dialer");
                let socket = rustix::stdio::stdout();
                // Knarr must see the spawner's end when the spawner dies, not when we do.
                let ended = rustix::io::dup(socket).and_then(|own| {
                    rustix::stdio::dup2_stdin(&own)?;
                    Ok(dialer::serve(own.as_fd()))
                });
                std::process::exit(i32::from(!matches!(ended, Ok(Ok(())))));
            }
            pid => {
                let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
                self.watch(pidfd.as_fd(), FROM_DIALER)?;
                self.dialer = Some(pidfd);
                Ok(())
            }
        }
    }

    /// Knarr is gone: so is everything that ran for it.
    fn clean_up(&mut self) {
        for command in self.commands.values() {
            command.signal(Signal::KILL);
        }
        for kid in self.kids.values() {
            kid.kill();
        }
        let hierarchy = Hierarchy::detect();
        if let Some(group) = &self.cgroup_group {
            hierarchy.thaw_group(group);
        }
        // First: a PID namespace ends only when everybody in it was waited for.
        for command in self.commands.values() {
            command.reap(true);
        }
        for kid in self.kids.values() {
            kid.reap(true);
        }
        for dir in &self.temporary {
            // Nobody is left to tell; the next start on this data directory tries again.
            let _ = volumes::clear(dir);
        }
        if let Some(group) = &self.cgroup_group {
            // Nobody is left to tell; the next start on this data directory tries again.
            let _ = hierarchy.reap(group, CLEANUP);
            hierarchy.remove_group(group);
        }
    }
}

/// Before a descriptor is closed: a child may hold a copy, and epoll would go on reporting it.
fn unwatch(epoll: &OwnedFd, fd: BorrowedFd<'_>) {
    let _ = epoll::delete(epoll, fd);
}

fn failed(shell: ShellId, step: Step, detail: &str, error: &io::Error, had_process: bool) -> io::Result<()> {
    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
    wire::send(
        CONTROL,
        &Event::Failed {
            shell,
            step,
            detail: detail.to_owned(),
            errno,
            had_process,
        },
        &[],
    )
}
