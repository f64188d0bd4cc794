//! Revisions whose images are not there yet.

use manifests::bundle::{self, Input};
use manifests::resources::Condition;

use super::*;
use crate::pulls::Stage;

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

struct World {
    desired: Desired,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let mut uid = 0;
        let new_uid = move || {
            uid += 1;
            format!("uid-{uid}")
        };
        Self {
            desired: Desired::new(1, new_uid),
            now: Timestamp::from_millis(1_000_000),
        }
    }

    /// Applies a Service with this image; `mark` makes it another template.
    fn apply(&mut self, image: &str, mark: &str) {
        let text = format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: hello}}\nspec: {{template: {{metadata: {{annotations: \
             {{mark: '{mark}'}}}}, spec: {{containers: [{{image: '{image}'}}]}}}}}}\n"
        );
        let input = Input {
            name: "hello.yaml".into(),
            text,
        };
        let checked = bundle::bundle(&[input], None);
        assert!(checked.problems.is_empty(), "{:?}", checked.problems);
        self.desired.apply(&checked.bundle, self.now);
    }

    /// The images of the revisions in the next snapshot, by revision.
    fn snapshot(&mut self) -> Option<Vec<(String, String)>> {
        let (snapshot, warnings) = self.desired.snapshot(self.now)?;
        assert!(warnings.is_empty(), "{warnings:?}");
        let revisions = snapshot.revisions.values();
        Some(
            revisions
                .map(|it| (it.id.name().to_owned(), it.workload.serving.image.to_string()))
                .collect(),
        )
    }

    fn job(&mut self) -> (ObjectId, String, Pins) {
        let mut jobs = self.desired.due_pulls(self.now);
        assert_eq!(jobs.len(), 1);
        let Job { wanted, pins } = jobs.remove(0);
        (wanted.revision, wanted.uid, pins)
    }

    /// `Ready` of a revision as `Status Reason Message`.
    fn ready(&self, name: &str) -> String {
        let revision = self
            .desired
            .store()
            .get::<Revision>(&ObjectId::new("default", name))
            .unwrap();
        let is_ready = |it: &&Condition| it.kind == "Ready";
        let ready = revision.status.conditions.iter().find(is_ready).unwrap();
        format!("{} {} {}", ready.status, ready.reason, ready.message)
            .trim()
            .to_owned()
    }

    fn digests(&self, name: &str) -> Vec<String> {
        let revision = self
            .desired
            .store()
            .get::<Revision>(&ObjectId::new("default", name))
            .unwrap();
        revision
            .status
            .container_statuses
            .iter()
            .map(|it| it.image_digest.clone())
            .collect()
    }

    /// Resolves and pulls what is due.
    fn pull(&mut self, digest: &str) {
        let (id, uid, _) = self.job();
        let pins = Pins::from([("example.com/app:v1".to_owned(), digest.to_owned())]);
        self.desired.images_resolved(&id, &uid, pins, self.now);
        self.desired.images_ended(&id, &uid, Ok(()), self.now);
    }
}

#[test]
fn a_revision_is_in_the_snapshot_when_its_image_is_there_and_pinned() {
    let mut world = World::new();
    world.apply("example.com/app:v1", "a");
    assert_eq!(world.snapshot(), Some(vec![]));
    assert_eq!(world.ready("hello-00001"), "Unknown ResolvingDigests");
    assert_eq!(world.snapshot(), None, "nothing new");

    let (id, uid, pins) = world.job();
    assert!(pins.is_empty());
    let pins = Pins::from([("example.com/app:v1".to_owned(), DIGEST.to_owned())]);
    world.desired.images_resolved(&id, &uid, pins, world.now);
    assert_eq!(world.ready("hello-00001"), "Unknown ContainerCreating pulling images");
    assert_eq!(world.digests("hello-00001"), [format!("example.com/app@{DIGEST}")]);
    assert_eq!(world.snapshot(), None);

    world.desired.images_ended(&id, &uid, Ok(()), world.now);
    assert_eq!(world.ready("hello-00001"), "Unknown Deploying");
    let pinned = format!("example.com/app:v1@{DIGEST}");
    assert_eq!(world.snapshot(), Some(vec![("hello-00001".to_owned(), pinned)]));

    // What runs has nobody to ask, and waits for nothing.
    let mut world = World::new();
    world.apply("host:/bin/true", "a");
    assert_eq!(world.snapshot().unwrap().len(), 1);
    assert_eq!(world.ready("hello-00001"), "Unknown Deploying");
}

