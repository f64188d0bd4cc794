//! What apps reach over the network when the whole of Knarr serves them.

use sandbox::test_support::outside;
use serde_json::Value;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Client, Knarr, Place, has_python, is_root, until};

/// A Knarr with a prober and a callee that has gone to zero.
fn with_prober(flags: &[&str], config: Option<&str>, annotations: &[(&str, &str)]) -> Knarr {
    let place = Place::new();
    if let Some(egress) = config {
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-sandbox, namespace: knative-serving}}\n\
             data: {{egress: \"{egress}\"}}\n"
        );
        place.write("config-sandbox.yaml", &map);
    }
    let program = place.program("probe.py", include_str!("probe.py"));
    let mut probe = service("probe").program(&format!("host:{}", program.display()), &[]);
    for (key, value) in annotations {
        probe = probe.with(key, value);
    }
    for (name, text) in [
        SHORT_WINDOWS,
        ("probe.yaml", &probe.yaml()),
        ("callee.yaml", &service("callee").env("TARGET", "called").yaml()),
    ] {
        place.write(name, text);
    }
    Knarr::at(&place, flags)
}

fn tried(knarr: &Knarr, what: &str) -> Value {
    let mut reply = knarr.get("probe", what);
    // The routes come a moment after the status.
    let served = || {
        if reply.status == 503 {
            reply = knarr.get("probe", what);
        }
        reply.status != 503
    };
    until("the prober answers", served, String::new);
    reply.json()
}

#[test]
fn an_app_calls_another_by_name_and_wakes_it_from_zero() {
    if !(is_root() && has_python()) {
        return;
    }
    let knarr = with_prober(&[], None, &[]);
    assert_eq!(knarr.revision("callee-00001").sandboxes.len(), 0, "at zero");
    for name in [
        "callee",
        "callee.default",
        "callee.default.svc",
        "callee.default.svc.cluster.local",
    ] {
        let answer = tried(&knarr, &format!("/get?http://{name}/"));
        assert!(answer["ok"].is_string(), "{name}: {answer}");
    }
    let callee = knarr.revision("callee-00001");
    assert_eq!(
        (callee.requests.success, callee.cold_starts.count),
        (4, 1),
        "{callee:?}"
    );
    // The caller has no egress, and nobody else has a name.
    for (what, error) in [
        ("/name?example.com", "Name or service not known"),
        ("/name?other.default.svc", "Name or service not known"),
        ("/dial?8.8.8.8:53", "Connection refused"),
        ("/dial?169.254.169.254:80", "Connection refused"),
        ("/dial?2001:db8::1:443", "Connection refused"),
    ] {
        assert_eq!(tried(&knarr, what)["error"], error, "{what}");
    }
    let probe = knarr.revision("probe-00001");
    assert_eq!(
        (probe.egress.to_services, probe.egress.denied),
        (4, 3),
        "{:?}",
        probe.egress
    );
    let metrics = Client::connect(knarr.admin).get("localhost", "/metrics").text();
    let wanted = "knarr_egress_connections_total{namespace=\"default\",revision=\"probe-00001\",result=\"denied\"} 3";
    assert!(metrics.contains(wanted), "{metrics}");
}

#[test]
fn egress_is_the_servers_unless_the_manifest_says() {
    if !(is_root() && has_python() && outside::has_ip()) {
        return;
    }
    let outside = outside::Outside::new();
    let there = format!("/dial?{}:{}", outside.there, outside::ECHO);
    let listed = format!("{}:{}", outside.there, outside::ECHO);
    let own_list = [
        ("knarr.dev/egress", "allow-list"),
        ("knarr.dev/egress-allow", listed.as_str()),
    ];
    for (flags, config, annotations, connects) in [
        (&["--egress", "full"][..], None, &[][..], true),
        (&["--egress", &listed], None, &[], true),
        (&["--egress", "10.255.0.0/16"], None, &[], false),
        (&["--egress", "full"], None, &[("knarr.dev/egress", "none")], false),
        (&[], None, &own_list, true),
        // The ConfigMap stands between them.
        (&[], Some(listed.as_str()), &[], true),
        (&["--egress", "full"], Some("none"), &[], false),
        (&[], Some("none"), &own_list, true),
    ] {
        let knarr = with_prober(flags, config, annotations);
        let answer = tried(&knarr, &there);
        let what = format!("{flags:?} {config:?} {annotations:?}: {answer}");
        if connects {
            assert_eq!(answer["ok"], "connected", "{what}");
        } else {
            assert_eq!(answer["error"], "Connection refused", "{what}");
        }
        // Knarr's own listeners, by an address of this host that other machines know.
        let gateway = knarr.gateway.port();
        let answer = tried(&knarr, &format!("/dial?{}:{gateway}", outside.host));
        assert_eq!(answer["error"], "Connection refused", "{what}");
        let egress = knarr.revision("probe-00001").egress;
        let wanted = (u64::from(connects), 1 + u64::from(!connects), 0);
        assert_eq!((egress.connected, egress.denied, egress.failed), wanted, "{what}");
    }
}
