//! The reader on texts that nobody would write: it never panics, and what it says is bounded and in place.
use proptest::prelude::*;

use super::*;

const SEED: &str = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: &m\n  name: hello\n  annotations: {a.b/c: \"1\"}\nspec:\n  \
    template:\n    metadata: {<<: *m}\n    spec:\n      containers:\n      - image: >-\n          host:/bin/x\n        env:\n        - {name: A, \
    value: 'b'}\n        ports: [{containerPort: 8080}]\n      containerConcurrency: 1\n---\napiVersion: v1\nkind: ConfigMap\ndata:\n  k: |\n    v\n";

fn check(text: &str) {
    let (documents, problems) = read("f", text);
    let lines = text.split(['\n', '\r']).count() + 1;
    for problem in &problems {
        assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem}");
        assert!(!problem.message.is_empty());
    }
    for document in &documents {
        assert!(document.is_sound() || problems.iter().any(|problem| problem.document == document.origin.index));
        assert!(document.place("spec.template.spec.containers[0].image").is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_yaml_like_text(text in "([a-c{}\\[\\],:&*!|>'\"#%@`<~?0-9-]|: |- |\n|\n  |\n---\n|\t){0,80}") {
        check(&text);
    }

    #[test]
    fn mutated_manifests(edits in prop::collection::vec((0..SEED.len(), 0..8usize, "[ -~\n\t]{0,4}"), 1..6)) {
        let mut text = SEED.to_owned();
        for (at, cut, put) in edits {
            let start = at.min(text.len());
            let end = (start + cut).min(text.len());
            text.replace_range(start..end, &put);
        }
        check(&text);
    }

    #[test]
    fn cut_manifests(start in 0..SEED.len(), end in 0..SEED.len()) {
        check(&SEED[start.min(end)..start.max(end)]);
    }
}