#[test]
fn failures_are_told_in_knatives_words() {
    let mut world = World::new();
    world.apply("example.com/app:v1", "a");
    world.snapshot();
    let (id, uid, _) = world.job();
    let trouble = |stage, reason, message: &str| Trouble {
        stage,
        reason,
        message: message.into(),
    };
    let missing = trouble(Stage::Resolve, "ContainerMissing", "Unable to fetch image \"x\": gone");
    world.desired.images_ended(&id, &uid, Err(missing), world.now);
    assert_eq!(
        world.ready("hello-00001"),
        "False ContainerMissing Unable to fetch image \"x\": gone"
    );
    let service = world
        .desired
        .store()
        .get::<Service>(&ObjectId::new("default", "hello"))
        .unwrap();
    let ready = service.status.conditions.iter().find(|it| it.kind == "Ready").unwrap();
    assert_eq!(ready.status, "False");
    assert!(
        ready.message.contains("Unable to fetch image \"x\": gone"),
        "{}",
        ready.message
    );

    world.now = world.now.plus(std::time::Duration::from_secs(1));
    let (id, uid, _) = world.job();
    world.desired.images_resolved(&id, &uid, Pins::new(), world.now);
    world.desired.images_ended(
        &id,
        &uid,
        Err(trouble(Stage::Pull, "ErrImagePull", "broken")),
        world.now,
    );
    assert_eq!(world.ready("hello-00001"), "False ErrImagePull broken");
    assert_eq!(world.snapshot(), None);
}

#[test]
fn a_moved_tag_is_for_new_revisions_and_pins_survive_a_restart() {
    let mut world = World::new();
    world.apply("example.com/app:v1", "a");
    world.snapshot();
    world.pull(DIGEST);
    let first = ("hello-00001".to_owned(), format!("example.com/app:v1@{DIGEST}"));
    assert_eq!(world.snapshot(), Some(vec![first.clone()]));

    // Another annotation makes another revision, which asks anew; the first one serves on meanwhile.
    world.apply("example.com/app:v1", "b");
    assert_eq!(world.snapshot(), Some(vec![first.clone()]));
    let other = DIGEST.replace('0', "1");
    world.pull(&other);
    let second = ("hello-00002".to_owned(), format!("example.com/app:v1@{other}"));
    assert_eq!(world.snapshot(), Some(vec![first, second]));

    let saved = world.desired.pulls().saved();
    for (mark, pinned) in [("b", Some(&other)), ("c", None)] {
        let mut next = World::new();
        next.desired.restore_pins(saved.clone());
        next.apply("example.com/app:v1", mark);
        next.snapshot();
        let (_, _, pins) = next.job();
        assert_eq!(pins.get("example.com/app:v1"), pinned, "{mark}");
    }
}

#[test]
fn what_changes_around_a_revision_does_not_pull_it_again() {
    let mut world = World::new();
    world.apply("example.com/app:v1", "a");
    world.snapshot();
    world.pull(DIGEST);
    let pinned = vec![("hello-00001".to_owned(), format!("example.com/app:v1@{DIGEST}"))];
    assert_eq!(world.snapshot().as_ref(), Some(&pinned));
    // As after a change of a ConfigMap: everything is checked anew.
    world.desired.checked.clear();
    world.desired.published = None;
    assert_eq!(world.snapshot().as_ref(), Some(&pinned));
    assert!(world.desired.due_pulls(world.now).is_empty());
}

/// A revision of an earlier template serves on with its claim until the routes have left it, whatever becomes of the claim.
#[test]
fn a_deleted_claim_does_not_end_the_revisions_that_have_it() {
    let features = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-features, namespace: knative-serving}\ndata: \
                    {kubernetes.podspec-persistent-volume-claim: enabled}\n";
    let claim = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: \
                 [ReadOnlyMany]}\n";
    let service = |volumes: &str| {
        format!(
            "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: hello}}\nspec: {{template: {{spec: \
             {{containers: [{{image: 'host:/bin/app'{}}}]{volumes}}}}}}}\n",
            if volumes.is_empty() {
                ""
            } else {
                ", volumeMounts: [{name: v, mountPath: /v, readOnly: true}]"
            }
        )
    };
    let with = service(", volumes: [{name: v, persistentVolumeClaim: {claimName: data, readOnly: true}}]");
    let mut world = World::new();
    let mut previous = None;
    for (text, there, revisions) in [
        (format!("{features}{claim}{with}"), 1, &["hello-00001"][..]),
        (format!("{features}{with}"), 0, &["hello-00001"]),
        (format!("{features}{}", service("")), 0, &["hello-00001", "hello-00002"]),
    ] {
        let name = "all.yaml".into();
        let checked = bundle::bundle(&[Input { name, text }], previous.as_ref());
        assert!(checked.problems.is_empty(), "{:?}", checked.problems);
        world.desired.apply(&checked.bundle, world.now);
        assert_eq!(world.desired.claims().count(), there);
        let known: Vec<String> = world.snapshot().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(known, revisions);
        previous = Some(checked.bundle);
    }
}
