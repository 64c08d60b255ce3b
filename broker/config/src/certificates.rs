//! Options of certificates: which belong together.
//!
//! Not here: reading the files (`broker/node`), what certificates must look like (`broker/auth`).

use std::path::Path;

use crate::NodeConfig;

impl NodeConfig {
    /// Certificate options that lack one which belongs to them.
    pub(crate) fn certificates_apart(&self) -> Vec<String> {
        let own: &[(&str, &Path)] = &[
            ("tls_authority", &self.tls_authority),
            ("tls_certificate", &self.tls_certificate),
            ("tls_key", &self.tls_key),
        ];
        let front: &[(&str, &Path)] =
            &[("front_certificate", &self.front_certificate), ("front_key", &self.front_key)];
        let is_set = |option: &&(&str, &Path)| !option.1.as_os_str().is_empty();
        let mut errors = Vec::new();
        for options in [own, front] {
            let Some((set, path)) = options.iter().find(is_set) else { continue };
            for (missing, _) in options.iter().filter(|option| !is_set(option)) {
                errors.push(format!(
                    "{missing} is empty: {set} = {} needs it, name its file or leave both out",
                    path.display()
                ));
            }
        }
        errors
    }

    /// Whether certificates come from an own PKI instead of the cluster's authority.
    pub fn has_own_pki(&self) -> bool {
        !self.tls_authority.as_os_str().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificate, key and authority come together, so do certificate and key of the fronts; the list
    /// stands alone. What is missing is named with what needs it.
    #[test]
    fn certificates_come_together() {
        for (given, missing) in [
            (&["tls_authority", "tls_certificate", "tls_key"][..], &[][..]),
            (&["front_certificate", "front_key"], &[]),
            (&["tls_crl"], &[]),
            (&["tls_certificate", "tls_key"], &["tls_authority"]),
            (&["tls_authority"], &["tls_certificate", "tls_key"]),
            (&["front_key", "tls_crl"], &["front_certificate"]),
        ] {
            let text: String = given.iter().map(|key| format!("{key} = \"/pki/{key}\"\n")).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let config = NodeConfig::load(Some(file.path()), []).unwrap();
            let errors = config.validate().err().map(|errors| errors.0).unwrap_or_default();
            let begins: Vec<&str> =
                errors.iter().map(|error| error.split(' ').next().unwrap_or_default()).collect();
            assert_eq!(begins, missing, "{given:?}: {errors:?}");
            assert!(errors.iter().all(|error| error.contains(given[0]) && error.contains("/pki/")));
            assert_eq!(config.has_own_pki(), given.contains(&"tls_authority"));
        }
    }
}
