//! Lives of revisions' images.

use super::*;

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn id(name: &str) -> ObjectId {
    ObjectId::new("default", name)
}

fn registry(image: &str) -> Image {
    Image::Registry(image.parse().unwrap())
}

fn template(text: &str) -> TemplateId {
    TemplateId {
        namespace: "default".into(),
        configuration: "hello".into(),
        template: text.into(),
    }
}

fn hello(name: &str, uid: &str, of: &str) -> Wanted {
    wanted(
        id(name),
        uid,
        template(of),
        &Workload::new(registry("example.com/app:v1")),
    )
    .unwrap()
}

fn pins() -> Pins {
    Pins::from([("example.com/app:v1".into(), DIGEST.into())])
}

fn trouble(stage: Stage, reason: &'static str) -> Trouble {
    Trouble {
        stage,
        message: "no".into(),
        reason,
    }
}

#[test]
fn tags_are_resolved_then_pulled_then_ready() {
    let mut pulls = Pulls::default();
    assert!(pulls.want(hello("r", "1", "t"), at(0)));
    assert!(!pulls.want(hello("r", "1", "t"), at(0)), "wanted already");
    assert_eq!(pulls.standing(&id("r")), Some(Standing::Resolving));
    assert_eq!(pulls.next_due(), Some(at(0)));
    assert_eq!(pulls.due(at(0)).len(), 1);
    assert_eq!(
        (pulls.due(at(9)), pulls.next_due()),
        (Vec::new(), None),
        "given out once"
    );

    assert!(pulls.resolved(&id("r"), "1", pins()));
    assert!(matches!(pulls.standing(&id("r")), Some(Standing::Pulling(..))));
    assert!(pulls.ended(&id("r"), "1", Ok(()), at(1)));
    let Some(Standing::Ready(wanted, known)) = pulls.standing(&id("r")) else {
        panic!("{:?}", pulls.standing(&id("r")));
    };
    let image = &wanted.containers[0].image;
    assert_eq!(pinned(image, known).to_string(), format!("example.com/app:v1@{DIGEST}"));
    assert_eq!(image_digest(image, known), format!("example.com/app@{DIGEST}"));
}

#[test]
fn failures_are_tried_again_ever_later_and_keep_what_is_known() {
    let mut pulls = Pulls::default();
    pulls.want(hello("r", "1", "t"), at(0));
    let mut now = 0;
    for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        assert_eq!(pulls.due(at(now)).len(), 1, "{wait}");
        pulls.ended(&id("r"), "1", Err(trouble(Stage::Resolve, "ContainerMissing")), at(now));
        assert_eq!(pulls.next_due(), Some(at(now + wait)));
        now += wait;
    }
    pulls.due(at(now));
    pulls.resolved(&id("r"), "1", pins());
    assert!(
        matches!(pulls.standing(&id("r")), Some(Standing::Pulling(..))),
        "that trouble is over"
    );

    // The pull fails, with a wait of its own; what the tag stood for is not asked again.
    pulls.ended(&id("r"), "1", Err(trouble(Stage::Pull, "ErrImagePull")), at(now));
    assert_eq!(pulls.next_due(), Some(at(now + 1)));
    let reason = |pulls: &Pulls| match pulls.standing(&id("r")) {
        Some(Standing::Failed(_, _, trouble)) => trouble.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&pulls), "ErrImagePull");
    assert_eq!(pulls.due(at(now + 1))[0].pins, pins());
    assert_eq!(reason(&pulls), "ErrImagePull", "while it is tried again, too");
    pulls.ended(&id("r"), "1", Err(trouble(Stage::Pull, "ErrImagePull")), at(now + 1));
    assert_eq!(reason(&pulls), "ImagePullBackOff");
}

