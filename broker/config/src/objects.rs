//! Where files that devices upload are kept: the data folder, another folder, or a store of objects.
//!
//! Only the place is named here. Endpoint, region and keys of a store come from the environment, so that
//! no secret is in a file or in what `--print-config` shows; `broker/node` reads them and says what is
//! missing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where uploaded files are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ObjectPlace {
    /// The folder `objects` in the data folder. Written as the empty text.
    #[default]
    Data,
    /// Another folder, like a mounted share. Written as `file:///path`.
    Folder(PathBuf),
    /// A bucket of a store that speaks S3. Written as `s3://bucket/prefix`.
    S3 {
        /// Its name.
        bucket: String,
        /// What every name in it begins with; empty: nothing.
        prefix: String,
    },
    /// A container of Azure's storage. Written as `azure://container/prefix`.
    Azure {
        /// Its name.
        container: String,
        /// What every name in it begins with; empty: nothing.
        prefix: String,
    },
}

impl fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, name, prefix) = match self {
            ObjectPlace::Data => return Ok(()),
            ObjectPlace::Folder(path) => return write!(f, "file://{}", path.display()),
            ObjectPlace::S3 { bucket, prefix } => ("s3", bucket, prefix),
            ObjectPlace::Azure { container, prefix } => ("azure", container, prefix),
        };
        write!(f, "{scheme}://{name}")?;
        match prefix.is_empty() {
            true => Ok(()),
            false => write!(f, "/{prefix}"),
        }
    }
}

impl FromStr for ObjectPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<ObjectPlace, String> {
        if text.is_empty() {
            return Ok(ObjectPlace::Data);
        }
        match text.split_once("://") {
            Some(("file", path)) => folder(path),
            Some(("s3", rest)) => {
                let (bucket, prefix) = name_and_prefix("bucket", is_bucket, rest)?;
                Ok(ObjectPlace::S3 { bucket, prefix })
            }
            Some(("azure", rest)) => {
                let (container, prefix) = name_and_prefix("container", is_container, rest)?;
                Ok(ObjectPlace::Azure { container, prefix })
            }
            _ => Err("use file:///path, s3://bucket/prefix, azure://container/prefix, or nothing for the \
                      data folder"
                .to_owned()),
        }
    }
}

impl From<ObjectPlace> for String {
    fn from(place: ObjectPlace) -> String {
        place.to_string()
    }
}

impl TryFrom<String> for ObjectPlace {
    type Error = String;

    fn try_from(text: String) -> Result<ObjectPlace, String> {
        text.parse()
    }
}

/// A folder's path, as it is: what URLs encode, some would decode and some not, so it is refused.
fn folder(path: &str) -> Result<ObjectPlace, String> {
    match path.starts_with('/') && !path.contains(['%', '?', '#', '\0']) {
        true => Ok(ObjectPlace::Folder(PathBuf::from(path))),
        false => Err("use file:///path with an absolute path, without % ? #".to_owned()),
    }
}

fn name_and_prefix(
    what: &str,
    is_name: impl Fn(&str) -> bool,
    rest: &str,
) -> Result<(String, String), String> {
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !is_name(name) {
        return Err(format!(
            "{name:?} can't be the name of a {what}; keys and endpoint go into the environment"
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && !prefix.split('/').all(is_segment) {
        return Err(format!(
            "the prefix {prefix:?} may have letters, digits and -_.= between single slashes, and no . or .."
        ));
    }
    Ok((name.to_owned(), prefix.to_owned()))
}

/// S3 wants 3 to 63 of lower-case letters, digits, dots and hyphens; other stores, and old buckets, have
/// longer names, with capitals and underscores.
fn is_bucket(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (3..=255).contains(&name.len()) && name.bytes().all(is_fit) && name != "..."
}

/// 3 to 63 lower-case letters, digits and hyphens, as Azure has it, or one of its own like `$web`.
fn is_container(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let plain = name.strip_prefix('$').unwrap_or(name);
    (3..=63).contains(&plain.len()) && plain.bytes().all(is_fit)
}

fn is_segment(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> ObjectPlace {
        ObjectPlace::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() }
    }

    fn azure(container: &str, prefix: &str) -> ObjectPlace {
        ObjectPlace::Azure { container: container.to_owned(), prefix: prefix.to_owned() }
    }

    /// Every form is understood, and reads back as it is written.
    #[test]
    fn forms() {
        for (text, place) in [
            ("", ObjectPlace::Data),
            ("file:///srv/my files", ObjectPlace::Folder("/srv/my files".into())),
            ("s3://fleet", s3("fleet", "")),
            ("s3://Old_bucket.eu/a/b=1", s3("Old_bucket.eu", "a/b=1")),
            ("azure://fleet-files/hub-1", azure("fleet-files", "hub-1")),
            ("azure://$root", azure("$root", "")),
        ] {
            assert_eq!(text.parse(), Ok(place.clone()), "{text}");
            assert_eq!(place.to_string(), text);
        }
        for text in ["s3://fleet/", "s3://fleet"] {
            assert_eq!(text.parse(), Ok(s3("fleet", "")), "{text}");
        }
        assert_eq!("azure://abc/d/".parse(), Ok(azure("abc", "d")));
    }

    /// What is refused says what would do; what looks like a secret is sent to the environment.
    #[test]
    fn refused() {
        for (text, hint) in [
            ("objects", "s3://bucket/prefix"),
            ("/srv/objects", "file:///path"),
            ("gs://fleet", "azure://container/prefix"),
            ("S3://fleet", "s3://bucket/prefix"),
            ("file://srv/objects", "absolute path"),
            ("file://", "absolute path"),
            ("file:///a%20b", "without %"),
            ("s3://", "name of a bucket"),
            ("s3:///prefix", "name of a bucket"),
            ("s3://ab", "name of a bucket"),
            ("s3://...", "name of a bucket"),
            ("s3://key:secret@fleet", "environment"),
            ("s3://fleet//a", "single slashes"),
            ("s3://fleet/a//", "single slashes"),
            ("s3://fleet/a/../b", "single slashes"),
            ("s3://fleet/a?region=b", "single slashes"),
            ("azure://Fleet", "name of a container"),
            ("azure://a_b", "name of a container"),
            ("azure://account.blob.core.windows.net/fleet", "name of a container"),
        ] {
            let error = text.parse::<ObjectPlace>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
