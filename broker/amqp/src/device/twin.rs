//! The twin of a device: requests, answers, changes of desired properties.

use std::collections::VecDeque;

use fleetline_amqp::message::{Message, MessageWriter, Properties};
use fleetline_amqp::value::Value;
use fleetline_amqp::{Receipt, Writer};
use fleetline_devices::DesiredChange;

use super::Device;
use crate::work::{TwinRequest, Work};

/// Answers and changes that wait for a twin's link.
pub(super) const REPLIES_MAX: usize = 64;

/// What the twin's link asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum TwinAsk {
    /// The leader has to answer.
    Work(Work),
    /// Wants changes, or no more of them; answered at once.
    Notify(TwinRequest, bool),
    /// Isn't a request.
    Bad(TwinRequest, &'static str),
}

/// What goes to the twin's receiver.
#[derive(Debug, Default)]
pub(super) struct Twin {
    pub(super) replies: VecDeque<Vec<u8>>,
    pub(super) notifies: bool,
    /// Changes up to this version were sent, or are older than the session.
    pub(super) sent: u64,
    pub(super) wanted: bool,
    pub(super) fetching: bool,
}

impl Device {
    /// Reads a request of the twin's link.
    pub(crate) fn twin_ask(&self, message: &Message<'_>, receipt: Receipt) -> TwinAsk {
        let text = |name: &str| message.message_annotations.get(name).and_then(|value| value.as_text());
        let mut id = Vec::new();
        if let Ok(properties) = message.properties()
            && !properties.correlation_id.is_null()
        {
            Writer::new(&mut id).value(&properties.correlation_id);
        }
        let request = TwinRequest { id, receipt };
        let resource = text("resource").unwrap_or_default();
        let reported = resource.eq_ignore_ascii_case("/properties/reported");
        let desired = resource.eq_ignore_ascii_case("/notifications/twin/properties/desired");
        match text("operation").unwrap_or_default().to_ascii_uppercase().as_str() {
            "GET" if resource.is_empty() => TwinAsk::Work(Work::TwinGet(request)),
            "PATCH" if reported => {
                let version = message.message_annotations.get("version");
                let if_version = match version {
                    None | Some(Value::Null) => 0,
                    Some(value) => match value.as_i64().and_then(|version| u64::try_from(version).ok()) {
                        Some(version) => version,
                        None => return TwinAsk::Bad(request, "version is not a number"),
                    },
                };
                let patch = message.data().into_owned().into();
                TwinAsk::Work(Work::Reported { request, if_version, patch })
            }
            "PUT" if desired => TwinAsk::Notify(request, true),
            "DELETE" if desired => TwinAsk::Notify(request, false),
            _ => TwinAsk::Bad(request, "neither operation nor resource is one of a twin"),
        }
    }

    pub(crate) fn set_notifies(&mut self, notifies: bool) {
        self.twin.notifies = notifies;
        self.twin.wanted |= notifies;
    }

    pub(crate) fn want_desired(&mut self) {
        self.twin.wanted = true;
    }

    /// An answer for the twin's receiver. One that nobody fetches pushes the oldest out.
    pub(crate) fn twin_reply(&mut self, id: &[u8], status: u16, version: Option<u64>, body: &str) {
        let mut out = Vec::new();
        let mut raw = id;
        let correlation_id = Value::read(&mut raw).unwrap_or(Value::Null);
        MessageWriter::new(&mut out)
            .message_annotations(|w| {
                w.symbol("status");
                w.int(status.into());
                if let Some(version) = version {
                    w.symbol("version");
                    w.long(version as i64);
                }
            })
            .properties(&Properties { correlation_id, ..Properties::default() })
            .data(body.as_bytes());
        self.push_reply(out);
    }

    fn push_reply(&mut self, reply: Vec<u8>) {
        if self.twin.replies.len() >= REPLIES_MAX {
            metrics::counter!("fleetline_amqp_undeliverable_total").increment(1);
            self.twin.replies.pop_front();
        }
        self.twin.replies.push_back(reply);
    }

    /// Desired properties have changed.
    pub(crate) fn on_desired(&mut self, changes: &[DesiredChange]) {
        self.twin.fetching = false;
        for change in changes {
            if change.version <= self.twin.sent {
                continue;
            }
            self.twin.sent = change.version;
            let parsed = serde_json::from_slice(&change.patch);
            let Ok(serde_json::Value::Object(mut patch)) = parsed else { continue };
            if !self.twin.notifies {
                continue;
            }
            patch.insert("$version".to_owned(), change.version.into());
            let body = serde_json::Value::Object(patch).to_string();
            let mut out = Vec::new();
            // Without a correlation id: "Node and Java use that to tell it apart".
            MessageWriter::new(&mut out)
                .message_annotations(|w| {
                    w.symbol("resource");
                    w.string("/notifications/twin/properties/desired");
                })
                .data(body.as_bytes());
            self.push_reply(out);
        }
    }

    pub(crate) fn next_reply(&self) -> Option<&[u8]> {
        self.twin.replies.front().map(Vec::as_slice)
    }

    pub(crate) fn reply_sent(&mut self) {
        self.twin.replies.pop_front();
        self.twin.wanted |= self.twin.notifies && self.twin.replies.len() + 1 == REPLIES_MAX;
    }
}
