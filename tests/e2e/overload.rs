//! More than the queue takes: refused at once, in so much memory and no more.

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::processes::resident_kib;
use crate::support::{Client, Knarr, Place, host};

const QUEUE: usize = 500;
const REFUSED: usize = 100_000;
const CLIENTS: usize = 4;

#[test]
fn what_does_not_fit_the_queue_is_refused_and_costs_no_memory() {
    let place = Place::new();
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write(
        "full.yaml",
        &service("full").concurrency(1).with("max-scale", "1").yaml(),
    );
    let config = place.path("knarr.toml");
    std::fs::write(
        &config,
        format!("drain-timeout = '100ms'\n[queue]\nrequests = {QUEUE}\n"),
    )
    .unwrap();
    let knarr = Knarr::at(&place, &["--config", config.to_str().unwrap()]);

    // One runs, all others of these wait; they would for minutes.
    let mut waiting: Vec<Client> = (0..=QUEUE).map(|_| knarr.client()).collect();
    for client in &mut waiting {
        client.send(&host("full"), "/sleep?ms=280000", &[]);
    }
    knarr.until_revision("full-00001", "has a full queue", |it| it.waiting == QUEUE as u64);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| knarr.client()).collect();
    let full = resident_kib(knarr.pid());

    let refused: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            std::thread::spawn(move || {
                for _ in 0..REFUSED / CLIENTS {
                    let reply = client.get(&host("full"), "/");
                    assert_eq!(reply.status, 503, "{reply:?}");
                    assert_eq!(reply.text(), "pending request queue full\n");
                    assert_eq!(reply.header("retry-after"), Some("1"));
                }
            })
        })
        .collect();
    for client in refused {
        client.join().unwrap();
    }
    let after = resident_kib(knarr.pid());
    eprintln!("resident: {full} KiB at full queue, {after} KiB after {REFUSED} refusals");
    assert!(
        after <= full + full / 20,
        "{after} KiB after {REFUSED} refusals, {full} KiB before"
    );
    let it = knarr.revision("full-00001");
    assert_eq!((it.waiting, it.in_flight), (QUEUE as u64, QUEUE as u64 + 1));
    assert!(it.requests.server_error >= REFUSED as u64, "{it:?}");
}
