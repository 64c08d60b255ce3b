//! From words to the tree. Recursive descent: one function for each line of the grammar in
//! `mod.rs`, and recursion only in [`Parser::not`], where it is counted.

use serde_json::Value;

use super::lexer::{Lexer, Token};
use super::{
    Comparison, Condition, Literal, NESTING_MAX, Operand, Path, Query, QueryError, Source, TEXT_BYTES_MAX,
};
use crate::error::shown;

/// Parses `SELECT * FROM devices [WHERE condition]`, or the same of `devices.modules`.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser::new(text)?;
    let query = parser.query()?;
    parser.end()?;
    Ok(query)
}

/// Parses a condition alone, as in a job or the target of a configuration.
pub fn parse_condition(text: &str) -> Result<Condition, QueryError> {
    let mut parser = Parser::new(text)?;
    let condition = parser.or()?;
    parser.end()?;
    Ok(condition)
}

/// Words that begin no value.
const KEYWORDS: [&str; 11] =
    ["AND", "OR", "NOT", "IN", "NIN", "SELECT", "FROM", "WHERE", "GROUP", "ORDER", "BY"];

/// What stands between values to calculate.
const ARITHMETIC: [&str; 5] = ["+", "-", "*", "/", "%"];

/// The twin's own fields, found in any case.
const FIELDS: [&str; 20] = [
    "deviceId",
    "moduleId",
    "tags",
    "properties",
    "etag",
    "version",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "modelId",
    "configurations",
];

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The word to read next, and where it begins.
    token: Token,
    at: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>, QueryError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(QueryError::TooLong { found: text.len(), limit: TEXT_BYTES_MAX });
        }
        let mut lexer = Lexer::new(text);
        let (token, at) = lexer.next()?;
        Ok(Parser { lexer, token, at, nesting: 0 })
    }

    /// Takes the word that is next.
    fn advance(&mut self) -> Result<Token, QueryError> {
        let (token, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn is_word(&self, keyword: &str) -> bool {
        matches!(&self.token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Takes the keyword, if it is next.
    fn take_word(&mut self, keyword: &str) -> Result<bool, QueryError> {
        let is = self.is_word(keyword);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    /// Takes the sign, if it is next.
    fn take_sign(&mut self, sign: &str) -> Result<bool, QueryError> {
        let is = self.is_sign(sign);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn expect(&self, taken: bool, expected: &'static str) -> Result<(), QueryError> {
        if taken { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> QueryError {
        let found = match &self.token {
            Token::Word(word) => shown(word),
            Token::Text(_) => "a string".to_owned(),
            Token::Number(_) => "a number".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::End => "the end".to_owned(),
        };
        QueryError::Syntax { at: self.at, expected, found }
    }

    fn unsupported(&self, what: &str) -> QueryError {
        QueryError::Unsupported { at: self.at, what: shown(what) }
    }

    fn end(&self) -> Result<(), QueryError> {
        if self.is_word("GROUP") {
            return Err(self.unsupported("GROUP BY"));
        }
        self.expect(self.token == Token::End, "AND, OR or the end")
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        let select = self.take_word("SELECT")?;
        self.expect(select, "SELECT")?;
        self.everything()?;
        let from = self.take_word("FROM")?;
        self.expect(from, "FROM")?;
        let source = self.source()?;
        let condition = if self.take_word("WHERE")? { Some(self.or()?) } else { None };
        Ok(Query { source, condition })
    }

    fn everything(&mut self) -> Result<(), QueryError> {
        if self.is_word("TOP") {
            return Err(self.unsupported("TOP"));
        }
        if ["COUNT", "AVG", "SUM", "MIN", "MAX"].iter().any(|word| self.is_word(word)) {
            return Err(self.unsupported("an aggregate"));
        }
        if matches!(self.token, Token::Word(_)) && !self.is_word("FROM") {
            return Err(self.unsupported("a list of what to select"));
        }
        let star = self.take_sign("*")?;
        self.expect(star, "*")
    }

    fn source(&mut self) -> Result<Source, QueryError> {
        let devices = self.take_word("devices")?;
        self.expect(devices, "devices or devices.modules")?;
        if !self.take_sign(".")? {
            return Ok(Source::Devices);
        }
        if self.is_word("jobs") {
            return Err(self.unsupported("devices.jobs"));
        }
        let modules = self.take_word("modules")?;
        self.expect(modules, "modules")?;
        Ok(Source::Modules)
    }

    fn or(&mut self) -> Result<Condition, QueryError> {
        let first = self.and()?;
        if !self.is_word("OR") {
            return Ok(first);
        }
        let mut any = vec![first];
        while self.take_word("OR")? {
            any.push(self.and()?);
        }
        Ok(Condition::Or(any))
    }

    fn and(&mut self) -> Result<Condition, QueryError> {
        let first = self.not()?;
        if !self.is_word("AND") {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.take_word("AND")? {
            all.push(self.not()?);
        }
        Ok(Condition::And(all))
    }

    /// The only way down again, so nesting is counted here.
    fn not(&mut self) -> Result<Condition, QueryError> {
        let (not, group) = (self.is_word("NOT"), self.is_sign("("));
        if !not && !group {
            return self.test();
        }
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(QueryError::TooDeep { at: self.at, limit: NESTING_MAX });
        }
        self.advance()?;
        let condition = if not { Condition::Not(Box::new(self.not()?)) } else { self.group()? };
        self.nesting -= 1;
        Ok(condition)
    }

    /// What follows an opening parenthesis. `(tags.a) = 1` is a comparison like any other.
    fn group(&mut self) -> Result<Condition, QueryError> {
        let inside = self.or()?;
        let closed = self.take_sign(")")?;
        self.expect(closed, "AND, OR or )")?;
        match inside {
            Condition::Truth(operand) => self.test_of(operand),
            other => Ok(other),
        }
    }

    fn test(&mut self) -> Result<Condition, QueryError> {
        let Token::Word(name) = &self.token else {
            let operand = self.operand()?;
            return self.test_of(operand);
        };
        let (name, at) = (name.clone(), self.at);
        self.advance()?;
        if self.is_sign("(") {
            return self.function(&name, at);
        }
        let operand = self.operand_from(name, at)?;
        self.test_of(operand)
    }

    fn function(&mut self, name: &str, at: usize) -> Result<Condition, QueryError> {
        let condition = match name.to_ascii_uppercase().as_str() {
            "IS_DEFINED" => Condition::IsDefined(self.argument()?),
            "IS_NULL" => Condition::IsNull(self.argument()?),
            "STARTS_WITH" | "STARTSWITH" => {
                let text = self.argument()?;
                self.expect(self.is_sign(","), ",")?;
                Condition::StartsWith(text, self.argument()?)
            }
            _ if is_keyword(name) => {
                return Err(QueryError::Syntax { at, expected: "a value", found: shown(name) });
            }
            _ => return Err(QueryError::Unsupported { at, what: format!("the function {}", shown(name)) }),
        };
        let closed = self.take_sign(")")?;
        self.expect(closed, ")")?;
        Ok(condition)
    }

    /// Takes the parenthesis or comma that is next, and the argument behind it.
    fn argument(&mut self) -> Result<Operand, QueryError> {
        self.advance()?;
        self.operand()
    }

    /// The test that begins with a value.
    fn test_of(&mut self, left: Operand) -> Result<Condition, QueryError> {
        if let Some(comparison) = self.comparison() {
            self.advance()?;
            let right = self.operand()?;
            self.no_arithmetic()?;
            return Ok(Condition::Compare { left, comparison, right });
        }
        self.no_arithmetic()?;
        let negated = self.is_word("NIN");
        if negated || self.is_word("IN") {
            self.advance()?;
            return Ok(Condition::In { operand: left, list: self.list()?, negated });
        }
        Ok(Condition::Truth(left))
    }

    fn no_arithmetic(&self) -> Result<(), QueryError> {
        if ARITHMETIC.iter().any(|sign| self.is_sign(sign)) {
            return Err(self.unsupported("arithmetic"));
        }
        Ok(())
    }

    fn comparison(&self) -> Option<Comparison> {
        let Token::Sign(sign) = self.token else { return None };
        Some(match sign {
            "=" => Comparison::Equal,
            "!=" | "<>" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn list(&mut self) -> Result<Vec<Literal>, QueryError> {
        let open = self.take_sign("[")?;
        self.expect(open, "[")?;
        let mut list = Vec::new();
        if self.take_sign("]")? {
            return Ok(list);
        }
        loop {
            let at = self.at;
            match self.operand()? {
                Operand::Literal(literal) => list.push(literal),
                Operand::Path(path) => {
                    let found = shown(&path.to_string());
                    return Err(QueryError::Syntax { at, expected: "a constant", found });
                }
            }
            if self.take_sign("]")? {
                return Ok(list);
            }
            let comma = self.take_sign(",")?;
            self.expect(comma, ", or ]")?;
        }
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        let at = self.at;
        match &self.token {
            Token::Word(_) => match self.advance()? {
                Token::Word(word) if self.is_sign("(") && !is_keyword(&word) => {
                    Err(QueryError::Unsupported { at, what: format!("the function {}", shown(&word)) })
                }
                Token::Word(word) => self.operand_from(word, at),
                _ => Err(self.unexpected("a value")),
            },
            Token::Text(_) | Token::Number(_) => self.constant(),
            Token::Sign("-") => {
                self.advance()?;
                self.expect(matches!(self.token, Token::Number(_)), "a number")?;
                Ok(negative(self.constant()?))
            }
            Token::Sign("[") => {
                let name = self.quoted_name("a value")?;
                self.path(name)
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn constant(&mut self) -> Result<Operand, QueryError> {
        match self.advance()? {
            Token::Text(text) => Ok(constant(Value::String(text))),
            Token::Number(number) => Ok(constant(number)),
            _ => Err(self.unexpected("a constant")),
        }
    }

    /// The value that begins with a word, which was taken.
    fn operand_from(&mut self, word: String, at: usize) -> Result<Operand, QueryError> {
        match word.to_ascii_lowercase().as_str() {
            "undefined" => Ok(Operand::Literal(Literal(None))),
            "null" => Ok(constant(Value::Null)),
            "true" => Ok(constant(Value::Bool(true))),
            "false" => Ok(constant(Value::Bool(false))),
            _ if is_keyword(&word) => {
                Err(QueryError::Syntax { at, expected: "a value", found: shown(&word) })
            }
            _ => self.path(word),
        }
    }

    /// The path that begins with a name, which was taken.
    fn path(&mut self, first: String) -> Result<Operand, QueryError> {
        let mut names = vec![first];
        loop {
            if self.take_sign(".")? {
                names.push(self.name()?);
            } else if self.is_sign("[") {
                names.push(self.index()?);
            } else {
                return Ok(Operand::Path(Path(own_name(names))));
            }
        }
    }

    /// A name behind a dot: any word, keywords too, or `[[anything]]`.
    fn name(&mut self) -> Result<String, QueryError> {
        if !matches!(self.token, Token::Word(_)) {
            return self.quoted_name("a name");
        }
        match self.advance()? {
            Token::Word(word) => Ok(word),
            _ => Err(self.unexpected("a name")),
        }
    }

    /// `[[anything]]`
    fn quoted_name(&mut self, expected: &'static str) -> Result<String, QueryError> {
        let name = if self.is_sign("[") { self.lexer.quoted_name(self.at) } else { None };
        let name = name.ok_or_else(|| self.unexpected(expected))??;
        self.advance()?;
        Ok(name)
    }

    /// `['name']`
    fn index(&mut self) -> Result<String, QueryError> {
        self.advance()?;
        if matches!(self.token, Token::Number(_)) {
            return Err(self.unsupported("an array index"));
        }
        self.expect(matches!(self.token, Token::Text(_)), "a quoted name")?;
        let Token::Text(name) = self.advance()? else { return Err(self.unexpected("a quoted name")) };
        let closed = self.take_sign("]")?;
        self.expect(closed, "]")?;
        Ok(name)
    }
}

fn constant(value: Value) -> Operand {
    Operand::Literal(Literal(Some(value)))
}

fn negative(number: Operand) -> Operand {
    match number {
        // What JSON has no number for can't come out of one; it would stay as it is.
        Operand::Literal(Literal(Some(value))) => {
            constant(serde_json::from_str(&format!("-{value}")).unwrap_or(value))
        }
        other => other,
    }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// Takes the source off the beginning, and spells the twin's own field as the twin does.
fn own_name(mut names: Vec<String>) -> Vec<String> {
    let is = |names: &[String], at: usize, source: &str| {
        names.len() > at + 1 && names[at].eq_ignore_ascii_case(source)
    };
    if is(&names, 0, "devices") {
        let prefix = if is(&names, 1, "modules") { 2 } else { 1 };
        names.drain(..prefix);
    }
    if let Some(field) = FIELDS.iter().find(|field| field.eq_ignore_ascii_case(&names[0])) {
        names[0] = (*field).to_owned();
    }
    names
}
