//! Asking a condition about a row. Recursion is as deep as the parser let the tree become.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{Comparison, Condition, Literal, Operand, Query};

impl Query {
    /// Whether the row of a twin fulfils the query. Which rows belong to the source is the
    /// caller's to know.
    pub fn matches(&self, row: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.matches(row))
    }
}

impl Condition {
    /// Whether it holds for the row.
    pub fn matches(&self, row: &Value) -> bool {
        match self {
            Condition::Or(any) => any.iter().any(|condition| condition.matches(row)),
            Condition::And(all) => all.iter().all(|condition| condition.matches(row)),
            Condition::Not(condition) => !condition.matches(row),
            Condition::Compare { left, comparison, right } => {
                compares(left.value(row), *comparison, right.value(row))
            }
            Condition::In { operand, list, negated } => is_in(operand.value(row), list, *negated),
            Condition::IsDefined(operand) => operand.value(row).is_some(),
            Condition::IsNull(operand) => operand.value(row).is_some_and(Value::is_null),
            Condition::StartsWith(text, start) => {
                match (text.value(row).and_then(Value::as_str), start.value(row).and_then(Value::as_str)) {
                    (Some(text), Some(start)) => text.starts_with(start),
                    _ => false,
                }
            }
            Condition::Truth(operand) => operand.value(row) == Some(&Value::Bool(true)),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, row: &'a Value) -> Option<&'a Value> {
        match self {
            Operand::Path(path) => path.find(row),
            Operand::Literal(literal) => literal.0.as_ref(),
        }
    }
}

fn is_in(value: Option<&Value>, list: &[Literal], negated: bool) -> bool {
    let is = |comparison| move |literal: &Literal| compares(value, comparison, literal.0.as_ref());
    let primitive = value.is_some_and(|value| !value.is_object() && !value.is_array());
    primitive && negated != list.iter().any(is(Comparison::Equal))
}

/// "Undefined comparisons are false, types don't coerce."
fn compares(left: Option<&Value>, comparison: Comparison, right: Option<&Value>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return false };
    let equal = match (left, right) {
        (Value::Number(left), Value::Number(right)) => return ordered(order(left, right), comparison),
        (Value::String(left), Value::String(right)) => return ordered(Some(left.cmp(right)), comparison),
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        _ => return false,
    };
    match comparison {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        _ => false,
    }
}

fn ordered(ordering: Option<Ordering>, comparison: Comparison) -> bool {
    ordering.is_some_and(|ordering| match comparison {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::LessOrEqual => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
    })
}

/// Integers compare exactly; beside a fraction both are rounded to 53 bits, which every integer of
/// a document fits.
fn order(left: &Number, right: &Number) -> Option<Ordering> {
    let integer = |number: &Number| number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}
