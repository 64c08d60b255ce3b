//! A device that takes its commands under locks, by itself: most it settles, some it gives back, some it
//! forgets until the lock is over.

use std::time::Duration;

use fleetline_devices::{LockCommand, Op, Settle, SettleCommand};
use tokio::time::sleep;

use super::history::{Locked, Settled, Span};
use super::{Answer, Clients};
use crate::rng::Rng;

/// Short, so that locks run out while their holder still acts.
const LOCK_MS: u64 = 1500;

/// Takes commands of all devices until the run stops.
pub(super) async fn run(clients: Clients, number: u64) {
    let mut rng = Rng::new(clients.seed, 2300 + number);
    while !clients.stop.get() {
        take(&clients, &mut rng).await;
        sleep(Duration::from_millis(1 + rng.below(60))).await;
    }
}

async fn take(clients: &Clients, rng: &mut Rng) {
    let key = clients.any_key(rng);
    let device = clients.some(rng).map(|partition| partition.devices().device(&key));
    let Some(Ok(Some(row))) = device else { return };
    let token = clients.history.borrow_mut().value();
    let invoked = clients.history.borrow_mut().tick();
    let auth_version = row.auth_version;
    let lock = LockCommand { key: key.clone(), auth_version, token: token.clone(), lock_ms: LOCK_MS };
    let Answer::Done { reply, .. } = clients.change(rng, Op::LockCommand(lock)).await else { return };
    let Some(command) = reply.command else { return };
    let id = command.message_id;
    {
        let mut history = clients.history.borrow_mut();
        let span = history.span(invoked);
        history.locked.push(Locked { id: id.clone(), token: token.clone(), span });
    }
    let how = match rng.below(8) {
        0..4 => Settle::Complete,
        4 => Settle::Reject,
        5 | 6 => Settle::Abandon,
        _ => return,
    };
    // Sometimes later than the lock holds.
    sleep(Duration::from_millis(rng.below(LOCK_MS + 300))).await;
    let settle = SettleCommand {
        key,
        token: token.clone(),
        settle: how as i32,
        auth_version,
        ..SettleCommand::default()
    };
    let invoked = clients.history.borrow_mut().tick();
    let answer = clients.change(rng, Op::SettleCommand(settle)).await;
    let mut history = clients.history.borrow_mut();
    let completed = match answer {
        Answer::Done { .. } => Some(history.tick()),
        Answer::Unknown => None,
        Answer::Refused(_) | Answer::NotDone => return,
    };
    history.settled.push(Settled { id, token, how, span: Span { invoked, completed } });
}
