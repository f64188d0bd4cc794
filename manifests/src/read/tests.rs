//! The reader on small texts: what it gives and every sentence it says.
use serde_json::{Value, json};

use super::*;
use crate::resources::{KINDS, Resource, Shape};

fn problems(text: &str) -> Vec<String> {
    read("f.yaml", text).1.iter().map(Problem::to_string).collect()
}

/// A Service around a container, whose lines begin at 9.
fn service(container: &str) -> String {
    let head = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers:\n";
    head.to_owned() + container
}

#[test]
fn reports_everything_at_once_with_place_path_and_hint() {
    let text = service(
        "      - iamge: x\n        env:\n        - name: A\n          value: 8080\n        - name: B\n          value: yes\n        \
         ports:\n        - containerPort: \"80\"\n        timeoutSeconds: 5\n        image: b\n        image: c\n        \
         resources: {limits: {cpu: lots}}\n        args: -v\n",
    );
    assert_eq!(
        problems(&text),
        [
            "f.yaml:9: spec.template.spec.containers[0].iamge: unknown field `iamge`; did you mean `image`?",
            "f.yaml:12: spec.template.spec.containers[0].env[0].value: must be text, found the number 8080; quote it: \"8080\"",
            "f.yaml:14: spec.template.spec.containers[0].env[1].value: must be text, found the boolean true; quote it: \"yes\"",
            "f.yaml:16: spec.template.spec.containers[0].ports[0].containerPort: must be a whole number, found the text \"80\"; remove the quotes",
            "f.yaml:17: spec.template.spec.containers[0].timeoutSeconds: unknown field `timeoutSeconds`; `timeoutSeconds` belongs in spec.template.spec",
            "f.yaml:19: spec.template.spec.containers[0].image: `image` is given twice, first in line 18; keep one",
            "f.yaml:20: spec.template.spec.containers[0].resources.limits.cpu: must be a quantity such as 250m, 1Gi or 2, found the text \"lots\"",
            "f.yaml:21: spec.template.spec.containers[0].args: must be a list, found the text \"-v\"; write one item per line, each after `- `",
        ]
    );
}

#[test]
fn a_document_needs_a_kind_that_is_known() {
    for (text, said) in [
        (
            "kind: Service",
            "f.yaml:1: apiVersion: missing; write for example `apiVersion: serving.knative.dev/v1`",
        ),
        (
            "apiversion: v1\nkind: Secret",
            "f.yaml:1: apiVersion: missing; is `apiversion` meant to be `apiVersion`?",
        ),
        (
            "apiVersion: serving.knative.dev/v1\nkind: Servce",
            "f.yaml:2: kind: unknown kind \"Servce\"; did you mean `Service`?",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment",
            "f.yaml:2: kind: unknown kind \"Deployment\"; Knarr reads Service, Configuration, Revision, Route, DomainMapping, ConfigMap, Secret, PersistentVolumeClaim",
        ),
        (
            "apiVersion: v1\nkind: Service",
            "f.yaml:1: apiVersion: \"v1\" has no Service that Knarr reads; Service is read from `apiVersion: serving.knative.dev/v1`",
        ),
        (
            "apiVersion: 1\nkind: ConfigMap",
            "f.yaml:1: apiVersion: must be text; write for example `apiVersion: serving.knative.dev/v1`",
        ),
        (
            "- a",
            "f.yaml:1: a document must be an object; it starts with `apiVersion:` and `kind:`",
        ),
        (
            "hello",
            "f.yaml:1: a document must be an object; it starts with `apiVersion:` and `kind:`",
        ),
    ] {
        assert_eq!(problems(text), [said], "{text}");
    }
    assert_eq!(problems("a: 1").len(), 2, "both are missing");
}

#[test]
fn a_syntax_error_costs_its_own_document_only() {
    let text = "# head\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {k: 1}\n";
    let (documents, problems) = read("f", text);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].message.starts_with("not valid YAML: "), "{}", problems[0]);
    assert_eq!(
        (problems[0].document, problems[1].document, problems[1].line),
        (0, 1, Some(10))
    );
    assert_eq!(documents.len(), 1);
    assert_eq!(
        (
            documents[0].origin.index,
            documents[0].resource.metadata().name.as_str()
        ),
        (1, "b")
    );
    assert!(
        documents[0].is_damaged("data") && documents[0].is_damaged("data.k") && !documents[0].is_damaged("metadata")
    );
}

