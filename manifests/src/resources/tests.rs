//! The mirrors against Knative's own output.
use super::*;

#[test]
fn every_golden_object_survives_a_round_trip() {
    let vectors = include_str!("../../tests/vectors/manifest_defaults_validation.jsonl");
    let mut count = 0;
    for line in vectors.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let printed = Resource::from_value(case["defaulted"].clone()).unwrap().to_value();
        assert_eq!(printed, case["defaulted"], "{}", case["id"]);
        count += 1;
    }
    assert_eq!(count, 1056);
}
