//! Knative's own answers to 1,056 resources: defaulted JSON, errors and warnings, compared to the letter.
use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::resources::Resource;

const VECTORS: &str = include_str!("../../tests/vectors/manifest_defaults_validation.jsonl");

#[test]
fn golden_defaults_errors_and_warnings() {
    let mut warnings: HashMap<String, Value> = HashMap::new();
    let (mut count, mut wrong) = (0, Vec::new());
    for line in VECTORS.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let expected = case
            .get("warnings")
            .unwrap_or_else(|| &warnings[case["base"].as_str().unwrap()])
            .clone();
        warnings.insert(id.to_owned(), expected.clone());
        if let Some(difference) = difference(&case, &expected) {
            wrong.push(format!("{id}: {} {difference}", case["mutation"]));
        }
        count += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(count, 1056);
}

/// What differs between Knative's answer and ours.
fn difference(case: &Value, warnings: &Value) -> Option<String> {
    let data = |key: &str| serde_json::from_value(case.get(key).cloned().unwrap_or_default()).unwrap_or_default();
    let settings = Settings {
        features: Features::from_data(&data("features")).unwrap(),
        defaults: Defaults::from_data(&data("defaults")).unwrap(),
        autoscaler: AutoscalerConfig::from_data(&data("autoscaler")).unwrap(),
    };
    let old = case.get("old").map(|old| Resource::from_value(old.clone()).unwrap());
    let operation = old.as_ref().map_or(Operation::Create, |old| Operation::Update { old });
    let context = Context {
        operation,
        user: case["user"].as_str(),
        settings: &settings,
    };
    let mut resource = Resource::from_value(case["input"].clone()).unwrap();
    set_defaults(&mut resource, &context);
    let defaulted = resource.to_value();
    if defaulted != case["defaulted"] {
        return Some(format!(
            "defaulted\n  ours    {defaulted}\n  knative {}",
            case["defaulted"]
        ));
    }
    let found = validate(&Resource::from_value(defaulted).unwrap(), &context);
    let (ours, theirs) = (found.errors().to_string(), case["error"].as_str().unwrap());
    if comparable(&ours) != comparable(theirs) {
        return Some(format!("errors\n  ours    {ours:?}\n  knative {theirs:?}"));
    }
    let ours: Vec<String> = found.warnings().merged().iter().map(ToString::to_string).collect();
    (serde_json::to_value(&ours).unwrap() != *warnings)
        .then(|| format!("warnings\n  ours    {ours:?}\n  knative {warnings}"))
}

/// Without the lines of Go's own diffs, which end a text where they occur.
fn comparable(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(line);
        if line.contains("(-old +new)") {
            break;
        }
    }
    lines.join("\n")
}
