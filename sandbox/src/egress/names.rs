//! Which names are Knarr's own services, as Kubernetes names them. PURE.

/// The domain of every cluster that does not say otherwise (Kubernetes: `--cluster-domain`).
const CLUSTER: &str = "cluster.local";

/// What a name is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Name {
    /// A service, by its whole host name: `NAME.NAMESPACE.svc.cluster.local`.
    Service(String),
    /// Ours to know, and there is none.
    Missing,
    /// Somebody else's.
    Foreign,
}

/// Looks at a name in lower case without a final dot. `exists` knows the whole host names of services.
pub(super) fn look_up(name: &str, exists: impl Fn(&str) -> bool) -> Name {
    let service = |short: &str| {
        let host = format!("{short}.svc.{CLUSTER}");
        // NAME.NAMESPACE, both there.
        let two = short
            .split_once('.')
            .is_some_and(|(name, namespace)| !name.is_empty() && !namespace.is_empty() && !namespace.contains('.'));
        (two && exists(&host)).then_some(Name::Service(host))
    };
    let in_cluster = match name.strip_suffix(CLUSTER) {
        Some("") => return Name::Missing,
        Some(rest) => rest.strip_suffix('.'),
        None => None,
    };
    if let Some(rest) = in_cluster {
        return rest.strip_suffix(".svc").and_then(service).unwrap_or(Name::Missing);
    }
    if let Some(short) = name.strip_suffix(".svc") {
        return service(short).unwrap_or(Name::Missing);
    }
    match service(name) {
        Some(found) => found,
        // A top-level domain alone is nobody's host.
        None if !name.contains('.') => Name::Missing,
        None => Name::Foreign,
    }
}

/// What a sandbox of `namespace` has in its `/etc/resolv.conf`.
pub(crate) fn resolv_conf(namespace: &str) -> String {
    format!(
        "nameserver {}\nsearch {namespace}.svc.{CLUSTER} svc.{CLUSTER} {CLUSTER}\noptions ndots:1\n",
        super::DNS_ADDRESS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_three_names_and_nothing_else_is_in_the_cluster() {
        let exists = |host: &str| host == "hello.default.svc.cluster.local" || host == "x.com.svc.cluster.local";
        let hello = Name::Service("hello.default.svc.cluster.local".into());
        for (name, wanted) in [
            ("hello.default.svc.cluster.local", hello.clone()),
            ("hello.default.svc", hello.clone()),
            ("hello.default", hello),
            ("x.com", Name::Service("x.com.svc.cluster.local".into())),
            // What the search list makes of names of elsewhere.
            ("example.com.default.svc.cluster.local", Name::Missing),
            ("example.com.svc.cluster.local", Name::Missing),
            ("example.com.cluster.local", Name::Missing),
            ("hello.svc.cluster.local", Name::Missing),
            ("hello", Name::Missing),
            ("", Name::Missing),
            ("cluster.local", Name::Missing),
            ("svc.cluster.local", Name::Missing),
            ("other.default.svc", Name::Missing),
            (".default.svc", Name::Missing),
            ("hello..svc", Name::Missing),
            ("other.default", Name::Foreign),
            ("example.com", Name::Foreign),
            ("www.example.com", Name::Foreign),
            ("notcluster.local", Name::Foreign),
            ("a.notcluster.local", Name::Foreign),
        ] {
            assert_eq!(look_up(name, exists), wanted, "{name}");
        }
    }
}
