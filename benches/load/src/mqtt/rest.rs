//! Devices made through IoT Hub's REST interface: one bulk request for each hundred.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::{dial, sas};
use crate::Outcome;

/// Most devices that one request may hold.
const BULK_MAX: usize = 100;
/// The owner's policy, by which devices are made.
const POLICY: &str = "iothubowner";

/// The hub and who may make devices in it, from a connection string of the policy `iothubowner`.
pub struct Owner {
    /// The hub's name.
    pub host: String,
    key: String,
}

impl Owner {
    /// From `HostName=…;SharedAccessKeyName=iothubowner;SharedAccessKey=…`.
    ///
    /// # Errors
    /// When a part is missing.
    pub fn parse(connection_string: &str) -> Outcome<Owner> {
        let part = |name: &str| {
            let mut parts = connection_string.split(';').filter_map(|part| part.split_once('='));
            let found = parts.find(|(found, _)| *found == name);
            found
                .map(|(_, value)| value.to_owned())
                .ok_or_else(|| format!("connection string without {name}"))
        };
        match part("SharedAccessKeyName")? == POLICY {
            true => Ok(Owner { host: part("HostName")?, key: part("SharedAccessKey")? }),
            false => Err(format!("connection string is not of {POLICY}").into()),
        }
    }

    /// Makes the devices from number 0 on, all with the same key.
    ///
    /// # Errors
    /// When the hub refuses.
    pub async fn make_devices(
        &self,
        address: SocketAddr,
        tls: &TlsConnector,
        count: usize,
        key: &str,
    ) -> Outcome<()> {
        let authorization = sas::token(&self.host, &self.key, Some(POLICY))?;
        for first in (0..count).step_by(BULK_MAX) {
            let numbers = first..count.min(first + BULK_MAX);
            let devices: Vec<Value> = numbers.map(|number| import(number, key)).collect();
            let body = Value::from(devices).to_string();
            let request = format!(
                "POST /devices?api-version=2021-04-12 HTTP/1.1\r\nHost: {}\r\nAuthorization: {authorization}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                self.host,
                body.len(),
            );
            let mut stream = dial::secure(address, tls).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            // A server may end without TLS's farewell; whether the answer is whole shows below.
            if let Err(error) = stream.read_to_end(&mut answer).await
                && error.kind() != std::io::ErrorKind::UnexpectedEof
            {
                return Err(error.into());
            }
            check(&String::from_utf8_lossy(&answer))?;
        }
        Ok(())
    }
}

fn import(number: usize, key: &str) -> Value {
    json!({
        "id": dial::device(number),
        "importMode": "create",
        "status": "enabled",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
    })
}

/// Whether all devices of a request were made.
fn check(answer: &str) -> Outcome<()> {
    let status = answer.split_whitespace().nth(1);
    let whole = answer.replace(' ', "").contains("\"isSuccessful\":true");
    match status == Some("200") && whole {
        true => Ok(()),
        false => Err(format!("devices were not made: {}", answer.trim()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts are found in any order, and a key keeps its padding.
    #[test]
    fn connection_strings_are_read() {
        let owner =
            Owner::parse("SharedAccessKey=c2VjcmV0MQ==;HostName=h;SharedAccessKeyName=iothubowner").unwrap();
        assert_eq!((owner.host.as_str(), owner.key.as_str()), ("h", "c2VjcmV0MQ=="));
        assert!(Owner::parse("HostName=h;SharedAccessKeyName=iothubowner").is_err());
        assert!(Owner::parse("HostName=h;SharedAccessKeyName=device;SharedAccessKey=a").is_err());
    }

    /// A refusal of the request or of one device in it is an error, and so is half an answer.
    #[test]
    fn answers_are_checked() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
        check(&format!("{head}{{\"isSuccessful\": true, \"errors\": []}}")).unwrap();
        assert!(check(&format!("{head}{{\"isSuccessful\":false}}")).is_err());
        assert!(check(head).is_err());
        assert!(check("HTTP/1.1 401 Unauthorized\r\n\r\n{\"isSuccessful\":true}").is_err());
        assert!(check("").is_err());
    }
}
