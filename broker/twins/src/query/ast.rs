//! A query as a tree.

use std::fmt;

use serde_json::Value;

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which rows are asked.
    pub source: Source,
    /// What they must fulfil; all rows match without one.
    pub condition: Option<Condition>,
}

/// Which rows a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Twins of devices.
    Devices,
    /// Twins of modules.
    Modules,
}

/// A test of one row. The tree is at most [`NESTING_MAX`](super::NESTING_MAX) parentheses and NOTs
/// deep.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// One of them holds.
    Or(Vec<Condition>),
    /// All of them hold.
    And(Vec<Condition>),
    /// It doesn't hold.
    Not(Box<Condition>),
    /// Two values compare.
    Compare {
        /// The left one.
        left: Operand,
        /// How.
        comparison: Comparison,
        /// The right one.
        right: Operand,
    },
    /// A value is one of a list (or none of it, and defined).
    In {
        /// The value.
        operand: Operand,
        /// The list.
        list: Vec<Literal>,
        /// NIN.
        negated: bool,
    },
    /// The row has it, even if it is null.
    IsDefined(Operand),
    /// It is there and null.
    IsNull(Operand),
    /// The first is a string that begins with the second.
    StartsWith(Operand, Operand),
    /// The value itself is true.
    Truth(Operand),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=` and `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A value in a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// From the row.
    Path(Path),
    /// From the text.
    Literal(Literal),
}

/// A value that stands in the text: none (`undefined`), or null, a boolean, a number, a string.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal(pub Option<Value>);

/// Where a value stands in a row: at least one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(pub Vec<String>);

impl Path {
    /// The value in `row`; none where the row ends before the path.
    pub fn find<'a>(&self, row: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(row, |value, name| value.as_object()?.get(name))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
