//! `config-instances`: what instances there are and what they cost. Knarr's own; Knative has no such map.
//!
//! | key | what |
//! |---|---|
//! | `catalogue` | a shipped one, whose specs and prices hold; `local` when there are no `specs` |
//! | `specs` | a list of specs; over `catalogue`, one of a known name replaces it |
//! | `default` | the spec of revisions that say nothing of CPU and memory |
//! | `frozen` | the price of a GiB that a frozen sandbox keeps, or `none` |
//! | `currency`, `source`, `date` | for people |

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ConfigError;
use super::keys::Keys;
use crate::instances::read::{frozen_price, hint_at, specs};
use crate::instances::{InstanceSpec, Instances, SHIPPED};

/// Reads the map's `data`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn instances(data: &BTreeMap<String, String>) -> Result<Instances, Vec<ConfigError>> {
    let mut keys = Keys::new(data);
    let text = keys.text("specs", "");
    // Own specs stand alone, unless they say what they are added to.
    let fallback = if text.is_some() {
        None
    } else {
        Some(Instances::default())
    };
    let base = keys.value("catalogue", "", fallback, |name| {
        match Instances::shipped(name.trim()) {
            Some(base) => Ok(Some(base)),
            None => Err(hint_at(name, SHIPPED.into_iter())),
        }
    });
    let mut problems = Vec::new();
    let own = text.map(|text| specs(text, &mut problems)).unwrap_or_default();
    if text.is_some() && own.is_empty() && problems.is_empty() {
        keys.error("specs", "is empty", "write at least one spec, or remove the key");
    }
    let is_right = problems.is_empty();
    for problem in problems {
        let key = format!(
            "specs{}{}",
            if problem.path.starts_with('[') { "" } else { "." },
            problem.path
        );
        keys.error_at(key.trim_end_matches('.'), problem);
    }
    let of_base =
        |field: fn(&Instances) -> &Arc<str>| base.as_ref().map(|base| Arc::clone(field(base))).unwrap_or_default();
    let frozen = base.as_ref().and_then(|base| base.frozen);
    let frozen = keys.value("frozen", "", frozen, frozen_price);
    let word = |keys: &mut Keys<'_>, key: &'static str, inherited: Arc<str>| -> Arc<str> {
        keys.text(key, "").map_or(inherited, |text| text.trim().into())
    };
    let currency = of_base(|base| &base.currency);
    let said: Arc<str> = word(&mut keys, "currency", Arc::clone(&currency));
    if !currency.is_empty() && said != currency {
        let hint = "leave it out, or leave out data.catalogue and write all specs";
        keys.error("currency", format!("{said} over a catalogue in {currency}"), hint);
    }
    let inherited = if own.is_empty() {
        (of_base(|base| &base.source), of_base(|base| &base.date))
    } else {
        Default::default()
    };
    let source = word(&mut keys, "source", inherited.0);
    let date = word(&mut keys, "date", inherited.1);
    let name = base
        .as_ref()
        .map_or_else(|| "own".into(), |base| Arc::clone(&base.name));
    let inherited = of_base(|base| &base.default);
    let specs = merged(base, own);
    let default = keys.text("default", "").map(|text| Arc::from(text.trim()));
    if let Some(default) = &default
        && !specs.iter().any(|spec| spec.name == *default)
    {
        let hint = hint_at(default, specs.iter().map(|spec| &*spec.name));
        keys.error("default", format!("there is no spec {default}"), hint);
    }
    let first = specs.first().map(|spec| Arc::clone(&spec.name)).unwrap_or_default();
    let default = default.unwrap_or(if inherited.is_empty() { first } else { inherited });
    if is_right {
        check_together(&specs, &mut keys);
    }
    keys.finish(Instances {
        name,
        currency: said,
        source,
        date,
        specs: specs.into(),
        default,
        frozen,
    })
}

/// Own specs replace those of their name, and follow otherwise.
fn merged(base: Option<Instances>, own: Vec<InstanceSpec>) -> Vec<InstanceSpec> {
    let mut specs = base.map(|base| base.specs.to_vec()).unwrap_or_default();
    for spec in own {
        match specs.iter_mut().find(|known| known.name == spec.name) {
            Some(known) => *known = spec,
            None => specs.push(spec),
        }
    }
    specs
}

/// What a running sandbox is changed to and back must be worth it.
fn check_together(specs: &[InstanceSpec], keys: &mut Keys<'_>) {
    let mut own = specs.iter().filter(|spec| spec.cpu.is_none());
    let full = own.next();
    if let (Some(full), Some(second)) = (full, own.next()) {
        let message = format!(
            "{} and {} both have the revision's own CPU limit",
            full.name, second.name
        );
        keys.error("specs", message, "write cpu in all but one");
    }
    let Some(full) = full else { return };
    let smaller = specs.iter().filter(|spec| spec.in_place && spec.cpu.is_some());
    for spec in smaller.filter(|spec| spec.price >= full.price || spec.memory_price > full.memory_price) {
        let message = format!("{} costs as much as {}, which it stands in for", spec.name, full.name);
        let hint = "write a lower price and no higher memory-price, or leave it out";
        keys.error("specs", message, hint);
    }
}