#[test]
fn other_pull_secrets_are_tried_at_once() {
    let mut pulls = Pulls::default();
    pulls.want(hello("r", "1", "t"), at(0));
    pulls.due(at(0));
    pulls.ended(&id("r"), "1", Err(trouble(Stage::Resolve, "ContainerMissing")), at(5));
    pulls.want(hello("r", "1", "t"), at(5));
    assert_eq!(pulls.next_due(), Some(at(6)), "nothing has changed");
    let secret = RegistryAuth {
        registry: "example.com".into(),
        username: "ann".into(),
        password: "geheim".into(),
    };
    pulls.want(
        Wanted {
            auth: vec![secret],
            ..hello("r", "1", "t")
        },
        at(5),
    );
    assert_eq!(pulls.due(at(5))[0].wanted.auth.len(), 1);
}

#[test]
fn pins_outlive_knarr_but_not_their_revision() {
    let mut pulls = Pulls::default();
    pulls.want(hello("hello-00001", "1", "t"), at(0));
    pulls.resolved(&id("hello-00001"), "1", pins());
    let saved = pulls.saved();
    assert_eq!(saved.len(), 1);

    // Another start: the same template under another uid.
    let mut pulls = Pulls::default();
    pulls.restore(saved.clone());
    assert_eq!(pulls.saved(), saved, "not asked for yet");
    pulls.want(hello("hello-00001", "2", "t"), at(0));
    assert_eq!(pulls.due(at(0))[0].pins, pins());
    // A later revision of the same template, in the same life, finds its tags out anew.
    pulls.want(hello("hello-00003", "3", "t"), at(0));
    assert_eq!(pulls.due(at(0))[0].pins, Pins::default());
    // Another template knows nothing of them.
    let mut other = Pulls::default();
    other.restore(saved);
    other.want(hello("hello-00001", "4", "u"), at(0));
    assert_eq!(other.due(at(0))[0].pins, Pins::default());

    let version = pulls.version();
    pulls.retain(|_| false);
    assert_eq!((pulls.saved(), pulls.version() > version), (Vec::new(), true));
}

#[test]
fn words_for_a_revision_that_is_no_more_are_dropped() {
    let mut pulls = Pulls::default();
    pulls.want(hello("r", "1", "t"), at(0));
    pulls.due(at(0));
    pulls.want(hello("r", "2", "t"), at(0));
    assert!(!pulls.resolved(&id("r"), "1", pins()));
    assert!(!pulls.ended(&id("r"), "1", Ok(()), at(0)));
    assert_eq!(pulls.standing(&id("r")), Some(Standing::Resolving));
    assert!(!pulls.wants(&id("r"), "1") && pulls.wants(&id("r"), "2"));
}

#[test]
fn tags_of_registries_and_images_of_this_machine_are_pinned() {
    let image = |text: &str| Image::Oci {
        path: text.into(),
        tag: None,
    };
    let both = Pins::from([("oci:/y".into(), DIGEST.into())]);
    let known = pinned(&image("/y"), &both);
    assert_eq!(known, image("/y").pinned(DIGEST.into()));
    assert_eq!(pinned(&known, &both), known);
    assert_eq!(image_digest(&image("/y"), &both), format!("oci:/y@{DIGEST}"));
    assert_eq!(pinned(&image("/x"), &both), image("/x"));
    let mut workload = Workload::new(registry("example.com/app:v1"));
    workload.init = vec![manifests::workload::Container::new("i", image("/x"))];
    workload.sidecars = vec![manifests::workload::Container::new(
        "h",
        Image::Host("/bin/true".into()),
    )];
    let wanted = wanted(id("r"), "1", template("t"), &workload).unwrap();
    let names: Vec<_> = wanted.containers.iter().map(|it| (&*it.container, it.init)).collect();
    assert_eq!(
        names,
        [("i", true), ("user-container", false)],
        "a program of this machine is there"
    );
    let pinned = pin(&workload, &pins());
    assert_eq!(pinned.serving.image.to_string(), format!("example.com/app:v1@{DIGEST}"));
    assert_eq!((&pinned.init, &pinned.sidecars), (&workload.init, &workload.sidecars));
    assert_eq!(image_digest(&image("/x"), &pins()), "");
    assert_eq!(
        image_digest(&registry(&format!("nginx@{DIGEST}")), &Pins::default()),
        format!("index.docker.io/library/nginx@{DIGEST}")
    );
    assert!(super::wanted(id("r"), "1", template("t"), &Workload::host("/bin/true")).is_none());
}
