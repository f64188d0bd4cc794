//! PersistentVolumeClaims from outside: one writer at a time through a roll-out under load, kept by a restart, gone with the
//! object and not before the last sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{self, Knarr, Place, host};

const ALLOWED: (&str, &str) = (
    "config-features.yaml",
    "apiVersion: v1
kind: ConfigMap
metadata: {name: config-features, namespace: knative-serving}
data:
  kubernetes.podspec-persistent-volume-claim: enabled
  kubernetes.podspec-persistent-volume-write: enabled
",
);

const CLAIM: (&str, &str) = (
    "claim.yaml",
    "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: notes}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
",
);

/// The workload app, with a journal in the claim that one process at a time may have.
fn app(args: &[&str]) -> String {
    let args: Vec<String> = ["workload", "--journal", "/notes/journal"]
        .iter()
        .chain(args)
        .map(|arg| format!("{arg:?}"))
        .collect();
    format!(
        "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: app}}
spec:
  template:
    spec:
      timeoutSeconds: 30
      volumes: [{{name: notes, persistentVolumeClaim: {{claimName: notes}}}}]
      containers:
        - image: 'host:knarr'
          args: [{}]
          volumeMounts: [{{name: notes, mountPath: /notes}}]
",
        args.join(", ")
    )
}

fn journal(place: &Place) -> std::path::PathBuf {
    place.data().join("sandboxes/volumes/default/notes/journal")
}

/// Writes without a pause from four clients, until it is told to stop; what was written, by its number.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Vec<u64>>>,
}

impl Writers {
    fn begin(knarr: &Knarr) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let threads = (0..4).map(|_| {
            let (stop, next, mut client) = (Arc::clone(&stop), Arc::clone(&next), knarr.client());
            thread::spawn(move || {
                let mut written = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let reply = client.get(&host("app"), &format!("/write?id={id}"));
                    assert_eq!(reply.status, 200, "{reply:?}");
                    written.push(id);
                    thread::sleep(Duration::from_millis(2));
                }
                written
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    fn end(self) -> BTreeSet<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|it| it.join().unwrap()).collect()
    }
}

/// The lines of the journal: (revision, sandbox, number), in order.
fn lines(place: &Place) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(journal(place)).unwrap();
    let line = |line: &str| {
        let [revision, sandbox, id] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let [revision, sandbox, id]: [&str; 3] = [revision, sandbox, id];
        (revision.to_owned(), sandbox.to_owned(), id.to_owned())
    };
    text.lines().map(line).collect()
}

/// Every number once, by one process after the other.
fn assert_one_writer_at_a_time(place: &Place, wanted: &BTreeSet<u64>) {
    let lines = lines(place);
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    let mut writers: Vec<&str> = Vec::new();
    for (_, sandbox, id) in &lines {
        assert_ne!(id, "overlap", "{sandbox} has found another writer");
        *found.entry(id.parse().unwrap()).or_default() += 1;
        if writers.last() != Some(&sandbox.as_str()) {
            assert!(
                !writers.contains(&sandbox.as_str()),
                "{sandbox} writes after another: {writers:?}"
            );
            writers.push(sandbox);
        }
    }
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), *wanted);
}

#[test]
fn revisions_of_a_service_have_a_claim_one_after_the_other_under_load() {
    if !support::is_root() {
        return;
    }
    let knarr = Knarr::serve(&[ALLOWED, CLAIM, ("app.yaml", &app(&[]))]);
    let writers = Writers::begin(&knarr);
    knarr.until("the first one writes", |_| journal(knarr.place()).exists());
    for (nth, delay) in [(2, "20ms"), (3, "400ms")] {
        knarr.place().write("app.yaml", &app(&["--start-delay", delay]));
        let name = format!("app-0000{nth}");
        knarr.until(&format!("{name} writes"), |status| {
            let ready = status.services[0].latest_ready == name;
            ready
                && lines(knarr.place())
                    .last()
                    .is_some_and(|(revision, ..)| *revision == name)
        });
    }
    // One that fails is told, and what was there before it goes on.
    knarr.place().write("app.yaml", &app(&["--fail-start", "3"]));
    knarr.until("the fourth one has failed", |status| {
        status.services[0].ready.status == "False"
    });
    let before = lines(knarr.place()).len();
    knarr.until("the third one writes again", |_| {
        let lines = lines(knarr.place());
        lines.len() > before + 20 && lines.last().is_some_and(|(revision, ..)| revision == "app-00003")
    });
    let written = writers.end();
    assert!(written.len() > 100);
    assert_one_writer_at_a_time(knarr.place(), &written);
}

#[test]
fn what_was_claimed_outlives_a_restart_and_goes_with_its_claim_but_not_under_a_sandbox() {
    if !support::is_root() {
        return;
    }
    let knarr = Knarr::serve(&[ALLOWED, CLAIM, ("app.yaml", &app(&[]))]);
    let place = Arc::clone(knarr.place());
    assert_eq!(knarr.get("app", "/write?id=1").status, 200);
    knarr.stop();
    let knarr = Knarr::at(&place, &[]);
    assert_eq!(knarr.get("app", "/write?id=2").status, 200);
    assert_one_writer_at_a_time(&place, &BTreeSet::from([1, 2]));
    // Its file goes while a sandbox has it: that one serves on.
    fs::remove_file(place.manifests().join(CLAIM.0)).unwrap();
    let told = "PersistentVolumeClaim default/notes was deleted";
    knarr.until("the status says so", |status| {
        status.warnings.iter().any(|it| it.contains(told))
    });
    assert_eq!(knarr.get("app", "/write?id=3").status, 200);
    assert_eq!(knarr.service("app").ready.status, "True");
    // Nor is it lost when Knarr is killed meanwhile: the next one goes on where this one was.
    assert!(journal(&place).exists());
    fs::remove_file(place.manifests().join("app.yaml")).unwrap();
    support::until("its directory is gone", || !journal(&place).exists(), || knarr.errors());
    support::until(
        "nothing is left of it",
        || {
            fs::read_dir(place.data().join("sandboxes/volumes"))
                .unwrap()
                .flatten()
                .all(|it| it.file_name() == ".deleted")
        },
        || knarr.errors(),
    );
    // A new one of that name is empty.
    place.write(CLAIM.0, CLAIM.1);
    place.write("app.yaml", &app(&[]));
    knarr.until("it is served again", |status| status.services.len() == 1);
    knarr.until_ready();
    assert_eq!(knarr.get("app", "/write?id=4").status, 200);
    assert_one_writer_at_a_time(&place, &BTreeSet::from([4]));
}

#[test]
fn more_replicas_than_a_claim_allows_are_refused_with_the_way_out() {
    let place = Place::new();
    let text = app(&[]).replace(
        "  template:\n",
        "  template:\n    metadata: {annotations: {autoscaling.knative.dev/max-scale: '2'}}\n",
    );
    for (name, text) in [ALLOWED, CLAIM, ("app.yaml", text.as_str())] {
        place.write(name, text);
    }
    let manifests = place.manifests();
    let output = support::Output::of(place.knarr(&["check", manifests.to_str().unwrap()]));
    assert_eq!(output.code, Some(1), "{output:?}");
    for wanted in [
        "autoscaling.knative.dev/max-scale",
        "is more than 1 with PersistentVolumeClaim default/notes, which one sandbox may have",
        "write accessModes: [ReadWriteMany] in the claim if the app can share it",
    ] {
        assert!((output.out.clone() + &output.err).contains(wanted), "{output:?}");
    }
}