#[test]
fn empty_documents_are_skipped() {
    for text in [
        "",
        "\n",
        "---\n",
        "# nothing\n",
        "---\n---\n# c\n---\n...\n",
        "~",
        "\u{feff}---\n",
    ] {
        assert!(read("f", text).0.is_empty() && problems(text).is_empty(), "{text:?}");
    }
}

#[test]
fn json_directives_lists_and_document_ends_are_read() {
    let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1\n2"}}"#;
    for text in [
        json.to_owned(),
        format!("%YAML 1.2\n---\n{json}"),
        format!("{json}\n...\n"),
        format!("apiVersion: v1\nkind: List\nitems:\n- {json}\n"),
    ] {
        let (documents, problems) = read("f", &text);
        assert!(problems.is_empty() && documents.len() == 1, "{text}: {problems:?}");
        assert_eq!(documents[0].value["data"]["k"], "1\n2");
    }
    let (documents, _) = read("f", &format!("---\n{json}\n---\n---\n{json}\n...\n---\n{json}"));
    assert_eq!(
        documents
            .iter()
            .map(|document| document.origin.index)
            .collect::<Vec<_>>(),
        [0, 2, 3]
    );
}

#[test]
fn anchors_aliases_and_merges_work() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: &l {a: \"1\", b: \"2\"}\n  annotations:\n    <<: *l\n    b: own\n    c: &x text\ndata:\n  k: *x\n";
    let (documents, problems) = read("f", text);
    assert_eq!(problems, []);
    assert_eq!(
        documents[0].value["metadata"]["annotations"],
        json!({"a": "1", "b": "own", "c": "text"})
    );
    assert_eq!(documents[0].value["data"]["k"], "text");
    assert_eq!(documents[0].place("data.k"), Some(Place { line: 11, column: 3 }));
}

#[test]
fn bombs_are_refused_in_bounded_work() {
    let head = "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: {template: {spec: {affinity: {";
    let mut laughs = format!("{head}a0: &a0 [x,x,x,x,x,x,x,x,x]");
    for level in 1..40 {
        let alias = format!("*a{}", level - 1);
        laughs += &format!(", a{level}: &a{level} [{}]", [alias.as_str(); 9].join(", "));
    }
    laughs += "}}}}\n";
    let deep = format!("{head}a: {}", "[".repeat(100_000));
    let balanced = format!("{head}a: {}{}}}}}}}}}", "[".repeat(100), "]".repeat(100));
    let chain = format!(
        "{head}a0: &a0 [x]{}}}}}}}}}\n",
        (1..5000)
            .map(|i| format!(", a{i}: &a{i} [*a{}]", i - 1))
            .collect::<String>()
    );
    let keys: String = (0..1000).map(|i| format!("k{i}: v, ")).collect();
    let merges = format!("{head}a: &a {{{keys}}}, l: [{}]}}}}}}}}\n", "{<<: *a}, ".repeat(1000));
    for (text, said) in [
        (laughs, "aliases expand to more than 200,000 values"),
        (deep, "nested deeper than 64 levels"),
        (balanced, "nested deeper than 64 levels"),
        (chain, "nested deeper than 64 levels"),
        (merges, "merges copy more than 100,000 entries"),
        (
            format!("{head}a: &a [*a]}}}}}}}}\n"),
            "the alias stands within the value it names",
        ),
    ] {
        let (_, problems) = read("f", &text);
        assert!(
            problems.iter().any(|problem| problem.message == said),
            "{said}: {problems:.300?}"
        );
    }
}

