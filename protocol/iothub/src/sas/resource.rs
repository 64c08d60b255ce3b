//! Does a token's resource hold the thing that its bearer asks for?
//!
//! Compared by path segment. Host and literal segments don't regard case, ids do. A scheme in front
//! (`sb://`, `amqps://`: the Event Hubs SDKs) and one trailing `/` are ignored.

use std::borrow::Cow;

use crate::names::Identity;

/// What a bearer asks for, below the host. Ids are as in the registry, not escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourcePath<'a> {
    /// The hub as a whole.
    Hub,
    /// A device (`devices/{d}`) or a module (`devices/{d}/modules/{m}`).
    Identity(Identity<'a>),
    /// Any other place, as segments joined by `/`, such as `twins/{d}` or `messages/events`.
    Path(&'a str),
}

impl<'a> ResourcePath<'a> {
    /// The place of a device.
    pub fn device(device: &'a str) -> ResourcePath<'a> {
        ResourcePath::Identity(Identity::of_device(device))
    }

    /// The place of a module.
    pub fn module(device: &'a str, module: &'a str) -> ResourcePath<'a> {
        ResourcePath::Identity(Identity::of_module(device, module))
    }

    /// The segment at `index`, and whether it is an id.
    fn segment(&self, index: usize) -> Option<(&'a str, bool)> {
        match *self {
            ResourcePath::Hub => None,
            ResourcePath::Identity(identity) => match index {
                0 => Some(("devices", false)),
                1 => Some((identity.device, true)),
                2 => identity.module.map(|_| ("modules", false)),
                3 => identity.module.map(|module| (module, true)),
                _ => None,
            },
            ResourcePath::Path(path) => {
                let path = path.strip_prefix('/').unwrap_or(path);
                let found = segments(path).nth(index)?;
                Some((found, is_id_in_path(path, index)))
            }
        }
    }
}

/// Ids follow the words `devices` or `twins`, and `modules` behind those.
fn is_id_in_path(path: &str, index: usize) -> bool {
    let word_is = |at: usize, words: &[&str]| {
        segments(path).nth(at).is_some_and(|word| words.iter().any(|w| word.eq_ignore_ascii_case(w)))
    };
    let of_device = word_is(0, &["devices", "twins"]);
    match index {
        1 => of_device,
        3 => of_device && word_is(2, &["modules"]),
        _ => false,
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_suffix('/').unwrap_or(path).split('/').take_while(move |_| !path.is_empty())
}

/// See [`SasToken::covers`](super::SasToken::covers). `resource` is decoded already.
pub(super) fn covers(resource: &str, hosts: &dyn Fn(&str) -> bool, path: &ResourcePath<'_>) -> bool {
    let resource = strip_scheme(resource);
    let (authority, prefix) = resource.split_once('/').unwrap_or((resource, ""));
    host_is_accepted(strip_port(authority), hosts)
        && segments(prefix).enumerate().all(|(index, wanted)| match path.segment(index) {
            Some((found, true)) => found == wanted,
            Some((found, false)) => found.eq_ignore_ascii_case(wanted),
            None => false,
        })
}

fn host_is_accepted(host: &str, hosts: &dyn Fn(&str) -> bool) -> bool {
    let lower = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    !lower.is_empty() && hosts(&lower)
}

fn strip_scheme(resource: &str) -> &str {
    match resource.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => rest,
        _ => resource,
    }
}

/// The host of `host[:port]`. An IPv6 address keeps its brackets.
pub(crate) fn strip_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_dropped() {
        for (authority, host) in [
            ("hub", "hub"),
            ("hub:8883", "hub"),
            ("hub:", "hub"),
            ("[::1]:8883", "[::1]"),
            ("[::1]", "[::1]"),
            ("hub:a", "hub:a"),
            ("", ""),
        ] {
            assert_eq!(strip_port(authority), host, "{authority}");
        }
    }
}
