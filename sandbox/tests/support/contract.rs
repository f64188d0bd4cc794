//! The local driver as a fixture of the conformance suite.

use std::fs;
use std::time::Duration;

use manifests::workload::{Check, Container, Image, Mount, Probe, Probes, Volume, VolumeSource, Workload};
use sandbox::conformance::{App, Command, Fixture};
use sandbox::{LocalConfig, LocalDriver};

use super::{kill, workload};

/// Where the app comes from.
#[derive(Clone)]
pub enum Source {
    /// A program of this host, with its path; and whether it may have volumes and other containers.
    Host(String, bool),
    /// An image that [`super::image::oci`] has made, for this runtime.
    Image(Image, Option<&'static str>),
}

/// A new driver for each check; `limits` says whether this host enforces any.
pub fn fixture(config: &LocalConfig, source: Source, limits: bool) -> impl Fn() -> Fixture {
    let config = config.clone();
    // An argument of all apps of this fixture and of no others, which the app ignores.
    let tag = format!("of:{}", config.data_dir.display());
    let signals = matches!(source, Source::Host(..) | Source::Image(_, None));
    let sandboxes = config.data_dir.join("sandboxes");
    move || {
        let (source, mark, victims, tag) = (source.clone(), tag.clone(), tag.clone(), tag.clone());
        let sandboxes = sandboxes.clone();
        Fixture {
            driver: LocalDriver::new(config.clone()).unwrap(),
            workload: Box::new(move |app| {
                let mut workload = source.workload_of(app, limits)?;
                workload.serving.args.push(mark.clone().into());
                Some(workload)
            }),
            command: Box::new(|command| command_of(command).map(str::to_owned).to_vec()),
            // It may just have been stopped, and then there is none.
            kill: Box::new(move |id| {
                let victims = processes_with(&[id.as_str(), &victims]);
                victims.into_iter().for_each(|(pid, _)| kill(pid));
            }),
            leftovers: Box::new(move || {
                let volumes = fs::read_dir(&sandboxes).into_iter().flatten().flatten();
                let volumes = volumes.map(|entry| entry.path().display().to_string());
                processes_with(&[&tag])
                    .into_iter()
                    .map(|(_, line)| line)
                    .chain(volumes)
                    .collect()
            }),
            event_capacity: None,
            limits,
            signals,
        }
    }
}

fn command_of(command: Command) -> [&'static str; 3] {
    match command {
        Command::Copy => ["sh", "-c", "cat; echo done >&2; exit 3"],
        Command::Forever => ["/bin/sh", "-c", "echo here $HOSTNAME; while :; do sleep 1; done"],
        Command::Missing => ["no-such-program", "", ""],
        Command::Read => ["sh", "-c", "cat /shared/said"],
        Command::Size => ["sh", "-c", "stty size"],
    }
}

impl Source {
    fn app(&self, args: &[&str]) -> Workload {
        match self {
            Self::Host(path, _) => workload(path, args),
            Self::Image(image, runtime) => {
                let mut workload = workload("/", args);
                workload.serving.image = image.clone();
                workload.serving.command = vec![super::image::TESTAPP.into()];
                workload.runtime = runtime.map(Into::into);
                workload
            }
        }
    }

    /// As a command in its container.
    fn path(&self) -> &str {
        match self {
            Self::Host(path, _) => path,
            Self::Image(..) => super::image::TESTAPP,
        }
    }

    /// A container that runs a script.
    fn shell(&self, name: &str, script: &str) -> Container {
        let mut container = match self {
            Self::Host(..) => Container::new(name, Image::Host("/bin/sh".into())),
            Self::Image(image, _) => {
                let mut container = Container::new(name, image.clone());
                container.command = vec!["sh".into()];
                container
            }
        };
        container.args = vec!["-c".into(), script.into()];
        container.mounts.push(shared());
        container
    }

