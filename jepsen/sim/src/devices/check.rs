//! What the history and the replicas may be: promises P4, P5, P9 to P13 of the device workload.

use std::collections::{BTreeMap, BTreeSet};

use fleetline_devices::{Outcome, Settle};

use super::history::{History, Settled};
use super::register::{Asked, RegisterOp, Said, check_register};
use crate::account::Stored;

/// What one replica holds in the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    /// Records of devices, in order.
    pub(crate) records: Vec<Stored>,
    /// Registers by name, as they are.
    pub(crate) registers: BTreeMap<String, (u64, String)>,
    /// Ids of commands that wait.
    pub(crate) waiting: Vec<String>,
    /// Ids of commands that ended, and how.
    pub(crate) ended: Vec<(String, Outcome)>,
    /// Events that left the outbox.
    pub(crate) events: u64,
}

/// Checks everything against one replica.
pub(crate) fn check(history: &History, replica: &Replica) -> Result<(), String> {
    for (name, (version, value)) in &replica.registers {
        let mut ops = history.registers.get(name).cloned().unwrap_or_default();
        // The last state is what a read would see that began when everything was over.
        let (invoked, completed) = (u64::MAX - 1, Some(u64::MAX));
        let span = super::history::Span { invoked, completed };
        ops.push(RegisterOp { span, asked: Asked::Read, said: Said::Is(*version, value.clone()) });
        let promise = if name.starts_with("twin") { "P9" } else { "P10" };
        check_register(&ops).map_err(|error| format!("{promise}: {name}: {error}"))?;
    }
    sessions(history)?;
    records(history, replica)?;
    commands(history, replica)
}

/// P11, P12: who acts has the newest session, and none is opened for a disabled device.
fn sessions(history: &History) -> Result<(), String> {
    for (place, opened) in history.opened.iter().enumerate() {
        for other in history.opened.iter().skip(place + 1).filter(|other| other.device == opened.device) {
            let in_order = opened.epoch < other.epoch;
            if opened.epoch == other.epoch
                || opened.span.is_before(other.span) && !in_order
                || other.span.is_before(opened.span) && in_order
            {
                return Err(format!("P12: {opened:?} and {other:?}"));
            }
        }
    }
    for used in &history.used {
        let newer =
            history.opened.iter().filter(|opened| opened.device == used.device && opened.epoch > used.epoch);
        if let Some(newer) = newer.clone().find(|newer| newer.span.is_before(used.span)) {
            return Err(format!("P12: {used:?} was accepted behind {newer:?}"));
        }
        let mut ends =
            history.disabled.iter().filter(|end| end.device == used.device && end.version > used.epoch);
        if let Some(end) = ends.find(|end| end.span.is_before(used.span)) {
            return Err(format!("P11: {used:?} was accepted behind {end:?}"));
        }
    }
    for opened in &history.opened {
        let ended =
            |end: &&super::history::Disabled| end.device == opened.device && end.span.is_before(opened.span);
        for end in history.disabled.iter().filter(ended) {
            // One that ended before the device was disabled, or began when this was open, can't be why.
            let may_be_why = |(device, span): &&(String, super::history::Span)| {
                *device == opened.device && !span.is_before(end.span) && !opened.span.is_before(*span)
            };
            if !history.enabled.iter().any(|enabled| may_be_why(&enabled)) {
                return Err(format!("P11: {opened:?} behind {end:?}, never enabled between"));
            }
        }
    }
    Ok(())
}

