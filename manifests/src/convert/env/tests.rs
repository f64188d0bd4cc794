use super::*;
use crate::convert::Identity;
use crate::ids::{ObjectId, RevisionId};
use crate::resources::{ObjectMeta, RevisionSpec};
use crate::units::Timestamp;

fn container(yaml: &str) -> Container {
    let text = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Configuration\nmetadata: {{name: a}}\nspec: {{template: {{spec: {{containers: \
         [{{{yaml}}}]}}}}}}"
    );
    let (mut documents, problems) = crate::read::read("t", &text);
    assert_eq!(problems, [], "{yaml}");
    match documents.remove(0).resource {
        crate::resources::Resource::Configuration(it) => it.spec.template.spec.containers()[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn sources() -> Sources {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ns}\ndata: {A: from-c, B: b}\n---\n\
                apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ns}\ndata: {K: c2VjcmV0, BAD: //8=, B: b2xk}\n\
                stringData: {B: new}\n";
    let mut sources = Sources::default();
    for document in crate::read::read("t", text).0 {
        match document.resource {
            crate::resources::Resource::ConfigMap(map) => sources.add_config_map(&map),
            crate::resources::Resource::Secret(secret) => sources.add_secret(&secret),
            other => panic!("{other:?}"),
        }
    }
    sources
}

fn run(yaml: &str) -> (Vec<String>, Vec<String>) {
    let mut faults = Faults::default();
    let container = container(yaml);
    let spec = RevisionSpec {
        container_list: Some(vec![container.clone()]),
        ..RevisionSpec::default()
    };
    let identity = Identity {
        id: RevisionId::new("ns", "shop-00001"),
        configuration: ObjectId::new("ns", "shop"),
        service: None,
        created: Timestamp::EPOCH,
    };
    let template = ObjectMeta {
        labels: [("tier".to_owned(), "front".to_owned())].into(),
        annotations: [("note".to_owned(), "a b".to_owned())].into(),
        ..ObjectMeta::default()
    };
    let sources = sources();
    let pod = Pod::new(&identity, &template, &spec, &sources);
    let env = resolve(&container, "S", &pod, &mut faults);
    let env = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (env, faults.into_inner().iter().map(ToString::to_string).collect())
}

#[test]
fn later_wins_and_references_look_back() {
    let table: &[(&str, &[&str])] = &[
        (
            "env: [{name: X, value: '$(V)'}, {name: V, value: v}, {name: Z, value: '$(X)-$(V)'}]",
            &["V=v", "X=$(V)", "Z=$(V)-v"],
        ),
        (
            "envFrom: [{configMapRef: {name: c}}], env: [{name: A, value: 'mine-$(B)'}]",
            &["A=mine-b", "B=b"],
        ),
        (
            "envFrom: [{configMapRef: {name: c}}, {prefix: P_, configMapRef: {name: c}}]",
            &["A=from-c", "B=b", "P_A=from-c", "P_B=b"],
        ),
        (
            "env: [{name: K, valueFrom: {secretKeyRef: {name: s, key: K}}}]",
            &["K=secret"],
        ),
        (
            "env: [{name: K, valueFrom: {secretKeyRef: {name: s, key: B}}}]",
            &["K=new"],
        ),
        (
            "env: [{name: K, valueFrom: {configMapKeyRef: {name: c, key: gone, optional: true}}}]",
            &[],
        ),
        ("envFrom: [{secretRef: {name: gone, optional: true}}]", &[]),
        ("env: [{name: E}]", &["E="]),
    ];
    for (yaml, want) in table {
        assert_eq!(
            run(yaml),
            (want.iter().map(ToString::to_string).collect(), vec![]),
            "{yaml}"
        );
    }
}

#[test]
fn says_everything_that_is_missing() {
    let (env, faults) = run(
        "envFrom: [{configMapRef: {name: gone}}, {secretRef: {name: s}}], env: [{name: 'A=B', value: x}, {name: K, valueFrom: \
         {configMapKeyRef: {name: c, key: gone}}}, {name: L, valueFrom: {secretKeyRef: {name: gone, key: k}}}]",
    );
    assert_eq!(env, ["B=new"]);
    assert_eq!(
        faults,
        [
            "S.envFrom[0].configMapRef: there is no ConfigMap ns/gone; add it, or set optional: true",
            "S.envFrom[1].secretRef: the value of key \"BAD\" is not UTF-8",
            "S.env[0]: \"A=B\" cannot be a variable; names have no \"=\", values no zero byte",
            "S.env[1].valueFrom.configMapKeyRef: there is no key \"gone\" in ConfigMap ns/c; add it, or set optional: true",
            "S.env[2].valueFrom.secretKeyRef: there is no Secret ns/gone; add it, or set optional: true",
        ]
    );
}

#[test]
fn expands_as_the_kubelet_does() {
    let table = [
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___$(VAR_A)", "___B___A"),
        ("$$(VAR_A)", "$(VAR_A)"),
        ("$$$(VAR_A)", "$A"),
        ("$$$$(VAR_A)", "$$(VAR_A)"),
        ("$(NO)", "$(NO)"),
        ("$(VAR_A", "$(VAR_A"),
        ("$VAR_A", "$VAR_A"),
        ("foo$", "foo$"),
        ("foo$$", "foo$"),
        ("$(VAR_A)$$", "A$"),
        ("$()", "$()"),
        ("$((VAR_A))", "$((VAR_A))"),
        ("$($(VAR_A))", "$($(VAR_A))"),
        ("é$é$(VAR_B)", "é$éB"),
        ("\n", "\n"),
    ];
    let known = |name: &str| name.strip_prefix("VAR_").map(Text::from);
    for (text, want) in table {
        assert_eq!(expand(text, known), want, "{text}");
    }
}

#[test]
fn facts_about_the_pod() {
    let field = |path: &str| format!("env: [{{name: A, valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}}}]");
    let table = [
        ("metadata.name", "A={PodName}"),
        ("metadata.uid", "A={PodUid}"),
        ("metadata.namespace", "A=ns"),
        ("metadata.labels['tier']", "A=front"),
        ("metadata.labels['app']", "A=shop-00001"),
        ("metadata.labels['serving.knative.dev/configuration']", "A=shop"),
        ("metadata.labels['serving.knative.dev/service']", "A="),
        ("metadata.annotations['note']", "A=a b"),
        ("spec.nodeName", "A={NodeName}"),
        ("spec.serviceAccountName", "A=default"),
        ("status.podIP", "A=127.0.0.1"),
    ];
    for (path, want) in table {
        assert_eq!(run(&field(path)), (vec![want.to_owned()], vec![]), "{path}");
    }
    for path in [
        "status.hostIP",
        "metadata.labels",
        "metadata.labels[tier]",
        "metadata.nam",
        "",
    ] {
        let (_, faults) = run(&field(path));
        let want = format!("S.env[0].valueFrom.fieldRef.fieldPath: not supported: {path}; metadata.name, ");
        assert!(faults[0].starts_with(&want), "{path}: {faults:?}");
    }
    let chained =
        "env: [{name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: U, value: 'http://$(ME).local'}]";
    assert_eq!(run(chained).0, ["ME={PodName}", "U=http://{PodName}.local"]);
}

#[test]
fn resources_of_a_container() {
    let resource = |resource: &str, divisor: &str| {
        let yaml = format!(
            "name: web, resources: {{limits: {{cpu: 1500m, memory: 100Mi}}, requests: {{memory: 1Ki}}}}, env: [{{name: A, valueFrom: \
             {{resourceFieldRef: {{resource: {resource}{divisor}}}}}}}]"
        );
        let (env, faults) = run(&yaml);
        env.into_iter().chain(faults).collect::<String>()
    };
    let table = [
        ("limits.cpu", "", "A=2"),
        ("limits.cpu", ", divisor: 1m", "A=1500"),
        ("limits.memory", "", "A=104857600"),
        ("limits.memory", ", divisor: 1Mi", "A=100"),
        ("limits.memory", ", divisor: 64Mi", "A=2"),
        ("requests.memory", "", "A=1024"),
        ("requests.cpu", "", "A=2"),
        ("requests.ephemeral-storage", "", "A=0"),
        (
            "limits.gpu",
            "",
            "S.env[0].valueFrom.resourceFieldRef.resource: invalid value: limits.gpu; write limits. or requests. with cpu, memory or \
             ephemeral-storage",
        ),
        (
            "limits.cpu",
            ", divisor: -1",
            "S.env[0].valueFrom.resourceFieldRef.divisor: invalid value: -1; write 1, or another quantity above 0",
        ),
        (
            "limits.cpu",
            ", containerName: other",
            "S.env[0].valueFrom.resourceFieldRef.containerName: there is no container \"other\"; there are web",
        ),
    ];
    for (name, divisor, want) in table {
        assert_eq!(resource(name, divisor), want, "{name} {divisor}");
    }
    let without = "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]";
    assert_eq!(run(without).0, ["A={NodeMemory { divisor: 1048576 }}"]);
}
