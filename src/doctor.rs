//! `knarr doctor`: what this host can do, by trying; what is missing, what that costs and how to mend it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::config::{Config, RawConfig};
use manifests::units::Timestamp;
use manifests::workload::Workload;
use sandbox::doctor::{Finding, State};
use sandbox::driver::Driver as _;
use sandbox::{LocalConfig, LocalDriver};

use crate::args::Doctor;
use crate::table::table;
use crate::{out, serve};

/// Prints what was found; the exit code is 1 when sandboxes cannot be isolated at all.
pub(crate) fn doctor(args: Doctor) -> anyhow::Result<ExitCode> {
    let config = Config::from_raw(RawConfig {
        listen: args.listen,
        admin: args.admin,
        data_dir: args.data.data_dir,
        ..RawConfig::default()
    })?;
    let listen = [config.listen.as_slice(), &[config.admin]].concat();
    let mut found = sandbox::doctor::host(&config.data_dir, &listen);
    found.splice(0..0, sandboxes()?);
    let text = if args.json {
        serde_json::to_string_pretty(&found)? + "\n"
    } else {
        as_text(&found)
    };
    out::print(text.as_bytes())?;
    Ok(if sandbox::is_hopeless(&found) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The driver's own word, on a directory that is removed afterwards: a Knarr that runs is not disturbed.
fn sandboxes() -> anyhow::Result<Vec<Finding>> {
    let directory = tempfile::Builder::new().prefix("knarr-doctor-").tempdir()?;
    let config = LocalConfig {
        pool: 0,
        ..LocalConfig::new(directory.path().join("sandboxes"), Arc::new(now))
    };
    let driver = match LocalDriver::new(config) {
        Ok(driver) => driver,
        Err(error) => return Ok(vec![sandbox::refused(&error)]),
    };
    let mut app = Workload::host(own_program()?);
    app.serving.args = vec!["workload".into()];
    Ok(serve::runtime()?.block_on(async {
        let found = driver.examine(app).await;
        driver.shutdown(Duration::ZERO).await;
        found
    }))
}

fn own_program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.canonicalize()?)
}

#[expect(clippy::disallowed_methods, reason = "a shell: it gives the driver its clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn as_text(found: &[Finding]) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|it| vec![it.name.to_owned(), it.state.as_str().to_owned(), it.found.clone()])
        .collect();
    let mut text = table(&["WHAT", "STATE", "FOUND"], &rows);
    for it in found.iter().filter(|it| it.state != State::Ok) {
        text += &format!(
            "\n{} ({})\n  costs: {}\n  fix:   {}\n",
            it.name,
            it.state.as_str(),
            it.costs,
            it.fix
        );
    }
    let count = |state| found.iter().filter(|it| it.state == state).count();
    text + &format!(
        "\n{} ok, {} degraded, {} missing\n",
        count(State::Ok),
        count(State::Degraded),
        count(State::Missing)
    )
}
