//! Ownership: per (partition, consumer group) at most one owner has a valid epoch.
//!
//! An epoch is valid from the moment its claim is confirmed until the claim of a higher one is. In
//! between its owner may store checkpoints and be handed records (`use`); once a higher claim was
//! confirmed, an operation that begins under a lower epoch must be refused. What overlaps the
//! confirmation may have gone either way.
//!
//! ```text
//!   epoch 1  ├─claim─┤═══════ valid ═══════╪ ─ ─ ─ nothing may be accepted ─ ─ ─
//!   epoch 2                      ├─ claim ─┤═══════ valid ═══════
//! ```

use std::collections::BTreeMap;

use crate::history::{History, Kind, Record};
use crate::sort::{ConfirmedMax, sorted_by};
use crate::verdict::{Found, Verdict, Violation, ViolationKind};

/// What a history of owners must show to mean anything.
#[derive(Clone, Copy, Debug)]
pub struct OwnershipRules {
    /// Fewer confirmed claims than this are vacuous. Default 1; a run with rebalancing wants more.
    pub claims_min: u64,
}

impl Default for OwnershipRules {
    fn default() -> OwnershipRules {
        OwnershipRules { claims_min: 1 }
    }
}

/// Checks the owners of every partition and consumer group in `history` (P8).
pub fn check_ownership(history: &History, rules: &OwnershipRules) -> Verdict {
    if let Some(record) = history.impossible_times() {
        return Verdict::Unknown(format!(
            "an operation of process {} completes before it is invoked at {} ns",
            record.process, record.invoke
        ));
    }
    if let Some(invalid) = Verdict::of(ownership_violations(history)) {
        return invalid;
    }
    let claims = history.records().iter().filter(|r| r.kind == Kind::Claim && r.is_ok()).count() as u64;
    if claims < rules.claims_min {
        return Verdict::Vacuous(format!(
            "{claims} claims were confirmed, at least {} are needed",
            rules.claims_min
        ));
    }
    Verdict::Valid
}

/// All violations that were found, at most 16 of each kind.
pub fn ownership_violations(history: &History) -> Vec<Violation> {
    let wanted = |r: &Record| matches!(r.kind, Kind::Claim | Kind::Checkpoint | Kind::Use);
    let ops = sorted_by(history, wanted, |r| (r.partition, r.key));
    let records = history.records();
    let place = |i: u32| (records[i as usize].partition, records[i as usize].key);
    let mut found = Found::default();
    for one in ops.chunk_by(|&a, &b| place(a) == place(b)) {
        check_place(records, one, &mut found);
    }
    found.into_vec()
}

fn check_place(records: &[Record], ops: &[u32], found: &mut Found) {
    let claims = || {
        ops.iter()
            .map(|&i| (i, records[i as usize]))
            .filter(|(_, r)| r.kind == Kind::Claim && r.may_have_happened())
    };
    let confirmed = ConfirmedMax::new(
        claims().filter(|(_, r)| r.is_ok()).map(|(i, r)| (r.complete, r.epoch, i)).collect(),
    );
    // Epoch → the confirmed owner; and (epoch, process) → when it was first asked for.
    let mut owners: BTreeMap<u64, Record> = BTreeMap::new();
    let mut asked: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    for (_, claim) in claims() {
        asked.entry((claim.epoch, claim.process)).or_insert(claim.invoke);
        if !claim.is_ok() {
            continue;
        }
        let owner = owners.entry(claim.epoch).or_insert(claim);
        if owner.process != claim.process {
            let message =
                format!("processes {} and {} both own epoch {}", owner.process, claim.process, claim.epoch);
            found.add(ViolationKind::TwoOwners, vec![*owner, claim], message);
        }
    }
    for &op in ops {
        let record = records[op as usize];
        if !record.is_ok() {
            continue;
        }
        if let Some((epoch, by)) = confirmed.before(record.invoke)
            && epoch > record.epoch
        {
            let message =
                format!("{:?} under epoch {} after epoch {epoch} was confirmed", record.kind, record.epoch);
            found.add(ViolationKind::LowerEpochAccepted, vec![records[by as usize], record], message);
        }
        let claimed =
            asked.get(&(record.epoch, record.process)).is_some_and(|&invoke| invoke <= record.complete);
        if !claimed {
            let message = format!(
                "process {} acted under epoch {}, which it never claimed",
                record.process, record.epoch
            );
            found.add(ViolationKind::NotOwner, vec![record], message);
        }
    }
}
