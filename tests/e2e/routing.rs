//! Which host leads where.

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Client, Knarr};

/// Two Configurations under one Route, with tags.
const SPLIT: &str = "
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {name: blue}
spec: {template: {spec: {containers: [{image: 'host:knarr', args: [workload], env: [{name: TARGET, value: blue}]}]}}}
---
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {name: green}
spec: {template: {spec: {containers: [{image: 'host:knarr', args: [workload], env: [{name: TARGET, value: green}]}]}}}
---
apiVersion: serving.knative.dev/v1
kind: Route
metadata: {name: shop}
spec:
  traffic:
    - {configurationName: blue, percent: 90, tag: stable}
    - {configurationName: green, percent: 10, tag: next}
    - {configurationName: blue, percent: 0, tag: spare}
";

#[test]
fn shares_and_tags() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("split.yaml", SPLIT)]);
    let report = knarr.burst("shop", "/", 600).report();
    assert_eq!(report.count(200), 600, "{report}");
    let served = |revision: &str| knarr.revision(revision).requests.success;
    let (blue, green) = (served("blue-00001"), served("green-00001"));
    // 60 expected, with a standard deviation of 7: this fails by chance once in a million runs.
    assert!(blue + green == 600 && (23..=97).contains(&green), "{blue} : {green}");

    for (tag, target) in [("stable", "blue"), ("next", "green"), ("spare", "blue")] {
        for _ in 0..10 {
            let reply = knarr.get(&format!("{tag}-shop.default"), "/");
            assert!(reply.status == 200 && reply.text().contains(target), "{tag}: {reply:?}");
        }
    }
    assert_eq!(knarr.get("other-shop.default", "/").status, 404);
    let routes = knarr.status().routes;
    let shares: Vec<_> = routes[0]
        .traffic
        .iter()
        .map(|it| (it.percent, it.tag.as_str(), it.revision.as_str()))
        .collect();
    assert_eq!(
        shares,
        [
            (90, "stable", "blue-00001"),
            (10, "next", "green-00001"),
            (0, "spare", "blue-00001")
        ]
    );
    let port = knarr.gateway.port();
    assert_eq!(
        routes[0].traffic[1].url,
        format!("http://next-shop.default.localhost:{port}")
    );
}

#[test]
fn every_way_to_write_a_host() {
    let domain = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-domain, namespace: knative-serving}\n\
                  data: {apps.example.com: ''}\n";
    let text = service("web").yaml()
        + &service("web")
            .yaml()
            .replace("name: web", "name: web\n  namespace: team");
    let knarr = Knarr::serve_with(
        &[SHORT_WINDOWS, ("domain.yaml", domain), ("web.yaml", &text)],
        &["--listen", "[::1]:0"],
    );
    let mut client = knarr.client();
    for (namespace, other) in [("default", "team"), ("team", "default")] {
        for host in [
            format!("web.{namespace}.apps.example.com"),
            format!("web.{namespace}.apps.example.com:8080"),
            format!("WEB.{namespace}.Apps.Example.Com"),
            format!("web.{namespace}.localhost"),
            format!("web.{namespace}.localhost:{}", knarr.gateway.port()),
            format!("web.{namespace}.svc.cluster.local"),
            format!("web.{namespace}.svc"),
            format!("web.{namespace}"),
        ] {
            let reply = client.ask(&host, "/echo", &[]);
            assert_eq!(reply.status, 200, "{host}: {reply:?}");
        }
        let total = |namespace: &str| {
            let status = knarr.status();
            status
                .revisions
                .iter()
                .find(|it| it.namespace == namespace)
                .unwrap()
                .requests
                .total
        };
        assert_eq!(total(namespace), 8);
        assert!(matches!(total(other), 0 | 8));
    }
    for host in [
        "web",
        "web.default.example.com",
        "web.nowhere.localhost",
        "apps.example.com",
        "127.0.0.1",
        "x.web.default.localhost",
    ] {
        assert_eq!(client.get(host, "/").status, 404, "{host}");
    }
    assert_eq!(
        knarr.service("web").url,
        format!("http://web.default.apps.example.com:{}", knarr.gateway.port())
    );

    // IPv6, and the second address of the greeting.
    let status = knarr.status();
    let v6 = status
        .listen
        .iter()
        .find(|address| address.starts_with("[::1]:"))
        .unwrap();
    assert_eq!(
        Client::connect(v6.parse().unwrap())
            .get("web.team.localhost", "/")
            .status,
        200
    );
}
