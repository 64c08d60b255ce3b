//! From text to words, one at a time.

use serde_json::{Number, Value};

use super::QueryError;
use crate::error::shown;

/// One word of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or keyword, as it is spelt.
    Word(String),
    /// What stood between quotes.
    Text(String),
    /// A number without sign.
    Number(Value),
    /// Punctuation, and comparisons of one or two characters.
    Sign(&'static str),
    /// Behind the last word.
    End,
}

/// All signs; those of two characters before their beginnings.
const SIGNS: [&str; 20] =
    ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*", "-", "+", "/", "%", "{", "}"];

/// A cursor over the text.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Behind the word that was read last.
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// The next word and where it begins.
    pub fn next(&mut self) -> Result<(Token, usize), QueryError> {
        self.skip_blank()?;
        let start = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok((Token::End, start)) };
        let token = match first {
            '\'' | '"' => Token::Text(self.string(first)?),
            '0'..='9' => Token::Number(self.number()?),
            c if in_word(c) => Token::Word(self.take_while(in_word).to_owned()),
            _ => Token::Sign(self.sign()?),
        };
        Ok((token, start))
    }

    /// Goes back to `start`, where a `[` was read, and reads `[[name]]`. None if it is no such name.
    pub fn quoted_name(&mut self, start: usize) -> Option<Result<String, QueryError>> {
        let inside = self.text.get(start..)?.strip_prefix("[[")?;
        let Some(len) = inside.find("]]") else {
            return Some(Err(QueryError::BadToken { at: start, what: "the name", reason: "does not end" }));
        };
        self.at = start + 2 + len + 2;
        Some(Ok(inside[..len].to_owned()))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn skip_blank(&mut self) -> Result<(), QueryError> {
        loop {
            self.take_while(|c| c.is_ascii_whitespace());
            let Some(comment) = self.rest().strip_prefix("/*") else { return Ok(()) };
            let Some(len) = comment.find("*/") else {
                return Err(self.bad("the comment", "does not end"));
            };
            self.at += 2 + len + 2;
        }
    }

    fn sign(&mut self) -> Result<&'static str, QueryError> {
        let rest = self.rest();
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign)).ok_or_else(|| {
            let found = shown(&rest.chars().take(1).collect::<String>());
            QueryError::Syntax { at: self.at, expected: "a word of the query language", found }
        })?;
        self.at += sign.len();
        Ok(sign)
    }

    fn number(&mut self) -> Result<Value, QueryError> {
        let start = self.at;
        let mut text = self.take_while(|c| in_word(c) || c == '.');
        // The sign of an exponent belongs to the number.
        let exponent = text.ends_with(['e', 'E']) && !text.contains(['x', 'X']);
        if exponent && self.rest().starts_with(['+', '-']) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_alphanumeric());
            text = &self.text[start..self.at];
        }
        let found = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).ok().map(Number::from)
            }
            Some(_) => None,
            None => serde_json::from_str(text).ok(),
        };
        let bad = QueryError::BadToken { at: start, what: "the number", reason: "is malformed or too large" };
        found.map(Value::Number).ok_or(bad)
    }

    /// "String escapes: `\'` `\"` `\\` `\uXXXX`". A character beyond 16 bits is two of the last.
    fn string(&mut self, quote: char) -> Result<String, QueryError> {
        let start = self.at;
        let bad = |reason| QueryError::BadToken { at: start, what: "the string", reason };
        self.at += 1;
        let mut units = Vec::new();
        loop {
            units.extend(self.take_while(|c| c != quote && c != '\\').encode_utf16());
            let mut chars = self.rest().chars();
            match (chars.next(), chars.next()) {
                (None, _) | (Some('\\'), None) => return Err(bad("does not end")),
                (Some('\\'), Some(c @ ('\'' | '"' | '\\'))) => {
                    units.push(c as u16);
                    self.at += 2;
                }
                (Some('\\'), Some('u')) => {
                    let digits =
                        self.rest().get(2..6).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                    let unit = digits.and_then(|hex| u16::from_str_radix(hex, 16).ok());
                    units.push(unit.ok_or_else(|| bad("has an escape without four hexadecimal digits"))?);
                    self.at += 6;
                }
                (Some('\\'), _) => return Err(bad("has an escape that is none")),
                _ => break,
            }
        }
        self.at += 1;
        String::from_utf16(&units).map_err(|_| bad("has half of a pair of escapes"))
    }

    fn bad(&self, what: &'static str, reason: &'static str) -> QueryError {
        QueryError::BadToken { at: self.at, what, reason }
    }
}

/// Characters of names and keywords: those of identifiers, `$`, and whatever isn't ASCII.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || c == '_'
        || c == '$'
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}
