use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Image, String> {
    let mut faults = Faults::default();
    let image = image(text, "I", &mut faults);
    image.ok_or_else(|| faults.into_inner()[0].to_string())
}

#[test]
fn every_scheme() {
    let digest = "0".repeat(64);
    let table = [
        ("host:/usr/bin/app", "host:/usr/bin/app"),
        ("host:python3", "host:python3"),
        ("nginx", "docker.io/library/nginx:latest"),
        ("localhost:5000/ab:1", "localhost:5000/ab:1"),
        // A port, so a registry, whatever its name.
        ("dir:5000/ab", "dir:5000/ab:latest"),
        ("oci:/srv/app", "oci:/srv/app"),
        ("oci:/srv/app:v1", "oci:/srv/app:v1"),
        ("oci-archive:/srv/app.tar:a/b:v1", "oci-archive:/srv/app.tar:a/b:v1"),
        ("docker-archive:/srv/app.tar", "docker-archive:/srv/app.tar"),
        (
            "docker-archive:/srv/app.tar:app:v1",
            "docker-archive:/srv/app.tar:app:v1",
        ),
        ("docker-daemon:app:v1", "docker-daemon:app:v1"),
        (
            &format!("docker-daemon:sha256:{digest}"),
            &format!("docker-daemon:sha256:{digest}"),
        ),
        ("dir:/srv/root", "dir:/srv/root"),
    ];
    for (text, want) in table {
        assert_eq!(read(text).map(|image| image.to_string()).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn says_what_would_be_right() {
    let host = "write host:/path/to/program, or host:NAME for a program on the PATH";
    let table = [
        ("host:", host),
        ("host:a/b", host),
        ("host:..", host),
        ("host:/", host),
        ("host:/a/", host),
        (
            "HOST:/a",
            "write an image as docker run takes it, or host:/path/to/program",
        ),
        (
            "UPPER",
            "write an image as docker run takes it, or host:/path/to/program",
        ),
        ("oci:images/app", "write an absolute path: oci:/path/to/image"),
        ("oci:./app:v1", "write an absolute path: oci:/path/to/image"),
        (
            "oci:/a:",
            "write the image's name after oci:PATH:, or leave the colon out",
        ),
        (
            "docker-archive:app.tar",
            "write an absolute path: docker-archive:/path/to/image",
        ),
        ("dir:~/root", "write an absolute path: dir:/path/to/image"),
        (
            "docker-daemon:UPPER",
            "write docker-daemon:NAME:TAG as docker images shows it, or docker-daemon:sha256:ID",
        ),
    ];
    for (text, hint) in table {
        assert_eq!(read(text), Err(format!("I: invalid value: {text}; {hint}")), "{text}");
    }
}

#[test]
fn what_may_move_is_looked_for_again() {
    let policy = |text: &str, policy: &str| {
        let container = Container {
            image_pull_policy: policy.to_owned(),
            ..Container::default()
        };
        pull_policy(&container, &read(text).unwrap(), "C", &mut Faults::default())
    };
    let digest = format!("ab@sha256:{}", "0".repeat(64));
    let table = [
        ("nginx", PullPolicy::Always),
        ("nginx:latest", PullPolicy::Always),
        ("nginx:1.27", PullPolicy::IfNotPresent),
        (&digest, PullPolicy::IfNotPresent),
        ("host:app", PullPolicy::IfNotPresent),
        ("oci:/a", PullPolicy::Always),
        ("oci:/a:v1", PullPolicy::IfNotPresent),
        ("docker-archive:/a", PullPolicy::Always),
        ("docker-archive:/a:app:v1", PullPolicy::IfNotPresent),
        ("docker-daemon:app", PullPolicy::Always),
        ("docker-daemon:app:v1", PullPolicy::IfNotPresent),
        ("dir:/a", PullPolicy::Always),
    ];
    for (text, want) in table {
        assert_eq!(policy(text, ""), want, "{text}");
        assert_eq!(policy(text, "Never"), PullPolicy::Never, "{text}");
    }
    let mut faults = Faults::default();
    let container = Container {
        image_pull_policy: "Sometimes".to_owned(),
        ..Container::default()
    };
    pull_policy(&container, &read("ab").unwrap(), "C", &mut faults);
    assert_eq!(
        faults.into_inner()[0].to_string(),
        "C.imagePullPolicy: invalid value: Sometimes; write Always, IfNotPresent or Never"
    );
}

#[test]
fn logins_of_both_kinds_of_secrets() {
    let keys = |kind: &str, key: &str, text: &str| Keys {
        data: [(key.to_owned(), text.as_bytes().into())].into(),
        kind: format!("kubernetes.io/{kind}"),
        ..Keys::default()
    };
    let new = |text| logins(&keys("dockerconfigjson", ".dockerconfigjson", text));
    let old = |text| logins(&keys("dockercfg", ".dockercfg", text));
    let login = |registry: &str| RegistryAuth {
        registry: registry.to_owned(),
        username: "ann".to_owned(),
        password: "s:cret".to_owned(),
    };
    // ann:s:cret
    let auth = r#"{"auth":"YW5uOnM6Y3JldA=="}"#;
    let plain = r#"{"username":"ann","password":"s:cret","email":"x"}"#;
    let both = format!(r#"{{"auths":{{"ghcr.io":{auth},"localhost:5000":{plain}}},"credsStore":"x"}}"#);
    assert_eq!(new(&both), Ok(vec![login("ghcr.io"), login("localhost:5000")]));
    assert_eq!(old(&format!(r#"{{"ghcr.io":{auth}}}"#)), Ok(vec![login("ghcr.io")]));
    let wrong = [
        (new("{"), ".dockerconfigjson is not JSON"),
        (new("{}"), ".dockerconfigjson has no registries in it"),
        (
            new(r#"{"auths":{"a.b":{"auth":"!"}}}"#),
            "has no user and password for a.b",
        ),
        (
            new(r#"{"auths":{"a.b":{"identitytoken":"x"}}}"#),
            "has no user and password for a.b",
        ),
        (
            logins(&keys("dockercfg", ".dockerconfigjson", "{}")),
            "has no key \".dockercfg\"",
        ),
        (
            logins(&keys("tls", "tls.crt", "")),
            "is a Secret of type \"kubernetes.io/tls\", not kubernetes.io/dockerconfigjson",
        ),
    ];
    for (got, want) in wrong {
        assert_eq!(got, Err(want.to_owned()));
    }
    assert_eq!(format!("{:?}", login("ghcr.io")), "RegistryAuth(ann at ghcr.io)");
}

proptest! {
    #[test]
    fn what_is_read_prints_as_what_reads_the_same(text in "(host|oci|oci-archive|docker-archive|docker-daemon|dir)?:?[a-z0-9/.:@_-]{0,20}") {
        if let Ok(image) = read(&text) {
            prop_assert_eq!(read(&image.to_string()), Ok(image));
        }
    }
}
