//! A versioned register: each accepted write adds one to the version, a write may be conditional on it. Twins
//! (P9) and identities (P10) are such registers; their linearizability needs no search, as versions say the
//! order.

use std::collections::BTreeMap;

use super::history::Span;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    /// Values are written once in a run.
    Write {
        value: String,
        if_version: Option<u64>,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The version and value behind the operation.
    Is(u64, String),
    /// Another version than the write was conditional on.
    OtherVersion,
    Unknown,
}

/// An operation on a register.
#[derive(Clone, Debug)]
pub(crate) struct RegisterOp {
    pub(crate) span: Span,
    pub(crate) asked: Asked,
    pub(crate) said: Said,
}

impl RegisterOp {
    fn version(&self) -> Option<u64> {
        match &self.said {
            Said::Is(version, _) => Some(*version),
            _ => None,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.asked, Asked::Write { .. })
    }
}

/// Checks one register, which begins at version 1 with an empty value.
pub(crate) fn check_register(ops: &[RegisterOp]) -> Result<(), String> {
    let values = one_value_a_version(ops)?;
    for op in ops {
        let found = writer(ops, op)?;
        if let (Some(writer), Some(completed)) = (found, op.span.completed)
            && writer.span.invoked > completed
        {
            return Err(format!("{op:?} saw what was written later, by {writer:?}"));
        }
        refusal(ops, op)?;
    }
    versions_are_written(ops, &values)?;
    real_time(ops)
}

fn one_value_a_version(ops: &[RegisterOp]) -> Result<BTreeMap<u64, String>, String> {
    let (mut values, mut versions) = (BTreeMap::from([(1, String::new())]), BTreeMap::new());
    for op in ops {
        let Said::Is(version, value) = &op.said else { continue };
        let known = values.entry(*version).or_insert_with(|| value.clone());
        if known != value {
            return Err(format!("version {version} is {known} and {value}"));
        }
        if *versions.entry(value).or_insert(*version) != *version {
            return Err(format!("{value} has two versions, {version} and {}", versions[value]));
        }
    }
    Ok(values)
}

/// Who wrote what an operation saw. A write saw what it wrote.
fn writer<'a>(ops: &'a [RegisterOp], seen: &'a RegisterOp) -> Result<Option<&'a RegisterOp>, String> {
    let Said::Is(version, value) = &seen.said else { return Ok(None) };
    if *version == 1 {
        return Ok(None);
    }
    let wrote =
        |op: &&RegisterOp| matches!(&op.asked, Asked::Write { value: written, .. } if written == value);
    let Some(writer) = ops.iter().find(wrote) else {
        return Err(format!("nobody wrote {value}, seen by {seen:?}"));
    };
    if seen.is_write() && !wrote(&seen) {
        return Err(format!("{seen:?} was answered with another's value"));
    }
    match (&writer.said, &writer.asked) {
        (Said::OtherVersion, _) => Err(format!("{value} was refused, and is seen by {seen:?}")),
        (Said::Is(at, _), _) if at != version => {
            Err(format!("{value} was written at {at}, seen at {version}"))
        }
        (_, Asked::Write { if_version: Some(condition), .. }) if condition + 1 != *version => {
            Err(format!("{writer:?} was done at {version}"))
        }
        _ => Ok(Some(writer)),
    }
}

/// A refusal needs another version: somebody must have written the next one.
fn refusal(ops: &[RegisterOp], refused: &RegisterOp) -> Result<(), String> {
    let (Said::OtherVersion, Asked::Write { if_version, .. }) = (&refused.said, &refused.asked) else {
        return Ok(());
    };
    let Some(condition) = if_version else {
        return Err(format!("{refused:?} had no condition"));
    };
    let may_have = |op: &&RegisterOp| match &op.said {
        Said::Is(version, _) => *version > *condition,
        Said::Unknown => true,
        Said::OtherVersion => false,
    };
    let began = |op: &&RegisterOp| refused.span.completed.is_none_or(|completed| op.span.invoked < completed);
    match ops.iter().filter(|op| op.is_write()).filter(began).any(|op| may_have(&op)) {
        true => Ok(()),
        false => Err(format!("{refused:?}, but nobody had written")),
    }
}

