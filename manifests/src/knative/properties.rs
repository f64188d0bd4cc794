//! What must hold of defaulting and validation for any resource, shown on golden inputs with fields cut out and moved.
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The inputs of the golden cases, every 16th: each base manifest is among them many times.
static INPUTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let vectors = include_str!("../../tests/vectors/manifest_defaults_validation.jsonl");
    let input = |line: &str| serde_json::from_str::<Value>(line).map(|mut case| case["input"].take());
    vectors.lines().step_by(16).map(|line| input(line).unwrap()).collect()
});

/// JSON pointers of everything in a value.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let mut child = |step: &str, value: &Value| {
        let pointer = format!("{at}/{}", step.replace('~', "~0").replace('/', "~1"));
        all.push(pointer.clone());
        pointers(value, &pointer, all);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| child(key, value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| child(&index.to_string(), value)),
        _ => {}
    }
}

/// Empties some places and copies the values of others to places of the same type.
fn mutate(value: &mut Value, edits: &[(usize, usize, bool)]) {
    for (from, to, empties) in edits {
        let mut all = Vec::new();
        pointers(value, "", &mut all);
        let (from, to) = (&all[from % all.len()], &all[to % all.len()]);
        let donor = value.pointer(from).cloned().unwrap_or_default();
        let Some(place) = value.pointer_mut(to) else { continue };
        let same_type = std::mem::discriminant(place) == std::mem::discriminant(&donor);
        if *empties {
            *place = Value::Null;
        } else if same_type && !donor.is_object() && !donor.is_array() {
            *place = donor;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn defaulting_twice_changes_nothing_and_nothing_panics(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<bool>()), 0..6),
    ) {
        let mut input = INPUTS[pick.index(INPUTS.len())].clone();
        mutate(&mut input, &edits);
        let Ok(mut resource) = Resource::from_value(input.clone()) else { return Ok(()) };
        let settings = Settings::default();
        let context = Context { operation: Operation::Create, user: Some("u"), settings: &settings };
        set_defaults(&mut resource, &context);
        let once = resource.clone();
        set_defaults(&mut resource, &context);
        prop_assert_eq!(&resource, &once, "not idempotent: {}", input);
        let errors = validate(&resource, &context);
        prop_assert_eq!(errors.is_empty(), errors.to_string().is_empty());

        // Storing it again unchanged notes nobody and finds nothing new about the change itself.
        let update = Context { operation: Operation::Update { old: &once }, user: Some("other"), settings: &settings };
        set_defaults(&mut resource, &update);
        prop_assert_eq!(&resource, &once, "an update without a change changed something");
        let on_update = validate(&resource, &update).errors().to_string();
        prop_assert!(!on_update.contains("(-old +new)") && !on_update.contains("immutable"), "{}", on_update);
    }

    #[test]
    fn every_error_of_a_read_manifest_has_a_line(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<bool>()), 1..4),
    ) {
        let mut input = INPUTS[pick.index(INPUTS.len())].clone();
        mutate(&mut input, &edits);
        let (documents, _) = crate::read::read("f", &serde_json::to_string_pretty(&input).unwrap());
        let settings = Settings::default();
        let context = Context { operation: Operation::Create, user: None, settings: &settings };
        for mut document in documents {
            set_defaults(&mut document.resource, &context);
            let errors = validate(&document.resource, &context);
            for problem in problems(&errors, &document) {
                prop_assert!(problem.line.is_some(), "{}", problem);
            }
        }
    }
}
