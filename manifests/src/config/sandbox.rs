//! `config-sandbox`: what holds for every sandbox whose manifest does not say otherwise. Knarr's own; Knative has no such map.

use std::collections::BTreeMap;

use super::ConfigError;
use super::keys::Keys;
use crate::annotations::parse_egress_rules;
use crate::workload::Egress;

/// `config-sandbox`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SandboxConfig {
    /// `egress`: where apps may connect to, as in `knarr.dev/egress` and `knarr.dev/egress-allow`: `none`, `full`, or rules.
    /// `None` is the server's setting.
    pub egress: Option<Egress>,
}

impl SandboxConfig {
    /// Reads the map.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut keys = Keys::new(data);
        let egress = keys.value("egress", "", None, |text| egress(text).map(Some));
        keys.finish(Self { egress })
    }
}

/// `none`, `full`, or a list of destinations.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn egress(text: &str) -> Result<Egress, String> {
    match text.trim() {
        "none" => Ok(Egress::None),
        "full" => Ok(Egress::Full),
        rules => parse_egress_rules(rules).map(Egress::AllowList).map_err(|wrong| {
            format!("{wrong}; write none, full, or rules as NAME:PORT, *.NAME or NETWORK/PREFIX:PORT")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<Option<Egress>, Vec<String>> {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = SandboxConfig::from_data(&data.collect());
        config
            .map(|config| config.egress)
            .map_err(|errors| errors.iter().map(|error| format!("{error}; {}", error.hint)).collect())
    }

    #[test]
    fn egress_is_a_word_or_rules() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("egress", "none")]), Ok(Some(Egress::None)));
        assert_eq!(read(&[("egress", "full\n"), ("_example", "x")]), Ok(Some(Egress::Full)));
        let rules = read(&[("egress", "api.example.com:443\n10.0.0.0/8")]).unwrap();
        assert!(matches!(rules, Some(Egress::AllowList(rules)) if rules.len() == 2));
        let wrong = read(&[("egress", "a b:0"), ("egres", "full")]).unwrap_err();
        assert_eq!(
            wrong,
            [
                "data.egress: invalid value \"a b:0\"; invalid value: b:0: \"0\" is not a port, 1 to 65535; write none, \
                 full, or rules as NAME:PORT, *.NAME or NETWORK/PREFIX:PORT",
                "data.egres: unknown key; did you mean \"egress\"?"
            ]
        );
    }
}