/// Every version up to the last was written by somebody, each by another write.
fn versions_are_written(ops: &[RegisterOp], values: &BTreeMap<u64, String>) -> Result<(), String> {
    let last = values.keys().next_back().copied().unwrap_or(1);
    let mut acknowledged: Vec<u64> =
        ops.iter().filter(|op| op.is_write()).filter_map(RegisterOp::version).collect();
    let count = acknowledged.len();
    acknowledged.sort_unstable();
    acknowledged.dedup();
    if acknowledged.len() != count {
        return Err("two writes were acknowledged with one version".to_owned());
    }
    let unknown = ops.iter().filter(|op| op.is_write() && op.said == Said::Unknown).count() as u64;
    let missing = last - 1 - acknowledged.len() as u64;
    match missing <= unknown {
        true => Ok(()),
        false => {
            Err(format!("of {last} versions {missing} were written by nobody, {unknown} writes are unknown"))
        }
    }
}

/// What was over before something began is before it in the order of versions too.
fn real_time(ops: &[RegisterOp]) -> Result<(), String> {
    let mut ended: Vec<(u64, u64)> =
        ops.iter().filter_map(|op| Some((op.span.completed?, op.version()?))).collect();
    ended.sort_unstable();
    let mut begun: Vec<&RegisterOp> = ops.iter().filter(|op| op.version().is_some()).collect();
    begun.sort_unstable_by_key(|op| op.span.invoked);
    let (mut place, mut highest) = (0, 1);
    for op in begun {
        while place < ended.len() && ended[place].0 < op.span.invoked {
            highest = highest.max(ended[place].1);
            place += 1;
        }
        let least = highest + u64::from(op.is_write());
        if op.version().is_some_and(|version| version < least) {
            return Err(format!("{op:?}, but version {highest} had been seen before"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(span: (u64, u64), asked: Asked, said: Said) -> RegisterOp {
        RegisterOp { span: Span { invoked: span.0, completed: (span.1 > 0).then_some(span.1) }, asked, said }
    }

    fn write(span: (u64, u64), value: &str, if_version: Option<u64>, version: u64) -> RegisterOp {
        let said = if version == 0 { Said::Unknown } else { Said::Is(version, value.to_owned()) };
        op(span, Asked::Write { value: value.to_owned(), if_version }, said)
    }

    fn read(span: (u64, u64), version: u64, value: &str) -> RegisterOp {
        op(span, Asked::Read, Said::Is(version, value.to_owned()))
    }

    fn refused(span: (u64, u64), if_version: u64) -> RegisterOp {
        op(span, Asked::Write { value: "r".to_owned(), if_version: Some(if_version) }, Said::OtherVersion)
    }

    /// Overlapping operations may go either way, and an unknown write may have been done.
    #[test]
    fn sound_histories_pass() {
        check_register(&[read((1, 2), 1, "")]).unwrap();
        check_register(&[write((1, 4), "a", Some(1), 2), read((2, 3), 2, "a"), read((2, 3), 1, "")]).unwrap();
        check_register(&[write((1, 0), "a", None, 0), read((5, 6), 2, "a"), refused((3, 4), 1)]).unwrap();
        check_register(&[write((1, 0), "a", None, 0), write((3, 4), "b", None, 3), read((5, 6), 3, "b")])
            .unwrap();
    }

    /// Each planted violation is found.
    #[test]
    fn violations_are_found() {
        let table = [
            ("two values", vec![write((1, 2), "a", None, 2), write((3, 4), "b", None, 2)]),
            ("lost write", vec![write((1, 2), "a", None, 2), read((3, 4), 1, "")]),
            ("from nowhere", vec![read((1, 2), 2, "x")]),
            ("from the future", vec![read((1, 2), 2, "a"), write((3, 4), "a", None, 2)]),
            ("refused and done", vec![refused((1, 2), 1), write((1, 2), "b", None, 2), read((3, 4), 3, "r")]),
            ("refused without cause", vec![refused((1, 2), 1), write((3, 4), "b", None, 2)]),
            ("condition passed over", vec![write((1, 0), "a", None, 0), write((2, 3), "b", Some(1), 3)]),
            (
                "unknown condition passed over",
                vec![write((1, 2), "a", None, 2), write((1, 0), "b", Some(1), 0), read((3, 4), 3, "b")],
            ),
            ("version left out", vec![write((1, 2), "a", None, 3)]),
            ("stale read", vec![write((1, 2), "a", None, 2), read((3, 4), 2, "a"), read((5, 6), 1, "")]),
            (
                "value twice",
                vec![write((1, 2), "a", None, 2), write((1, 0), "b", None, 0), read((3, 4), 3, "a")],
            ),
        ];
        for (what, ops) in table {
            assert!(check_register(&ops).is_err(), "{what}");
        }
    }
}
