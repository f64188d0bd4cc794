//! `knarr get`, `logs` and `explain`: questions to a running Knarr over its control socket.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use control::client;
use control::status::{Ready, Status};
use serde::de::DeserializeOwned;

use crate::args::{DataDir, Explain, Get, Logs, Output, Plan, What};
use crate::out;
use crate::table::table;

/// Prints services, revisions and routes.
pub(crate) async fn get(args: Get) -> anyhow::Result<()> {
    let mut status: Status = answer(&directory(args.data)?, "/v1/status").await?;
    if let Some(namespace) = &args.namespace {
        status.services.retain(|it| it.namespace == *namespace);
        status.revisions.retain(|it| it.namespace == *namespace);
        status.routes.retain(|it| it.namespace == *namespace);
    }
    let text = match (args.output, args.what) {
        (Output::Table, what) => tables(&status, what),
        (Output::Json, What::All) => serde_json::to_string_pretty(&status)? + "\n",
        (Output::Json, What::Services) => serde_json::to_string_pretty(&status.services)? + "\n",
        (Output::Json, What::Revisions) => serde_json::to_string_pretty(&status.revisions)? + "\n",
        (Output::Json, What::Routes) => serde_json::to_string_pretty(&status.routes)? + "\n",
    };
    for warning in &status.warnings {
        eprintln!("warning: {warning}");
    }
    out::print(text.as_bytes())
}

/// Prints what sandboxes wrote.
pub(crate) async fn logs(args: Logs) -> anyhow::Result<()> {
    let mut path = format!("/v1/logs?target={}&follow={}", encoded(&args.target), args.follow);
    if let Some(lines) = args.tail {
        path += &format!("&tail={lines}");
    }
    if let Some(since) = args.since {
        path += &format!("&since_ms={}", since.as_millis());
    }
    if args.timestamps {
        path += "&timestamps=true";
    }
    stream(args.data, &path).await
}

/// Prints why a revision runs as it does.
pub(crate) async fn explain(args: Explain) -> anyhow::Result<()> {
    let format = if args.output == Output::Json { "json" } else { "text" };
    let path = format!(
        "/v1/explain?revision={}&since_ms={}&format={format}",
        encoded(&args.revision),
        args.since.as_millis()
    );
    stream(args.data, &path).await
}

/// Prints where a revision stands while nobody asks, and why.
pub(crate) async fn plan(args: Plan) -> anyhow::Result<()> {
    let format = if args.output == Output::Json { "json" } else { "text" };
    let path = format!("/v1/plan?revision={}&format={format}", encoded(&args.revision));
    stream(args.data, &path).await
}

/// One whole answer, read as what it should be.
pub(crate) async fn answer<T: DeserializeOwned>(directory: &Path, path: &str) -> anyhow::Result<T> {
    let mut json = Vec::new();
    client::get(directory, path, |piece| {
        json.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    serde_json::from_slice(&json).context("Knarr's answer is not understood; is it another version?")
}

async fn stream(data: DataDir, path: &str) -> anyhow::Result<()> {
    Ok(client::get(&directory(data)?, path, |piece| {
        let mut out = io::stdout().lock();
        out.write_all(piece)?;
        out.flush()
    })
    .await?)
}

pub(crate) fn directory(data: DataDir) -> anyhow::Result<PathBuf> {
    Ok(data.data_dir.map_or_else(control::config::default_data_dir, Ok)?)
}

pub(crate) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn tables(status: &Status, what: What) -> String {
    let mut parts = Vec::new();
    if matches!(what, What::All | What::Services) {
        let rows = status.services.iter().map(|it| {
            let ready = [it.ready.status.clone(), reason(&it.ready)];
            [
                vec![
                    it.namespace.clone(),
                    it.name.clone(),
                    it.url.clone(),
                    it.latest_ready.clone(),
                ],
                ready.to_vec(),
            ]
            .concat()
        });
        parts.push(table(
            &["NAMESPACE", "SERVICE", "URL", "LATEST READY", "READY", "REASON"],
            &rows.collect::<Vec<_>>(),
        ));
    }
    if matches!(what, What::All | What::Revisions) {
        let rows = status.revisions.iter().map(|it| {
            let desired = it
                .desired_replicas
                .map_or("-".to_owned(), |desired| desired.to_string());
            let why = if it.ready.status == "True" {
                reason(&it.active)
            } else {
                reason(&it.ready)
            };
            vec![
                it.namespace.clone(),
                it.name.clone(),
                it.service.clone(),
                it.ready.status.clone(),
                format!("{}/{desired}", it.actual_replicas),
                it.rung.clone(),
                format!("{:.4}", it.price_per_hour),
                it.requests.total.to_string(),
                why,
            ]
        });
        let heads = [
            "NAMESPACE",
            "REVISION",
            "SERVICE",
            "READY",
            "REPLICAS",
            "RUNG",
            "PRICE/H",
            "REQUESTS",
            "REASON",
        ];
        parts.push(table(&heads, &rows.collect::<Vec<_>>()));
    }
    if matches!(what, What::All | What::Routes) {
        let rows = status.routes.iter().map(|it| {
            let share = |share: &control::status::Traffic| {
                let tag = if share.tag.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", share.tag)
                };
                format!("{}% {}{tag}", share.percent, share.revision)
            };
            let traffic: Vec<String> = it.traffic.iter().map(share).collect();
            let ready = [it.ready.status.clone(), reason(&it.ready)];
            [
                vec![
                    it.namespace.clone(),
                    it.name.clone(),
                    it.url.clone(),
                    traffic.join(", "),
                ],
                ready.to_vec(),
            ]
            .concat()
        });
        parts.push(table(
            &["NAMESPACE", "ROUTE", "URL", "TRAFFIC", "READY", "REASON"],
            &rows.collect::<Vec<_>>(),
        ));
    }
    parts.join("\n")
}

fn reason(ready: &Ready) -> String {
    match (ready.reason.as_str(), ready.message.as_str()) {
        ("", _) => String::new(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason} : {message}"),
    }
}