#[test]
fn wrong_shapes_say_what_would_be_right() {
    for (body, said) in [
        (
            "metadata: [a]",
            "metadata: must be an object, found a list; remove the `- `",
        ),
        (
            "metadata: {finalizers: {a: b}}",
            "metadata.finalizers: must be a list, found an object; begin each item with `- `",
        ),
        (
            "metadata: {annotations: {a: }}",
            "metadata.annotations.a: has no value; write \"\" for an empty one, or remove the key",
        ),
        (
            "metadata: {finalizers: [~]}",
            "metadata.finalizers[0]: the item is empty; write the item after `- `, or remove the dash",
        ),
        (
            "metadata: {generation: 1.5}",
            "metadata.generation: must be a whole number, found 1.5",
        ),
        (
            "metadata: {generation: 18446744073709551615}",
            "metadata.generation: 18446744073709551615 is out of range; must be -9223372036854775808 to 9223372036854775807",
        ),
        (
            "metadata: {creationTimestamp: now}",
            "metadata.creationTimestamp: must be a time such as \"2026-01-31T12:00:00Z\", found the text \"now\"",
        ),
        (
            "immutable: \"true\"",
            "immutable: must be true or false, found the text \"true\"; remove the quotes",
        ),
        (
            "binaryData: {a: \"%\"}",
            "binaryData.a: must be text in base64, found the text \"%\"; put plain text into `stringData`",
        ),
        ("Data: {}", "Data: unknown field `Data`; did you mean `data`?"),
        ("name: a", "name: unknown field `name`; `name` belongs in metadata"),
        (
            "qqqqqq: a",
            "qqqqqq: unknown field `qqqqqq`; known here: kind, apiVersion, metadata, immutable, data, binaryData",
        ),
        ("data: !x {}", "the tag `!x` has no meaning here; remove it"),
        ("[a]: b", "a key must be text, not a list or a map; write `key: value`"),
        ("<<: a", "`<<` takes a map or a list of maps; write `<<: *anchor`"),
    ] {
        let text = format!("apiVersion: v1\nkind: ConfigMap\n{body}\n");
        assert_eq!(problems(&text), [format!("f.yaml:3: {said}")], "{body}");
    }
}

/// Schema and mirrors come from one macro; this proves that the macro is right: a value with every field of the schema set
/// is read without a problem, and the typed resource prints every one of them again.
#[test]
fn schema_and_mirrors_agree_on_every_field() {
    let mut leaves = 0;
    for kind in KINDS {
        let mut sample = sample(kind.shape, &mut leaves);
        sample["apiVersion"] = json!(kind.api_version);
        sample["kind"] = json!(kind.kind);
        let (documents, problems) = read("f", &sample.to_string());
        assert_eq!(problems, [], "{}", kind.kind);
        assert_eq!(documents[0].value, sample, "{}", kind.kind);
        assert_eq!(documents[0].resource.to_value(), sample, "{}", kind.kind);
    }
    assert!(leaves > 1000, "{leaves}");
}

fn sample(shape: Shape, leaves: &mut usize) -> Value {
    *leaves += 1;
    match shape {
        Shape::String => json!("text"),
        Shape::Time => json!("2026-01-31T12:00:00Z"),
        Shape::Base64 => json!("Zm9v"),
        Shape::Bool => json!(true),
        Shape::Int(_, high) => json!(high),
        Shape::IntOrString => json!("http"),
        Shape::Quantity => json!("250m"),
        Shape::Any => json!({"any": ["thing"]}),
        Shape::List(of) => json!([sample(*of, leaves)]),
        Shape::Map(of) => json!({"key": sample(*of, leaves)}),
        Shape::Object(object) => object
            .fields
            .iter()
            .map(|field| (field.name.to_owned(), sample(field.shape, leaves)))
            .collect(),
    }
}

#[test]
fn golden_objects_are_read_as_they_are() {
    for line in include_str!("../../tests/vectors/manifest_defaults_validation.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (documents, problems) = read("f", &case["input"].to_string());
        assert_eq!(problems, [], "{}", case["id"]);
        assert_eq!(
            documents[0].resource,
            Resource::from_value(case["input"].clone()).unwrap(),
            "{}",
            case["id"]
        );
    }
}

#[test]
fn json_escapes_of_any_plane_are_read() {
    let text =
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "\ud83d\ude00 \u00e9 \/ \"", "é\u0041": "a"}}"#;
    let (documents, problems) = read("f", text);
    assert_eq!(problems, []);
    assert_eq!(documents[0].value["data"], json!({"k": "😀 é / \"", "éA": "a"}));
}
