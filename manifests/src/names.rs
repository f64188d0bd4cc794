//! Names that Knative derives from other names, byte for byte.

use md5::{Digest, Md5};

/// The longest name of a Kubernetes object that is also a DNS label.
const LONGEST: usize = 63;
/// What is left of a name beside the 32 digits of its MD5 sum.
const HEAD: usize = LONGEST - 32;

/// `parent` + `suffix`, shortened to 63 bytes with an MD5 sum where it would be longer (Knative: `kmeta.ChildName`).
pub fn child_name(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= LONGEST {
        return format!("{parent}{suffix}");
    }
    if suffix.len() < HEAD {
        return format!("{}{}{suffix}", prefix(parent, HEAD - suffix.len()), md5_hex(parent));
    }
    let mut name = format!("{}{}", prefix(parent, HEAD), md5_hex(&format!("{parent}{suffix}")));
    let left = LONGEST - name.len();
    name.push_str(prefix(suffix, left));
    name.truncate(name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
    name
}

/// The Revision that a Configuration makes at `generation`, unless its template is named.
pub fn revision(configuration: &str, generation: u64) -> String {
    child_name(configuration, &format!("-{generation:05}"))
}

/// The Deployment of a Revision.
pub fn revision_deployment(revision: &str) -> String {
    child_name(revision, "-deployment")
}

/// The cached Image of a Revision.
pub fn revision_image_cache(revision: &str) -> String {
    child_name(revision, "-cache")
}

/// The PodAutoscaler of a Revision, and its ServerlessService.
pub fn revision_pod_autoscaler(revision: &str) -> String {
    revision.to_owned()
}

/// The private Kubernetes Service of a ServerlessService.
pub fn private_service(serverless_service: &str) -> String {
    child_name(serverless_service, "-private")
}

/// The placeholder Kubernetes Service of a Route.
pub fn route_service(route: &str) -> String {
    route.to_owned()
}

/// The host name of a Route's placeholder Service inside the cluster.
pub fn route_service_host(route: &str, namespace: &str) -> String {
    format!(
        "{}.{namespace}.svc.{}",
        route_service(route),
        crate::domains::CLUSTER_DOMAIN
    )
}

/// The Ingress of a Route.
pub fn route_ingress(route: &str) -> String {
    route.to_owned()
}

/// The Certificate of a Route, named by the Route's uid.
pub fn route_certificate(route_uid: &str) -> String {
    format!("route-{route_uid}")
}

/// The Certificate of a wildcard host: `*.ns.example.com` gives `ns.example.com`.
pub fn wildcard_certificate(dns_name: &str) -> String {
    dns_name.strip_prefix("*.").unwrap_or(dns_name).to_owned()
}

/// At most `length` bytes; names are ASCII, so the character boundary only guards against bad callers.
fn prefix(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}

/// A UUID made of names, the same for the same names (RFC 9562 section 5.3).
pub fn uuid(names: &[&str]) -> String {
    let mut bytes: [u8; 16] = Md5::digest(names.join("/")).into();
    bytes[6] = bytes[6] & 0x0f | 0x30;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_of_names() {
        // md5sum of "a/b", with version 3 and variant 10.
        let want = Md5::digest("a/b");
        let uuid = uuid(&["a", "b"]);
        assert_eq!(uuid.len(), 36);
        assert!(uuid.starts_with(&format!("{:02x}{:02x}", want[0], want[1])), "{uuid}");
        assert_eq!(&uuid[14..15], "3");
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        assert_ne!(uuid, super::uuid(&["a", "c"]));
    }
}
