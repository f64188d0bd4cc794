//! A `[[target]]` of a scenario.

use std::path::Path;

use http::{HeaderName, HeaderValue, Method};

use super::toml_tree::Field;
use super::{Placed, one_of, read_thresholds};
use crate::data::Data;
use crate::target::{Protocol, Target, Tls};
use crate::template::Template;

const FIELDS: &[&str] = &[
    "name",
    "url",
    "host",
    "method",
    "headers",
    "body",
    "body_file",
    "weight",
    "protocol",
    "insecure",
    "cacert",
    "connections",
    "streams",
    "keep_alive",
    "data",
    "thresholds",
];

pub(super) fn read<'a>(field: Field<'a>, index: usize, directory: &Path) -> Result<(Target, Vec<Placed<'a>>), String> {
    let mut table = field.table(FIELDS, "a table: [[target]]")?;
    let url = table.need("url", "where to send requests, as in \"http://127.0.0.1:8080/\"")?;
    let place = url.place.clone();
    let mut target = Target::from_url(&url.text("a URL in quotes")?).map_err(|error| place.wrong(&error))?;
    if let Some(host) = table.text("host")? {
        host.clone_into(&mut target.name);
        target.host = host;
    }
    if let Some(name) = table.text("name")? {
        target.name = name;
    }
    if let Some(field) = table.take("headers") {
        let headers = field.table(&[], "a table, as in { accept = \"text/html\" }")?;
        for (name, field) in headers.rest() {
            let place = field.place.clone();
            let value = field.text("a text in quotes")?;
            let name = HeaderName::try_from(&name).map_err(|_| place.wrong("is no name of a header"))?;
            let value = HeaderValue::try_from(value).map_err(|_| place.wrong("holds what cannot be sent"))?;
            target.headers.append(name, value);
        }
    }
    let file = |field: Field<'a>| {
        let place = field.place.clone();
        let path = directory.join(field.text("the path of a file")?);
        let read = std::fs::read(&path);
        let text = read.map_err(|error| place.wrong(&format!("cannot read {}: {error}", path.display())))?;
        Ok::<_, String>((place, text))
    };
    match (table.take("body"), table.take("body_file")) {
        (Some(_), Some(field)) => return Err(field.place.wrong("there is a `body` already: give one of the two")),
        (Some(body), None) => target.body = body.text("a text in quotes")?.into(),
        (None, Some(field)) => target.body = file(field)?.1.into(),
        (None, None) => {}
    }
    if !target.body.is_empty() {
        target.method = Method::POST;
    }
    if let Some(field) = table.take("method") {
        let place = field.place.clone();
        let method = field.text("a method, as in \"GET\"")?;
        target.method =
            Method::from_bytes(method.as_bytes()).map_err(|_| place.wrong(&format!("{method:?} is no HTTP method")))?;
    }
    if let Some(weight) = table.take("weight") {
        target.weight = weight.number(0.0, "a number, at least 0")?;
    }
    if let Some(field) = table.take("protocol") {
        let words = [
            ("auto", Protocol::Auto),
            ("h1", Protocol::Http1),
            ("h2", Protocol::Http2),
        ];
        target.protocol = one_of(field, &words)?;
    }
    if let Some(field) = table.take("insecure") {
        let place = field.place.clone();
        let insecure = field.boolean()?;
        tls(&mut target, &place)?.insecure = insecure;
    }
    if let Some(field) = table.take("cacert") {
        let place = field.place.clone();
        let path = directory.join(field.text("the path of a PEM file")?);
        tls(&mut target, &place)?.authorities = Some(path);
    }
    if let Some(field) = table.take("connections") {
        target.connections = field.count(1, "a whole number, at least 1")?;
    }
    if let Some(field) = table.take("streams") {
        target.streams = field.count(1, "a whole number, at least 1")?;
    }
    if let Some(field) = table.take("keep_alive") {
        target.keep_alive = field.boolean()?;
    }
    if let Some(field) = table.take("data") {
        let (place, text) = file(field)?;
        target.data = Some(Data::from_csv(&text).map_err(|error| place.wrong(&error))?);
    }
    Template::new(&target).map_err(|error| table.place.wrong(&error))?;
    let thresholds = read_thresholds(&mut table, None, Some(index))?;
    Ok((target, thresholds))
}

fn tls<'t>(target: &'t mut Target, place: &super::toml_tree::Place<'_>) -> Result<&'t mut Tls, String> {
    let wrong = || place.wrong("is for https, but the url is http");
    target.tls.as_mut().ok_or_else(wrong)
}
