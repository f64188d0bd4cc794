use proptest::prelude::*;

use super::*;
use crate::convert::{Identity, Sources};
use crate::ids::RevisionId;
use crate::resources::{ObjectMeta, Resource, RevisionSpec};
use crate::units::Timestamp;

fn sources() -> Sources {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ns}\ndata: {a.txt: A, b: B}\nbinaryData: {raw: /w==}\n---\n\
                apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ns}\nstringData: {key: K, ..data: x}\n---\n\
                apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: once, namespace: ns}\nspec: {accessModes: [ReadWriteOnce]}\n---\n\
                apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: many, namespace: ns}\nspec: {accessModes: [ReadWriteMany, ReadWriteOnce]}\n---\n\
                apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: rox, namespace: ns}\nspec: {accessModes: [ReadOnlyMany]}\n";
    let (documents, problems) = crate::read::read("t", text);
    assert_eq!(problems, []);
    let mut sources = Sources::default();
    for document in documents {
        match document.resource {
            Resource::ConfigMap(map) => sources.add_config_map(&map),
            Resource::Secret(secret) => sources.add_secret(&secret),
            Resource::PersistentVolumeClaim(claim) => sources.add_claim(&claim),
            other => panic!("{other:?}"),
        }
    }
    sources
}

