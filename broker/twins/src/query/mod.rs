//! Conditions over twins: the query language of the hub, as far as whole rows are asked for.
//!
//! A text is parsed once ([`parse`], [`parse_condition`]) and asked about many rows
//! ([`Query::matches`]). A row is the twin as the service reads it: `deviceId`, `moduleId`, `tags`,
//! `properties.desired`, `properties.reported` and the rest. Called by the service API for device
//! queries, and by whatever targets devices by a condition.
//!
//! What a condition means:
//! 1. "Only boolean true passes; null, undefined, numbers, strings, objects are false." So every
//!    test is true or false, and `NOT` turns it around: `NOT tags.a = 1` is true where there is no
//!    `tags.a`.
//! 2. A comparison with something undefined, with an object or an array, or between two types is
//!    false, `!=` too. Only null may be compared with any type: `tags.a != null` is true for
//!    whatever is there and not null.
//! 3. Numbers compare by value, strings by their characters' numbers, booleans and null only as
//!    equal or not.
//!
//! Grammar, with keywords in any case, `/* comments */` between words, and names that start with
//! the source (`devices.deviceId`) standing for the same without it:
//!
//! ```text
//! query    := SELECT '*' FROM ( devices | devices.modules ) [ WHERE or ]
//! or       := and ( OR and )*          and := not ( AND not )*          not := NOT not | test
//! test     := operand ( = | != | <> | < | > | <= | >= ) operand
//!           | operand ( IN | NIN ) '[' [ literal ( ',' literal )* ] ']'
//!           | IS_DEFINED '(' operand ')' | IS_NULL '(' operand ')'
//!           | STARTS_WITH '(' operand ',' operand ')' | operand | '(' or ')'
//! operand  := path | literal
//! path     := name ( '.' name | '[' string ']' )*       name := identifier | '[[' anything ']]'
//! literal  := undefined | null | true | false | [-] number | 0xHEX | 'text' | "text"
//! ```
//!
//! Names of the twin's own fields are found in any case (`DeviceId`), those of tags and properties
//! only as they are spelt. Not here, and refused by name: projections, aggregates, TOP, GROUP BY,
//! arithmetic, `devices.jobs`.

mod ast;
mod error;
mod eval;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

pub use ast::{Comparison, Condition, Literal, Operand, Path, Query, Source};
pub use error::QueryError;
pub use parser::{parse, parse_condition};

/// Length of a query in bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Parentheses and NOTs inside each other. Chains of AND and OR don't nest.
pub const NESTING_MAX: usize = 64;
