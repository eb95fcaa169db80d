//! Arithmetic over names, which are columns of a table (`c/(6*n)`, `` `Training FLOP` / 6e9 ``) or quantities of a cell
//! (`1e-3 * (width/64)^-1`).
//!
//! ```text
//! sum     = product { ("+" | "-") product }
//! product = factor { ("*" | "/") factor }
//! factor  = "-" factor | operand [ "^" factor ]
//! operand = number | ["column:" | "axis:"] ( name | "`" any "`" ) | "(" sum ")" | ("min" | "max") "(" sum "," sum ")"
//! ```

use std::fmt;

/// Parentheses and signs in one another.
const DEPTH_MAX: usize = 100;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A number.
    Number(f64),
    /// A quantity: for a table a column, or what is mapped, by name.
    Name(String),
    /// A column of the table, whatever is mapped.
    OfTable(String),
    /// A quantity that is mapped, whatever columns there are.
    Mapped(String),
    /// -x.
    Negated(Box<Expression>),
    /// Two operands.
    Binary(Operator, Box<Expression>, Box<Expression>),
}

/// What is done with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Over,
    /// `^`
    Power,
    /// `min(x, y)`
    Min,
    /// `max(x, y)`
    Max,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {reason}")]
pub struct ExpressionError {
    /// From 1.
    pub at: usize,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl Expression {
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        let chars: Vec<char> = text.chars().collect();
        let mut parser = Parser { chars: &chars, at: 0 };
        let expression = parser.sum(0)?;
        match parser.peek() {
            None => Ok(expression),
            Some(c) => Err(parser.error(format!(
                "`{c}` is not expected here; a name with other signs than letters, digits, `_` and `.` is written in \
                 backticks"
            ))),
        }
    }

    /// What stands for a number in it, left to right.
    pub fn names(&self) -> Vec<&Expression> {
        match self {
            Expression::Number(_) => Vec::new(),
            Expression::Name(_) | Expression::OfTable(_) | Expression::Mapped(_) => vec![self],
            Expression::Negated(of) => of.names(),
            Expression::Binary(_, one, other) => [one.names(), other.names()].concat(),
        }
    }

    /// Its value, with `named` giving those of names; stops at the first that has none.
    pub fn value<E>(&self, named: &mut impl FnMut(&str) -> Result<f64, E>) -> Result<f64, E> {
        Ok(match self {
            Expression::Number(value) => *value,
            Expression::Name(name) | Expression::OfTable(name) | Expression::Mapped(name) => named(name)?,
            Expression::Negated(of) => -of.value(named)?,
            Expression::Binary(operator, one, other) => {
                let (one, other) = (one.value(named)?, other.value(named)?);
                match operator {
                    Operator::Plus => one + other,
                    Operator::Minus => one - other,
                    Operator::Times => one * other,
                    Operator::Over => one / other,
                    Operator::Power => one.powf(other),
                    Operator::Min => one.min(other),
                    Operator::Max => one.max(other),
                }
            }
        })
    }

    /// The same with what [`Expression::names`] lists replaced.
    #[must_use]
    pub fn replaced(&self, with: &impl Fn(&Expression) -> Option<Expression>) -> Expression {
        match self {
            Expression::Number(_) => self.clone(),
            Expression::Name(_) | Expression::OfTable(_) | Expression::Mapped(_) => {
                with(self).unwrap_or_else(|| self.clone())
            }
            Expression::Negated(of) => Expression::Negated(Box::new(of.replaced(with))),
            Expression::Binary(operator, one, other) => {
                Expression::Binary(*operator, Box::new(one.replaced(with)), Box::new(other.replaced(with)))
            }
        }
    }
}

/// Fully in parentheses, so that it reads back as the same tree.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::Number(value) => write!(f, "{value:?}"),
            Expression::Name(name) => write!(f, "`{name}`"),
            Expression::OfTable(name) => write!(f, "column:`{name}`"),
            Expression::Mapped(name) => write!(f, "axis:`{name}`"),
            Expression::Negated(of) => write!(f, "-{of}"),
            Expression::Binary(operator, one, other) => match operator {
                Operator::Plus => write!(f, "({one} + {other})"),
                Operator::Minus => write!(f, "({one} - {other})"),
                Operator::Times => write!(f, "({one} * {other})"),
                Operator::Over => write!(f, "({one} / {other})"),
                // `-x ^ y` is -(x ^ y).
                Operator::Power => write!(f, "(({one}) ^ {other})"),
                Operator::Min => write!(f, "min({one}, {other})"),
                Operator::Max => write!(f, "max({one}, {other})"),
            },
        }
    }
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
}

