//! Names as Kubernetes checks them, with its messages (Kubernetes: `apimachinery/pkg/util/validation`).

use super::go::quote;

const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_1123: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_1123: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Why `name` is not a DNS-1035 label; empty when it is one (Kubernetes: IsDNS1035Label).
pub(super) fn dns1035_label(name: &str) -> Vec<String> {
    let mut reasons = too_long(name, 63);
    if !(is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
                       start with an alphabetic character, and end with an alphanumeric character";
        reasons.push(mismatch(message, LABEL_1035, &["my-name", "abc-123"]));
    }
    reasons
}

/// The same for what `generateName` holds: it may end with a dash (Kubernetes: NameIsDNS1035Label with prefix).
pub(super) fn dns1035_prefix(prefix: &str) -> Vec<String> {
    match prefix.strip_suffix('-') {
        // The last two characters are replaced by a letter, so that even "--" at the end is fine.
        Some(rest) if !rest.is_empty() => {
            let cut = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            dns1035_label(&format!("{}a", &rest[..cut]))
        }
        _ => dns1035_label(prefix),
    }
}

/// Why `name` is not a DNS-1123 label (Kubernetes: IsDNS1123Label).
pub(crate) fn dns1123_label(name: &str) -> Vec<String> {
    let mut reasons = too_long(name, 63);
    if !is_label(name) {
        reasons.push(if is_subdomain(name) {
            "must not contain dots".to_owned()
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                           and must start and end with an alphanumeric character";
            mismatch(message, LABEL_1123, &["my-name", "123-abc"])
        });
    }
    reasons
}

/// Why `name` is not a DNS-1123 subdomain (Kubernetes: IsDNS1123Subdomain).
pub(crate) fn dns1123_subdomain(name: &str) -> Vec<String> {
    let mut reasons = too_long(name, 253);
    if !is_subdomain(name) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                       and must start and end with an alphanumeric character";
        reasons.push(mismatch(message, SUBDOMAIN_1123, &["example.com"]));
    }
    reasons
}

/// Why `name` is not a qualified name, with or without `prefix/` (Kubernetes: IsQualifiedName).
pub(super) fn qualified_name(name: &str) -> Vec<String> {
    let mismatch = || mismatch(QUALIFIED_MESSAGE, QUALIFIED, &["MyName", "my.name", "123-abc"]);
    let mut reasons = Vec::new();
    let part = match name.split_once('/') {
        None => name,
        Some((_, rest)) if rest.contains('/') => {
            let suffix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {} {suffix}", mismatch())];
        }
        Some(("", part)) => {
            reasons.push("prefix part must be non-empty".to_owned());
            part
        }
        Some((prefix, part)) => {
            reasons.extend(
                dns1123_subdomain(prefix)
                    .iter()
                    .map(|reason| format!("prefix part {reason}")),
            );
            part
        }
    };
    if part.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else {
        reasons.extend(too_long(part, 63).iter().map(|reason| format!("name part {reason}")));
    }
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let middle = part
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !(ends(part.chars().next()) && ends(part.chars().next_back()) && middle) {
        reasons.push(format!("name part {}", mismatch()));
    }
    reasons
}

/// Why `name` is not a domain of two or more labels, in the words of a field called `name`
/// (Kubernetes: IsFullyQualifiedDomainName).
pub(super) fn domain_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("name: Required value".to_owned());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let wrong = |value: &str, reasons: &str| Some(format!("name: Invalid value: {}: {reasons}", quote(value)));
    let reasons = dns1123_subdomain(name);
    if !reasons.is_empty() {
        return wrong(name, &reasons.join(","));
    }
    if !name.contains('.') {
        return wrong(name, "should be a domain with at least two segments separated by dots");
    }
    name.split('.').find_map(|label| {
        let reasons = dns1123_label(label);
        if reasons.is_empty() {
            None
        } else {
            wrong(label, &reasons.join(","))
        }
    })
}

fn is_label(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(allowed) && name.ends_with(allowed) && name.chars().all(|c| allowed(c) || c == '-')
}

fn is_subdomain(name: &str) -> bool {
    name.split('.').all(is_label)
}

fn too_long(name: &str, most: usize) -> Vec<String> {
    if name.len() > most {
        vec![format!("must be no more than {most} characters")]
    } else {
        Vec::new()
    }
}

/// Kubernetes: RegexError.
fn mismatch(message: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_labels() {
        let long = "a".repeat(63);
        for name in ["a", "a-b", "a--b", "a1", &long] {
            assert_eq!(dns1035_label(name), Vec::<String>::new(), "{name}");
        }
        for name in ["", "1a", "A", "a-", "-a", "a.b", "a_b", "é"] {
            assert_eq!(dns1035_label(name).len(), 1, "{name}");
        }
        assert_eq!(dns1035_label(&format!("{long}A")).len(), 2);
        for (prefix, reasons) in [
            ("a-", 0),
            ("ab-", 0),
            ("a--", 0),
            ("-", 1),
            ("a.", 1),
            ("1-", 0),
            ("a.-", 0),
            ("é-", 0),
            ("A-", 0),
            ("Ab-", 1),
        ] {
            assert_eq!(dns1035_prefix(prefix).len(), reasons, "{prefix}");
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    }

    #[test]
    fn edges_of_qualified_names_and_domains() {
        for (name, reasons) in [
            ("a", 0),
            ("A_b.c-1", 0),
            ("x.y/Z", 0),
            ("", 2),
            ("/a", 1),
            ("a/", 2),
            ("a/b/c", 1),
            ("X/a", 1),
            ("-a", 1),
            ("a b", 1),
        ] {
            assert_eq!(qualified_name(name).len(), reasons, "{name}");
        }
        assert_eq!(qualified_name(&"a".repeat(64)).len(), 1);
        for (name, good) in [
            ("a.b", true),
            ("a.b.", true),
            ("a", false),
            ("a..b", false),
            ("*.a.b", false),
            ("", false),
        ] {
            assert_eq!(domain_name(name).is_none(), good, "{name}");
        }
    }
}
