//! Where a front listens: an address, the usual port if it can be had, or nowhere.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a front listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum FrontListen {
    /// At the protocol's own port; when that is taken or may not be opened, nowhere, with a warning.
    Auto,
    /// Nowhere.
    Off,
    /// Here, or the node doesn't start.
    At(SocketAddr),
}

impl fmt::Display for FrontListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontListen::Auto => f.write_str("auto"),
            FrontListen::Off => f.write_str("off"),
            FrontListen::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for FrontListen {
    type Err = String;

    fn from_str(text: &str) -> Result<FrontListen, String> {
        match text {
            "auto" => Ok(FrontListen::Auto),
            "off" => Ok(FrontListen::Off),
            address => address
                .parse()
                .map(FrontListen::At)
                .map_err(|_| "use auto, off or an address with a port, like 127.0.0.1:8883".to_owned()),
        }
    }
}

impl From<FrontListen> for String {
    fn from(listen: FrontListen) -> String {
        listen.to_string()
    }
}

impl TryFrom<String> for FrontListen {
    type Error = String;

    fn try_from(text: String) -> Result<FrontListen, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form reads back as it is written; anything else says what would do.
    #[test]
    fn forms() {
        for text in ["auto", "off", "127.0.0.1:8883", "[::1]:443"] {
            assert_eq!(text.parse::<FrontListen>().map(|listen| listen.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "8883", "localhost:8883", "on"] {
            assert!(text.parse::<FrontListen>().is_err(), "{text}");
        }
    }
}
