//! Where a route's traffic goes (Knative: `Validate` of TrafficTarget, validateTrafficList).

use std::collections::HashMap;

use super::field_error::{
    FieldErrors, disallowed, generic, invalid, invalid_key, missing_one_of, multiple_one_of, not_a, out_of_bounds,
};
use super::go::quote;
use super::syntax::{dns1035_label, qualified_name};
use crate::resources::TrafficTarget;

/// Checks the targets of a Route, or of a Service, whose targets need not name its own Configuration.
pub(super) fn validate(traffic: &[TrafficTarget], of_service: bool) -> FieldErrors {
    let mut errors = FieldErrors::none();
    let mut tags: HashMap<&str, usize> = HashMap::new();
    let mut sum: i64 = 0;
    for (index, target) in traffic.iter().enumerate() {
        errors.add(validate_target(target, of_service).via_index(index));
        sum = sum.wrapping_add(target.percent.unwrap_or_default());
        if target.tag.is_empty() {
            continue;
        }
        let reasons = dns1035_label(&target.tag);
        if !reasons.is_empty() {
            // Knative counts the field, not the list.
            errors.add(invalid(not_a("DNS 1035 label", &reasons), &format!("tag[{index}]")));
        }
        if let Some(first) = tags.get(target.tag.as_str()) {
            let paths = [format!("[{index}].tag"), format!("[{first}].tag")];
            errors.add(generic(
                format!("Multiple definitions for {}", quote(&target.tag)),
                paths,
            ));
        } else {
            tags.insert(&target.tag, index);
        }
    }
    if sum != 100 {
        errors.add(generic(format!("Traffic targets sum to {sum}, want 100"), [""]));
    }
    errors
}

fn validate_target(target: &TrafficTarget, of_service: bool) -> FieldErrors {
    let mut errors = latest_revision(target).also(names(target, of_service));
    if let Some(percent) = target.percent
        && !(0..=100).contains(&percent)
    {
        errors.add(out_of_bounds(percent, 0, 100, "percent"));
    }
    if target.url.as_ref().is_some_and(|url| !url.is_empty()) {
        errors.add(disallowed(["url"]));
    }
    errors
}

/// A target either follows the latest revision or names one.
fn latest_revision(target: &TrafficTarget) -> FieldErrors {
    let names_revision = !target.revision_name.is_empty();
    match target.latest_revision {
        Some(latest) if latest == names_revision => {
            let name = quote(&target.revision_name);
            generic(
                format!("may not set revisionName {name} when latestRevision is {latest}"),
                ["latestRevision"],
            )
        }
        _ => FieldErrors::none(),
    }
}

fn names(target: &TrafficTarget, of_service: bool) -> FieldErrors {
    let (revision, configuration) = (&target.revision_name, &target.configuration_name);
    let qualified = |name: &str, field: &str| {
        let reasons = qualified_name(name);
        if reasons.is_empty() {
            FieldErrors::none()
        } else {
            invalid_key(name, field, &reasons)
        }
    };
    match (revision.is_empty(), configuration.is_empty()) {
        (_, false) if of_service => disallowed(["configurationName"]),
        (false, false) => multiple_one_of(&["revisionName", "configurationName"]),
        (false, true) => qualified(revision, "revisionName"),
        (true, false) => qualified(configuration, "configurationName"),
        (true, true) if of_service => FieldErrors::none(),
        (true, true) => missing_one_of(&["revisionName", "configurationName"]),
    }
}