impl Parser<'_> {
    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn error(&self, reason: impl Into<String>) -> ExpressionError {
        ExpressionError { at: self.at + 1, reason: reason.into() }
    }

    fn sum(&mut self, depth: usize) -> Result<Expression, ExpressionError> {
        self.chain(depth, [('+', Operator::Plus), ('-', Operator::Minus)], Parser::product)
    }

    fn product(&mut self, depth: usize) -> Result<Expression, ExpressionError> {
        self.chain(depth, [('*', Operator::Times), ('/', Operator::Over)], Parser::factor)
    }

    /// Operators of one rank bind to the left.
    fn chain(
        &mut self,
        depth: usize,
        operators: [(char, Operator); 2],
        operand: fn(&mut Self, usize) -> Result<Expression, ExpressionError>,
    ) -> Result<Expression, ExpressionError> {
        let mut left = operand(self, depth)?;
        loop {
            let next = self.peek();
            let Some((_, operator)) = operators.into_iter().find(|(sign, _)| Some(*sign) == next) else {
                return Ok(left);
            };
            self.at += 1;
            left = Expression::Binary(operator, Box::new(left), Box::new(operand(self, depth)?));
        }
    }

    /// `^` binds tighter than a sign before it, and to the right: -2^2 is -4, 2^-1 a half, 2^3^2 is 2^9.
    fn factor(&mut self, depth: usize) -> Result<Expression, ExpressionError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} parentheses, signs or powers in one another")));
        }
        if self.peek() == Some('-') {
            self.at += 1;
            return Ok(Expression::Negated(Box::new(self.factor(depth + 1)?)));
        }
        let base = self.operand(depth)?;
        if self.peek() != Some('^') {
            return Ok(base);
        }
        self.at += 1;
        Ok(Expression::Binary(Operator::Power, Box::new(base), Box::new(self.factor(depth + 1)?)))
    }

    fn operand(&mut self, depth: usize) -> Result<Expression, ExpressionError> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.sum(depth + 1)?;
                self.expect(')')?;
                Ok(inner)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() || c == '_' || c == '`' => {
                let first = self.name()?;
                match (c, self.chars.get(self.at)) {
                    ('`', _) => return Ok(Expression::Name(first)),
                    (_, Some('(')) => return self.call(&first, depth),
                    (_, Some(':')) => {}
                    _ => return Ok(Expression::Name(first)),
                }
                self.at += 1;
                match first.as_str() {
                    "column" => Ok(Expression::OfTable(self.name()?)),
                    "axis" => Ok(Expression::Mapped(self.name()?)),
                    _ => Err(self.error(format!(
                        "`{first}:` is not known; `column:NAME` is a column of the table, `axis:KEY` what is mapped to \
                         that key"
                    ))),
                }
            }
            Some(c) => Err(self.error(format!("`{c}` where a number, a name or `(` is expected"))),
            None => Err(self.error("it ends where a number, a name or `(` is expected")),
        }
    }

    /// The function that is called so, of two operands; at its `(`.
    fn call(&mut self, function: &str, depth: usize) -> Result<Expression, ExpressionError> {
        let operator = match function {
            "min" => Operator::Min,
            "max" => Operator::Max,
            _ => return Err(self.error(format!("`{function}` is no function; those are `min(x, y)` and `max(x, y)`"))),
        };
        self.at += 1;
        let one = self.sum(depth + 1)?;
        self.expect(',')?;
        let other = self.sum(depth + 1)?;
        self.expect(')')?;
        Ok(Expression::Binary(operator, Box::new(one), Box::new(other)))
    }

    fn expect(&mut self, sign: char) -> Result<(), ExpressionError> {
        if self.peek() != Some(sign) {
            return Err(self.error(format!("a `{sign}` is missing")));
        }
        self.at += 1;
        Ok(())
    }

    /// A name, plain or in backticks.
    fn name(&mut self) -> Result<String, ExpressionError> {
        if self.chars.get(self.at) == Some(&'`') {
            self.at += 1;
            let rest = &self.chars[self.at..];
            let length = rest.iter().position(|c| *c == '`').ok_or_else(|| self.error("a backtick is missing"))?;
            self.at += length + 1;
            return Ok(rest[..length].iter().collect());
        }
        let rest = &self.chars[self.at..];
        let in_name = |c: &char| c.is_alphanumeric() || *c == '_' || *c == '.';
        let length = rest.iter().position(|c| !in_name(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error("a name is missing"));
        }
        self.at += length;
        Ok(rest[..length].iter().collect())
    }

    fn number(&mut self) -> Result<Expression, ExpressionError> {
        let rest = &self.chars[self.at..];
        let mut length = 0;
        while let Some(&c) = rest.get(length) {
            let exponent = length > 0 && matches!(rest[length - 1], 'e' | 'E');
            if !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || exponent && matches!(c, '+' | '-')) {
                break;
            }
            length += 1;
        }
        let text: String = rest[..length].iter().collect();
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        let value = value.ok_or_else(|| self.error(format!("`{text}` is no number")))?;
        self.at += length;
        Ok(Expression::Number(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> f64 {
        let expression = Expression::parse(text).expect(text);
        let mut named = |name: &str| match name {
            "n" => Ok(2.0),
            "Training FLOP" => Ok(120.0),
            other => Err(other.to_owned()),
        };
        expression.value(&mut named).expect(text)
    }

    #[test]
    fn arithmetic() {
        let cases = [
            ("`Training FLOP`/(6*n)", 10.0),
            ("1 - 2 - 3", -4.0),
            ("8/4/2", 1.0),
            ("2+3*4", 14.0),
            ("-(1)--2", 1.0),
            ("1e3*.5e-1", 50.0),
            ("-2^2 + 2^-1 + 2^3^2", 508.5),
            ("(-2)^2 * 3", 12.0),
            ("min(n, 1) + max(n*n, 3 )", 5.0),
        ];
        for (text, wanted) in cases {
            assert!((value(text) - wanted).abs() < 1e-12, "{text} is {}", value(text));
        }
    }

    #[test]
    fn mistakes_are_placed() {
        let said = |text: &str| Expression::parse(text).expect_err(text).to_string();
        assert_eq!(said("6*"), "at character 3: it ends where a number, a name or `(` is expected");
        assert_eq!(said("(1"), "at character 3: a `)` is missing");
        assert!(said("Model Size").starts_with("at character 7: `S` is not expected here; a name with other signs"));
        assert_eq!(said("1.2.3"), "at character 1: `1.2.3` is no number");
        assert_eq!(said("`a"), "at character 2: a backtick is missing");
        assert!(said("colum:n*2").starts_with("at character 7: `colum:` is not known; `column:NAME`"));
        assert_eq!(said("axis:*2"), "at character 6: a name is missing");
        assert_eq!(said("sqrt(n)"), "at character 5: `sqrt` is no function; those are `min(x, y)` and `max(x, y)`");
        assert_eq!(said("min(1)"), "at character 6: a `,` is missing");
        for deep in ["(", "-", "2^", "min("] {
            assert!(said(&deep.repeat(5000)).contains("more than 100"), "{deep}");
        }
    }

    fn expressions() -> impl Strategy<Value = Expression> {
        use Operator::{Max, Min, Minus, Over, Plus, Power, Times};
        let leaf = prop_oneof![
            (0.0..1e12_f64).prop_map(Expression::Number),
            "[a-zA-Z @/-]{1,8}".prop_map(Expression::Name),
            "[a-zA-Z @/-]{1,8}".prop_map(Expression::OfTable),
            "[a-z]{1,8}".prop_map(Expression::Mapped),
        ];
        let operators = prop::sample::select(vec![Plus, Minus, Times, Over, Power, Min, Max]);
        leaf.prop_recursive(5, 40, 2, move |inner| {
            prop_oneof![
                inner.clone().prop_map(|of| Expression::Negated(Box::new(of))),
                (operators.clone(), inner.clone(), inner).prop_map(|(operator, one, other)| Expression::Binary(
                    operator,
                    Box::new(one),
                    Box::new(other)
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(expression in expressions()) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(expression) = Expression::parse(&text) {
                prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
            }
        }
    }
}