/// The pod of a template with this spec.
fn with<T>(spec: &str, what: impl FnOnce(&Pod<'_>, &mut Faults) -> T) -> (T, Vec<String>) {
    let text = format!(
        "apiVersion: serving.knative.dev/v1\nkind: Configuration\nmetadata: {{name: a}}\nspec: {{template: {{metadata: {{labels: {{x: \
         'y\"z'}}}}, spec: {{{spec}}}}}}}"
    );
    let (mut documents, problems) = crate::read::read("t", &text);
    assert_eq!(problems, [], "{text}");
    let Resource::Configuration(it) = documents.remove(0).resource else {
        panic!("{text}")
    };
    let identity = Identity {
        id: RevisionId::new("ns", "a-00001"),
        configuration: ObjectId::new("ns", "a"),
        service: None,
        created: Timestamp::EPOCH,
    };
    let (sources, mut faults) = (sources(), Faults::default());
    let spec: &RevisionSpec = &it.spec.template.spec;
    let meta: &ObjectMeta = &it.spec.template.metadata;
    let got = what(&Pod::new(&identity, meta, spec, &sources), &mut faults);
    (got, faults.into_inner().iter().map(ToString::to_string).collect())
}

/// What is in the one volume, in words.
fn volume(source: &str) -> Result<String, Vec<String>> {
    let (volumes, faults) = with(&format!("volumes: [{{name: v, {source}}}]"), volumes);
    let words = |file: &VolumeFile| {
        let content = match &file.content {
            FileContent::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            FileContent::Text(text) => text.to_string(),
        };
        format!("{}:{:o}={content}", file.path.display(), file.mode)
    };
    match &volumes[..] {
        [] => Err(faults),
        [volume] => Ok(match &volume.source {
            VolumeSource::Files(files) => files.iter().map(words).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        }),
        more => panic!("{}", more.len()),
    }
}

#[test]
fn every_source() {
    let table = [
        ("emptyDir: {}", "Empty { memory: false, size: None }"),
        (
            "emptyDir: {medium: Memory, sizeLimit: 1Mi}",
            "Empty { memory: true, size: Some(Bytes(1048576)) }",
        ),
        ("emptyDir: {sizeLimit: 0}", "Empty { memory: false, size: None }"),
        ("hostPath: {path: /srv}", "HostPath(/srv, Any)"),
        (
            "hostPath: {path: /srv, type: DirectoryOrCreate}",
            "HostPath(/srv, DirectoryOrCreate)",
        ),
        (
            "persistentVolumeClaim: {claimName: once}",
            "Claim { claim: ns/once, read_only: false, shared: false }",
        ),
        (
            "persistentVolumeClaim: {claimName: many, readOnly: true}",
            "Claim { claim: ns/many, read_only: true, shared: true }",
        ),
        (
            "persistentVolumeClaim: {claimName: rox}",
            "Claim { claim: ns/rox, read_only: true, shared: true }",
        ),
        ("configMap: {name: c}", "a.txt:644=A b:644=B raw:644=\u{fffd}"),
        (
            "configMap: {name: c, defaultMode: 256, items: [{key: b, path: d/e}]}",
            "d/e:400=B",
        ),
        (
            "configMap: {name: c, items: [{key: b, path: ./x//y, mode: 493}, {key: raw, path: z}]}",
            "x/y:755=B z:644=\u{fffd}",
        ),
        (
            "configMap: {name: c, optional: true, items: [{key: gone, path: x}]}",
            "",
        ),
        ("configMap: {name: gone, optional: true}", ""),
        ("secret: {secretName: s, items: [{key: key, path: k}]}", "k:644=K"),
        (
            "projected: {defaultMode: 288, sources: [{secret: {name: s, items: [{key: key, path: s/k}]}}, {configMap: {name: c, items: \
             [{key: b, path: c/b, mode: 420}]}}, {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: l, \
             fieldRef: {fieldPath: metadata.labels}}]}}]}",
            "s/k:440=K c/b:644=B name:440={PodName} \
             l:440=app=\"a-00001\"\nserving.knative.dev/configuration=\"a\"\nserving.knative.dev/revision=\"a-00001\"\nx=\"y\\\"z\"",
        ),
    ];
    for (source, want) in table {
        assert_eq!(volume(source).as_deref(), Ok(want), "{source}");
    }
}

#[test]
fn says_what_is_wrong_with_each() {
    let table = [
        (
            "configMap: {name: gone}",
            "spec.volumes[0].configMap: there is no ConfigMap ns/gone; add it, or set optional: true",
        ),
        (
            "configMap: {name: c, items: [{key: gone, path: x}]}",
            "spec.volumes[0].configMap.items[0].key: there is no key \"gone\" in ConfigMap ns/c; add it, or set optional: true",
        ),
        (
            "configMap: {name: c, items: [{key: b, path: ../x}]}",
            "spec.volumes[0].configMap.items[0]: \"../x\" cannot be a file; write a relative path without .. as path",
        ),
        (
            "configMap: {name: c, items: [{key: b, path: /x}]}",
            "spec.volumes[0].configMap.items[0]: \"/x\" cannot be a file; write a relative path without .. as path",
        ),
        (
            "configMap: {name: c, items: [{key: b, path: x}, {key: a.txt, path: x/y}]}",
            "spec.volumes[0]: \"x\" and \"x/y\" cannot both be there; give them other paths",
        ),
        (
            "configMap: {name: c, items: [{key: b, path: x}, {key: a.txt, path: x}]}",
            "spec.volumes[0]: \"x\" and \"x\" cannot both be there; give them other paths",
        ),
        (
            "configMap: {name: c, defaultMode: 512}",
            "spec.volumes[0].configMap.defaultMode: invalid value: 512; must be 0 to 0777 (511 in JSON)",
        ),
        (
            "persistentVolumeClaim: {claimName: gone}",
            "spec.volumes[0].persistentVolumeClaim.claimName: there is no PersistentVolumeClaim ns/gone; add it",
        ),
        (
            "hostPath: {path: srv}",
            "spec.volumes[0].hostPath.path: invalid value: \"srv\"; write an absolute path without ..",
        ),
        (
            "hostPath: {path: /srv/../etc}",
            "spec.volumes[0].hostPath.path: invalid value: \"/srv/../etc\"; write an absolute path without ..",
        ),
        (
            "hostPath: {path: /dev/sda, type: BlockDevice}",
            "spec.volumes[0].hostPath.type: not supported: BlockDevice; Directory, DirectoryOrCreate, File, FileOrCreate and Socket are",
        ),
        (
            "projected: {sources: [{downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu}}]}}]}",
            "spec.volumes[0].projected.sources[0].downwardAPI.items[0].resourceFieldRef.containerName: there is no container \"\"; there \
             are ",
        ),
    ];
    for (source, want) in table {
        assert_eq!(volume(source), Err(vec![want.to_owned()]), "{source}");
    }
}

#[test]
fn mounts_of_a_container() {
    let run = |mounts: &str| {
        with(
            &format!("containers: [{{name: a, volumeMounts: [{mounts}]}}]"),
            |pod, faults| super::mounts(&pod.spec.containers()[0], "C", faults),
        )
    };
    let (mounts, faults) =
        run("{name: v, mountPath: /data/, subPath: a//b/, readOnly: true}, {name: w, mountPath: /w}");
    assert_eq!(faults, [""; 0]);
    let shown: Vec<String> = mounts.iter().map(|mount| format!("{mount:?}")).collect();
    assert_eq!(
        shown,
        [
            "Mount { volume: \"v\", path: \"/data\", sub_path: Some(\"a/b\"), read_only: true }",
            "Mount { volume: \"w\", path: \"/w\", sub_path: None, read_only: false }",
        ]
    );
    for (mount, want) in [
        (
            "{name: v, mountPath: /a, subPath: ../b}",
            "C.volumeMounts[0].subPath: invalid value: \"../b\"; write a relative path without ..",
        ),
        (
            "{name: v, mountPath: /a, subPath: /b}",
            "C.volumeMounts[0].subPath: invalid value: \"/b\"; write a relative path without ..",
        ),
        (
            "{name: v, mountPath: /a/../b}",
            "C.volumeMounts[0].mountPath: invalid value: \"/a/../b\"; write an absolute path without ..",
        ),
    ] {
        assert_eq!(run(mount).1, [want], "{mount}");
    }
}

proptest! {
    #[test]
    fn what_is_relative_stays_inside(text in "[a./\0]{0,12}") {
        if let Some(path) = relative(&text) {
            prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
            prop_assert!(!path.as_os_str().is_empty());
            prop_assert_eq!(relative(path.to_str().unwrap()), Some(path.clone()));
        }
    }
}
