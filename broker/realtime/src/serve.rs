//! What other nodes of the tier ask of this one.

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_gateway::tiers::TierService;
use fleetline_signalr::token::Claim;
use fleetline_types::{NodeId, PartitionId, Term};
use prost::Message;

use crate::directory::Noted;
use crate::front::requests::{ClientCall, PollKind, Verb};
use crate::member::ClientInfo;
use crate::tier::Realtime;
use crate::wire::{Adopt, Answer, Ask, Call, ClientReply, ClientRequest, InterestUpdate};

#[async_trait]
impl TierService for Realtime {
    async fn on_call(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let call = Call::decode(body).map_err(|error| format!("the call can't be read: {error}"))?;
        let answer = match call.ask {
            Some(ask) => self.on_ask(from, ask).await,
            // A newer release asks for something that this one doesn't have.
            None => return Err("this release doesn't know the call".to_owned()),
        };
        Ok(answer.encode_to_vec().into())
    }
}

impl Realtime {
    async fn on_ask(&self, from: NodeId, ask: Ask) -> Answer {
        match ask {
            Ask::Publish(batch) => self.publisher.on_publish(batch).await,
            Ask::Deliver(batch) => self.publisher.on_deliver(batch).await,
            Ask::Interest(update) => self.on_interest(from, &update),
            Ask::Forget(forget) => {
                self.publisher.directory.forget(from, PartitionId(forget.partition));
                Answer::done()
            }
            Ask::Targets(targets) => self.on_targets(&targets),
            Ask::Change(change) => self.on_change(change).await,
            Ask::Look(look) => self.on_look(&look),
            Ask::Adopt(adopt) => self.on_adopt(from, &adopt),
            Ask::Client(request) => self.on_client(request).await,
        }
    }

    fn on_interest(&self, from: NodeId, update: &InterestUpdate) -> Answer {
        let term = Term(update.term);
        if self.peers.leads(PartitionId(update.partition)) != Some(term) {
            return Answer::not_done(Answer::NOT_LEADER);
        }
        match self.publisher.directory.note(from, term, update, self.clock.now_ms()) {
            Noted::Done => Answer::done(),
            Noted::Again => Answer::not_done(Answer::AGAIN),
        }
    }

    /// A node has a connection whose id names this one. Answers whether it must not: another has it, or it is over.
    fn on_adopt(&self, from: NodeId, adopt: &Adopt) -> Answer {
        if adopt.is_over {
            self.publisher.adopted.forget(&adopt.connection, from);
            return Answer::done();
        }
        let is_taken = self.registry.connection(&adopt.connection).is_some()
            || self.buried.has(&adopt.connection)
            || self.publisher.adopted.note(&adopt.connection, from).is_some();
        Answer::found(is_taken)
    }

    async fn on_client(&self, request: ClientRequest) -> Answer {
        let claim = |claim: crate::wire::WireClaim| Claim { kind: claim.kind, value: claim.value };
        let verb = match request.kind {
            ClientRequest::POLL => Verb::Poll(match (request.is_events, request.is_first) {
                (false, _) => PollKind::Long,
                (true, true) => PollKind::FirstEvents,
                (true, false) => PollKind::NextEvents,
            }),
            ClientRequest::POST => Verb::Post(request.body),
            ClientRequest::DELETE => Verb::Delete,
            _ => return reply(400, Bytes::new()),
        };
        let some = |number: u64| (number > 0).then_some(number);
        let call = ClientCall {
            connection: request.connection,
            hub: request.hub,
            client: ClientInfo {
                user: request.has_user.then_some(request.user),
                claims: request.claims.into_iter().map(claim).collect(),
                query: request.query,
            },
            handshake_timeout_ms: some(request.handshake_ms),
            close_at_secs: some(request.close_at_secs),
        };
        let (status, body) = self.answer_client(call, verb).await;
        reply(status, body)
    }
}

fn reply(status: u16, body: Bytes) -> Answer {
    Answer { reply: Some(ClientReply { status: status.into(), body }), ..Answer::done() }
}