    fn workload_of(&self, app: App, limits: bool) -> Option<Workload> {
        let is_image = matches!(self, Self::Image(..));
        let has_roots = !matches!(self, Self::Host(_, false));
        Some(match app {
            App::Quick => self.app(&["serve"]),
            App::Slow => self.app(&["serve", "--after", "2000"]),
            App::Never => self.app(&["never"]),
            App::Crasher => self.app(&["crash"]),
            App::Quits => self.app(&["quit"]),
            App::Broken => self.app(&["break"]),
            App::Stubborn => self.app(&["serve", "--stubborn"]),
            App::Chatty => self.app(&["serve", "--say", "100"]),
            App::Mayfly => self.app(&["serve", "--for", "300", "7"]),
            App::Moody => self.probed(&["serve", "--sick", "300", "700"], |probes, sick| {
                probes.readiness = Some(sick)
            }),
            // Asked once they listen, however long a runtime takes until then.
            App::Hung => self.probed(&["serve", "--sick", "300", "100000"], |probes, sick| {
                probes.startup = Some(Probe::aggressive(Check::Tcp { port: PORT }));
                probes.liveness = Some(sick);
            }),
            App::Watched => self.probed(&["serve"], |probes, sick| {
                let timeout = Duration::from_millis(500);
                probes.startup = Some(Probe::aggressive(Check::Tcp { port: PORT }));
                probes.liveness = Some(Probe { timeout, ..sick });
            }),
            App::Sleeper => self.probed(&["serve", "--sick", "0", "100000"], |probes, sick| {
                probes.startup = Some(sick)
            }),
            App::Asked => {
                let mut workload = self.app(&["serve", "--sick", "0", "300"]);
                let command = [self.path(), "ask", "/sick"].map(str::to_owned).to_vec();
                workload.serving.probes.readiness = Some(Probe::aggressive(Check::Exec { command }));
                workload
            }
            App::Missing => match self {
                Self::Host(..) => workload("/nowhere/app", &[]),
                Self::Image(..) => {
                    let mut workload = self.app(&[]);
                    workload.serving.command = vec!["no-such-program".into()];
                    workload
                }
            },
            App::NoImage => {
                let mut workload = self.app(&["serve"]);
                workload.serving.image = Image::Dir("/nowhere/image".into());
                workload
            }
            App::Hollow if is_image => {
                let mut workload = self.app(&["serve"]);
                workload.serving.command = vec!["/app/gone".into()];
                workload
            }
            App::Stranger if is_image => {
                let mut workload = self.app(&["serve"]);
                workload.serving.security.user = Some(70_000);
                workload
            }
            App::Hungry if limits => self.app(&["serve", "--eat", "300"]),
            App::Pod if has_roots => {
                let mut workload = self.app(&["serve"]);
                workload.serving.mounts.push(shared());
                workload.volumes.push(Volume {
                    name: "shared".into(),
                    source: VolumeSource::Empty {
                        memory: false,
                        size: None,
                    },
                });
                workload.init = vec![self.shell("before", "echo first >> /shared/said")];
                workload.sidecars = vec![self.shell("beside", "echo beside >> /shared/said; exec sleep 1000")];
                workload
            }
            App::Hollow | App::Stranger | App::Hungry | App::Pod => return None,
        })
    }

    /// With a probe that fails while the app is sick.
    fn probed(&self, args: &[&str], set: fn(&mut Probes, Probe)) -> Workload {
        let mut workload = self.app(args);
        let check = Check::Http {
            tls: false,
            port: workload.port,
            path: "/sick".into(),
            headers: Vec::new(),
        };
        let sick = Probe {
            period: Some(Duration::from_millis(50)),
            timeout: Duration::from_secs(1),
            ..Probe::aggressive(check)
        };
        set(&mut workload.serving.probes, sick);
        workload
    }
}

/// Of every workload here.
const PORT: u16 = 8080;

fn shared() -> Mount {
    Mount {
        volume: "shared".into(),
        path: "/shared".into(),
        sub_path: None,
        read_only: false,
    }
}

/// The processes of this host that have each of these as an argument.
fn processes_with(arguments: &[&str]) -> Vec<(i32, String)> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    numbers
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let found = arguments.iter().all(|wanted| line.split('\0').any(|a| a == *wanted));
            found.then(|| (pid, line.replace('\0', " ")))
        })
        .collect()
}
