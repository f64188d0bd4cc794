//! What instances cost: said by a ConfigMap, by name or by file, and changed while Knarr runs.

use crate::support::Knarr;
use crate::support::manifest::{SHORT_WINDOWS, service};

/// A catalogue with one spec, at this price an hour.
fn catalogue(price: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-instances, namespace: knative-serving}}\ndata:\n  specs: |\n    \
         - {{name: full, price: {price}/h}}\n"
    )
}

#[test]
fn prices_are_the_catalogues_and_change_with_it() {
    let web = service("web").proven().with("min-scale", "1").yaml();
    let files = [SHORT_WINDOWS, ("web.yaml", &web), ("instances.yaml", &catalogue("2"))];
    let knarr = Knarr::serve(&files);
    knarr.until_revision("web-00001", "costs 2", |it| it.price_per_hour == 2.0);
    knarr.place().write("instances.yaml", &catalogue("3"));
    knarr.until_revision("web-00001", "costs 3", |it| it.price_per_hour == 3.0);
    // What is wrong is said, and what was right stays.
    knarr.place().write("instances.yaml", &catalogue("-4"));
    let wrong = "data.specs[0].price: invalid value: -4/h: it is negative";
    knarr.until("the mistake is said", |status| {
        status.warnings.iter().any(|warning| warning.contains(wrong))
    });
    assert_eq!(knarr.revision("web-00001").price_per_hour, 3.0);
}

#[test]
fn a_catalogue_is_named_or_a_file() {
    let web = service("web").proven().with("min-scale", "1").yaml();
    let files = [SHORT_WINDOWS, ("web.yaml", &web[..])];
    let knarr = Knarr::serve_with(&files, &["--instances", "eci"]);
    // 2 vCPU and 4 GiB, which a pod gets there that asks for nothing.
    knarr.until_revision("web-00001", "costs what it would there", |it| {
        (it.price_per_hour - 0.441_072).abs() < 1e-9
    });
    knarr.stop();

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prices.yaml");
    std::fs::write(&file, catalogue("5")).unwrap();
    let knarr = Knarr::serve_with(&files, &["--instances", file.to_str().unwrap()]);
    knarr.until_revision("web-00001", "costs 5", |it| it.price_per_hour == 5.0);
    std::fs::write(&file, catalogue("6")).unwrap();
    knarr.until_revision("web-00001", "costs 6", |it| it.price_per_hour == 6.0);
}

/// `config-planner` holds for who says nothing, also for what runs already; without it all is as in Knative.
#[test]
fn the_clusters_defaults_change_while_it_runs() {
    let planner = |idle: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-planner, namespace: knative-serving}}\ndata:\n  idle: {idle}\n  \
             freeze-delay: 0s\n"
        )
    };
    let (web, own) = (
        service("web").proven(),
        service("own").proven().with("knarr.dev/idle", "knative"),
    );
    let text = web.yaml() + &own.yaml();
    let knarr = Knarr::serve(&[
        SHORT_WINDOWS,
        ("apps.yaml", &text),
        ("planner.yaml", &planner("frozen")),
    ]);
    knarr.until_revision("web-00001", "is frozen by default", |it| it.rung == "frozen");
    knarr.until_zero("own-00001");
    assert_eq!(knarr.revision("own-00001").rung, "zero", "it has a word of its own");
    knarr.place().write("planner.yaml", &planner("keep"));
    assert_eq!(knarr.get("web", "/").status, 200);
    knarr.until_revision("web-00001", "runs", |it| it.rung == "full");
    std::fs::remove_file(knarr.place().manifests().join("planner.yaml")).unwrap();
    knarr.until_revision("web-00001", "goes to zero as in Knative", |it| it.rung == "zero");
}
