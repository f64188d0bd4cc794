use std::collections::BTreeMap;

use super::{Template, Value};

fn run(source: &str) -> Result<String, String> {
    let labels = BTreeMap::from([("app".to_owned(), "shop".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let empty = BTreeMap::new();
    let data = Value::Struct(
        "test.Values",
        vec![
            ("Name", "hello".into()),
            ("Namespace", "default".into()),
            ("Labels", Value::Map(&labels)),
            ("Annotations", Value::Map(&empty)),
        ],
    );
    let template = Template::parse("t", source).map_err(|error| error.to_string())?;
    template.execute(&data).map_err(|error| error.to_string())
}

#[test]
fn executes_as_go_does() {
    let table = [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}.{{ .Namespace }}", "hello.default"),
        ("{{.Labels.app}}", "shop"),
        ("{{.Labels.nope}}", "<no value>"),
        ("{{.Labels.nope.deeper}}", "<no value>"),
        ("{{index .Labels \"app\"}}{{index .Labels `nope`}}", "shop"),
        ("{{index .Annotations \"sub\"}}|", "|"),
        ("{{if eq .Namespace \"default\"}}{{.Name}}{{else}}x{{end}}", "hello"),
        ("{{if eq .Name \"a\" \"hello\"}}any{{end}}", "any"),
        ("{{if ne .Name \"a\"}}1{{end}}{{if not .Annotations}}2{{end}}", "12"),
        ("{{if .Annotations.x}}1{{else if .Labels.app}}2{{else}}3{{end}}", "2"),
        ("{{if .Annotations.x}}1{{else if .Labels.y}}2{{else}}3{{end}}!", "3!"),
        ("{{if eq .Labels.nope \"x\"}}1{{else}}2{{end}}", "2"),
        ("{{with .Labels.app}}{{.}}-{{$.Name}}{{else}}none{{end}}", "shop-hello"),
        ("{{with .Labels.no}}{{.}}{{else}}none{{end}}", "none"),
        ("{{with $x := .Labels.app}}{{$x}}{{end}}", "shop"),
        ("{{$x := .Name}}{{if true}}{{$x = \"new\"}}{{end}}{{$x}}", "new"),
        (
            "{{or .Labels.no .Name}} {{and .Name .Namespace}} {{and .Labels.no .Name}}",
            "hello default <no value>",
        ),
        ("a {{- .Name -}} b", "ahellob"),
        ("a {{- /* comment */ -}} b{{/* x */}}", "ab"),
        (
            "{{len .Name}} {{len .Labels}} {{lt 1 2}} {{ge \"a\" \"b\"}}",
            "5 2 true false",
        ),
        ("{{slice .Name 1 3}}{{slice .Name 3}}", "ello"),
        ("{{.Name | printf \"%s-%s\" .Namespace}}", "default-hello"),
        (
            "{{printf \"%.3s|%7s|%-7s|%03d|%q|%%\" .Name .Name .Name 7 .Name}}",
            "hel|  hello|hello  |007|\"hello\"|%",
        ),
        ("{{print 1 2 \"a\" 3}}{{println .Name}}", "1 2a3hello\n"),
        ("{{(index .Labels \"app\") | len}}{{(.Labels).b}}", "42"),
        ("{{\"}}\"}}{{.Labels}}", "}}map[app:shop b:2]"),
        ("{{0x10}} {{-3}} {{1_000}} {{true}}", "16 -3 1000 true"),
    ];
    for (source, want) in table {
        assert_eq!(run(source).as_deref(), Ok(want), "{source}");
    }
}

#[test]
fn refuses_what_go_refuses_and_what_is_not_known() {
    let table = [
        (
            "{{.Foo}}",
            "template: t:1:2: can't evaluate field Foo in type test.Values",
        ),
        (
            "a\nb{{.Name.x}}",
            "template: t:2:3: can't evaluate field x in type string",
        ),
        ("{{.Name", "template: t:1:0: unclosed action"),
        ("{{}}", "template: t:1:2: missing value for command"),
        (
            "{{if .Name}}x",
            "template: t:1:2: unexpected end of template: {{end}} is missing",
        ),
        ("x{{end}}", "template: t:1:3: unexpected {{end}}"),
        ("{{else}}", "template: t:1:2: unexpected {{else}}"),
        (
            "{{if true}}{{else}}{{else}}{{end}}",
            "template: t:1:21: expected end; found {{else}}",
        ),
        ("{{nope .Name}}", "template: t:1:2: function \"nope\" not defined"),
        ("{{$y}}", "template: t:1:2: undefined variable \"$y\""),
        (
            "{{if true}}{{$y := 1}}{{end}}{{$y}}",
            "template: t:1:31: undefined variable \"$y\"",
        ),
        (
            "{{range .Labels}}{{end}}",
            "template: t:1:2: {{range}} is not supported in templates of Knarr",
        ),
        (
            "{{.Name \"x\"}}",
            "template: t:1:2: can't give argument to non-function",
        ),
        (
            "{{eq .Name 1}}",
            "template: t:1:2: error calling eq: incompatible types for comparison",
        ),
        (
            "{{eq .Labels 1}}",
            "template: t:1:2: error calling eq: non-comparable type",
        ),
        (
            "{{slice .Name 9}}",
            "template: t:1:2: error calling slice: index out of range: 9:5",
        ),
        ("{{(.Name}}", "template: t:1:2: unclosed left paren"),
        (
            "{{.Name | \"x\"}}",
            "template: t:1:10: non executable command in pipeline",
        ),
        ("{{\"abc}}", "template: t:1:2: bad or unterminated quoted string"),
        ("{{1.5}}", "template: t:1:2: \"1.5\" is not a whole number"),
        ("{{/* x }}", "template: t:1:0: unclosed comment"),
        ("{{.Name ? }}", "template: t:1:8: unexpected '?' in action"),
        (
            "{{printf \"%d\" .Name}}",
            "template: t:1:2: error calling printf: %d does not print a string",
        ),
    ];
    for (source, want) in table {
        assert_eq!(run(source), Err(want.to_owned()), "{source}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(source in "(\\{\\{|\\}\\}|-|\\.|[$a-c]|if|else|end|with| |\"|:=|=|\\||[(]|[)]|eq|index|é|1|/\\*|\\*/|\n){0,24}") {
        let _any = run(&source);
    }
}
