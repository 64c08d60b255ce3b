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
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Reads one request and answers it; returns its head and how many devices its body names.
    async fn answer(listener: &TcpListener, acceptor: &TlsAcceptor, answer: &str) -> (String, Vec<Value>) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut read = Vec::new();
        let (head, body) = loop {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the request was cut off");
            let text = String::from_utf8_lossy(&read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                break (head.to_owned(), body.to_owned());
            }
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        (head, serde_json::from_str(&body).unwrap())
    }

    /// 201 devices take three requests, each with a token and its share; the first refusal ends it.
    #[tokio::test]
    async fn devices_are_made_in_hundreds() {
        let made = rcgen::generate_simple_self_signed([dial::HOST.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tls) = (listener.local_addr().unwrap(), dial::trust(&made.cert.pem()).unwrap());
        let owner =
            Owner::parse("HostName=hub;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0").unwrap();
        let good = "HTTP/1.1 200 OK\r\n\r\n{\"isSuccessful\":true}";
        let serve = async {
            let mut names = Vec::new();
            for count in [100, 100, 1] {
                let (head, devices) = answer(&listener, &acceptor, good).await;
                assert!(head.starts_with("POST /devices?api-version=2021-04-12 HTTP/1.1\r\n"), "{head}");
                assert!(head.contains("\r\nAuthorization: SharedAccessSignature sr=hub&sig="), "{head}");
                assert_eq!(devices.len(), count);
                names.extend(devices.iter().map(|device| device["id"].as_str().unwrap().to_owned()));
            }
            names
        };
        let (outcome, names) = tokio::join!(owner.make_devices(address, &tls, 201, "a2V5"), serve);
        outcome.unwrap();
        assert!(names.iter().enumerate().all(|(number, name)| *name == dial::device(number)));
        let refuse = answer(&listener, &acceptor, "HTTP/1.1 401 Unauthorized\r\n\r\n{}");
        let (outcome, _) = tokio::join!(owner.make_devices(address, &tls, 201, "a2V5"), refuse);
        assert!(outcome.unwrap_err().to_string().contains("401"));
    }

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