/// Epoch and number of a record that a gateway sent.
fn parse(body: &str) -> Option<(u64, u64)> {
    let mut parts = body.strip_prefix("rec/")?.split('/').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn records(history: &History, replica: &Replica) -> Result<(), String> {
    // By device: the newest epoch, and the number of its next record.
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut offsets = BTreeMap::new();
    let (mut events, mut number, mut wills) = (0, String::new(), BTreeSet::new());
    for Stored { offset, device, body } in &replica.records {
        let Some((epoch, sequence)) = parse(body) else {
            events += 1;
            if body.starts_with("will/") && !wills.insert(body) {
                return Err(format!("P12: {body} was sent twice, again at {offset}"));
            }
            if let Some((_, found)) = body.split_once("\"sequenceNumber\":\"") {
                if found <= number.as_str() {
                    return Err(format!("P5: event {found} at {offset} stands behind {number}"));
                }
                found.clone_into(&mut number);
            }
            continue;
        };
        if !history.sent.contains(body) {
            return Err(format!("P2: {body} at {offset} was never sent"));
        }
        let expected = match last.get(device.as_str()) {
            Some((newest, _)) if epoch < *newest => {
                return Err(format!("P12: {body} at {offset} stands behind a record of session {newest}"));
            }
            Some((newest, next)) if epoch == *newest => *next,
            _ => 0,
        };
        if sequence != expected {
            return Err(format!("P4: {body} at {offset}, number {expected} was expected"));
        }
        last.insert(device, (epoch, sequence + 1));
        offsets.insert(body, *offset);
        revoked(history, device, epoch, *offset)?;
    }
    for (body, offset) in &history.stored {
        let found = offsets.get(body);
        if found.is_none() || offset.is_some_and(|offset| found != Some(&offset)) {
            return Err(format!("P1: {body} was acknowledged at {offset:?}, it is at {found:?}"));
        }
    }
    match events == replica.events {
        true => Ok(()),
        false => Err(format!("P5: {} events left the outbox, there are {events} records", replica.events)),
    }
}

/// P11, P12: what was committed behind an acknowledged end of a session is not of that session.
fn revoked(history: &History, device: &str, epoch: u64, offset: u64) -> Result<(), String> {
    let mut opened = history.opened.iter().filter(|opened| opened.device == device && opened.epoch > epoch);
    if let Some(newer) = opened.find(|newer| newer.head <= offset) {
        return Err(format!("P12: record of session {epoch} at {offset}, behind {newer:?}"));
    }
    let mut disabled = history.disabled.iter().filter(|end| end.device == device && end.version > epoch);
    match disabled.find(|end| end.head <= offset) {
        Some(end) => Err(format!("P11: record of session {epoch} at {offset}, behind {end:?}")),
        None => Ok(()),
    }
}

/// P13: every command that was sent waits or has ended, once, as somebody said.
fn commands(history: &History, replica: &Replica) -> Result<(), String> {
    let mut ended: BTreeMap<&str, Outcome> = BTreeMap::new();
    for (id, outcome) in &replica.ended {
        if let Some(before) = ended.insert(id, *outcome) {
            return Err(format!("P13: {id} ended twice, {before:?} and {outcome:?}"));
        }
        let said = |how: Settle| {
            history.settled.iter().filter(move |settled| settled.id == *id && settled.how == how)
        };
        let may_be = match outcome {
            Outcome::Success => said(Settle::Complete).count() > 0,
            Outcome::Rejected => said(Settle::Reject).count() > 0,
            Outcome::DeliveryCountExceeded => said(Settle::Abandon).count() >= 10,
            Outcome::Expired => true,
            Outcome::Purged => false,
        };
        if !may_be {
            return Err(format!("P13: {id} ended as {outcome:?}, which nobody said"));
        }
    }
    let waiting: BTreeSet<&str> = replica.waiting.iter().map(String::as_str).collect();
    if waiting.len() != replica.waiting.len() {
        return Err(format!("P13: a command waits twice: {:?}", replica.waiting));
    }
    for id in waiting.iter().chain(ended.keys()) {
        if !history.commands.contains_key(*id) {
            return Err(format!("P2: command {id} was never sent, or was refused"));
        }
    }
    for (id, acknowledged) in &history.commands {
        match (waiting.contains(id.as_str()), ended.contains_key(id.as_str())) {
            (true, true) => return Err(format!("P13: {id} ended and waits")),
            (false, false) if *acknowledged => return Err(format!("P13: {id} was acknowledged and is gone")),
            _ => {}
        }
    }
    settled(history, &ended)
}

fn settled(history: &History, ended: &BTreeMap<&str, Outcome>) -> Result<(), String> {
    let mut tokens = BTreeSet::new();
    if let Some(locked) = history.locked.iter().find(|locked| !tokens.insert(&locked.token)) {
        return Err(format!("P13: two deliveries under one token, {locked:?}"));
    }
    let mut tokens = BTreeSet::new();
    let done = history.settled.iter().filter(|settled| settled.span.completed.is_some());
    for Settled { id, token, how, span } in done {
        if !tokens.insert(token) {
            return Err(format!("P13: {token} was good twice"));
        }
        let outcome = match how {
            Settle::Complete => Outcome::Success,
            Settle::Reject => Outcome::Rejected,
            Settle::Abandon => continue,
        };
        if ended.get(id.as_str()) != Some(&outcome) {
            return Err(format!("P13: {how:?} of {id} was acknowledged, it is {:?}", ended.get(id.as_str())));
        }
        let again = history.locked.iter().find(|locked| locked.id == *id && span.is_before(locked.span));
        if let Some(again) = again {
            return Err(format!("P13: {id} was {how:?} and is delivered again as {again:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::history::{Disabled, Locked, Opened, Span, Used};
    use super::*;

    const DEVICE: &str = "thing-0";

    fn span(invoked: u64, completed: u64) -> Span {
        Span { invoked, completed: (completed > 0).then_some(completed) }
    }

    fn opened(epoch: u64, span: Span, head: u64) -> Opened {
        Opened { device: DEVICE.into(), epoch, span, head }
    }

    /// Two sessions with a disable between them; three records, one of them the hub's own.
    fn sound() -> (History, Replica) {
        let mut history = History::default();
        history.opened = vec![opened(10, span(1, 2), 0), opened(40, span(30, 31), 3)];
        history.used = vec![Used { device: DEVICE.into(), epoch: 10, span: span(3, 4) }];
        history.disabled = vec![Disabled { device: DEVICE.into(), version: 20, span: span(10, 11), head: 2 }];
        history.enabled = vec![(DEVICE.into(), span(20, 21))];
        for (body, offset) in [("rec/thing-0/10/0", 0), ("rec/thing-0/10/1", 1), ("rec/thing-0/40/0", 3)] {
            history.sent.insert(body.into());
            history.stored.insert(body.into(), Some(offset));
        }
        history.commands = [("a".into(), true), ("b".into(), true), ("c".into(), false)].into();
        history.locked = vec![Locked { id: "a".into(), token: "t".into(), span: span(5, 6) }];
        history.settled =
            vec![Settled { id: "a".into(), token: "t".into(), how: Settle::Complete, span: span(7, 8) }];
        let bodies =
            ["rec/thing-0/10/0", "rec/thing-0/10/1", "{\"sequenceNumber\":\"1\"}", "rec/thing-0/40/0"];
        let stored =
            |(body, offset): (&&str, u64)| Stored { offset, device: DEVICE.into(), body: (*body).into() };
        let records = bodies.iter().zip(0..).map(stored).collect();
        let (waiting, ended) = (vec!["b".into()], vec![("a".into(), Outcome::Success)]);
        (history, Replica { records, waiting, ended, events: 1, ..Replica::default() })
    }

    /// What is sound passes, and each planted violation is found under its name.
    #[test]
    fn violations_are_named() {
        let (history, replica) = sound();
        check(&history, &replica).unwrap();
        type Plant = fn(&mut History, &mut Replica);
        let table: Vec<(&str, Plant)> = vec![
            ("P12", |history, _| history.opened[1].epoch = 9),
            ("P12", |history, _| history.used[0].span = span(32, 33)),
            ("P11", |history, _| history.used[0].span = span(12, 13)),
            ("P11", |history, _| history.enabled.clear()),
            ("P11", |history, _| history.enabled[0].1 = span(5, 6)),
            ("P11", |history, _| history.enabled[0].1 = span(32, 0)),
            ("P11", |history, _| history.disabled[0].head = 1),
            ("P12", |history, _| history.opened[1].head = 1),
            ("P12", |_, replica| replica.records.swap(1, 3)),
            ("P4", |_, replica| replica.records[1].body = replica.records[0].body.clone()),
            ("P4", |history, replica| {
                history.sent.insert("rec/thing-0/40/5".into());
                replica.records[3].body = "rec/thing-0/40/5".into();
            }),
            ("P2", |history, _| {
                let _ = history.sent.remove("rec/thing-0/10/0");
            }),
            ("P1", |_, replica| drop(replica.records.pop())),
            ("P1", |history, _| {
                let _ = history.stored.insert("rec/thing-0/10/0".into(), Some(1));
            }),
            ("P5", |_, replica| replica.events = 2),
            ("P5", |_, replica| replica.records.push(Stored { offset: 4, ..replica.records[2].clone() })),
            ("P12", |_, replica| {
                let will = Stored { offset: 4, device: DEVICE.into(), body: "will/1".into() };
                replica.records.extend([will.clone(), will]);
            }),
            ("P13", |_, replica| replica.ended.push(("a".into(), Outcome::Success))),
            ("P13", |_, replica| replica.ended[0].1 = Outcome::Rejected),
            ("P13", |_, replica| replica.waiting.push("a".into())),
            ("P13", |_, replica| replica.waiting.clear()),
            ("P13", |_, replica| replica.waiting.push("b".into())),
            ("P13", |history, _| history.settled.push(history.settled[0].clone())),
            ("P13", |history, _| history.settled[0].how = Settle::Reject),
            ("P13", |history, _| history.locked.push(history.locked[0].clone())),
            ("P13", |history, _| {
                history.locked.push(Locked { id: "a".into(), token: "u".into(), span: span(9, 10) });
            }),
            ("P2", |_, replica| replica.ended.push(("x".into(), Outcome::Expired))),
            ("P9", |_, replica| drop(replica.registers.insert("twin of x".into(), (2, "v".into())))),
            ("P10", |_, replica| drop(replica.registers.insert("identity x".into(), (2, "v".into())))),
        ];
        for (place, (name, plant)) in table.into_iter().enumerate() {
            let (mut history, mut replica) = sound();
            plant(&mut history, &mut replica);
            let found = check(&history, &replica).unwrap_err();
            assert!(found.starts_with(&format!("{name}:")), "{place}, {name}: {found}");
        }
    }
}
