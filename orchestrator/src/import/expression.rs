//! Arithmetic over the columns of a table: `c/(6*n)`, `` `Training FLOP` / 6e9 ``.
//!
//! ```text
//! sum     = product { ("+" | "-") product }
//! product = factor { ("*" | "/") factor }
//! factor  = number | ["column:" | "axis:"] ( name | "`" any "`" ) | "(" sum ")" | "-" factor
//! ```

use std::fmt;

/// Parentheses and signs in one another.
const DEPTH_MAX: usize = 100;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A number.
    Number(f64),
    /// A column, or a quantity that is mapped, by name.
    Column(String),
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
                "`{c}` is not expected here; a column whose name has other signs than letters, digits, `_` and `.` is \
                 written in backticks"
            ))),
        }
    }

    /// What stands for a number of the row in it, left to right.
    pub fn names(&self) -> Vec<&Expression> {
        match self {
            Expression::Number(_) => Vec::new(),
            Expression::Column(_) | Expression::OfTable(_) | Expression::Mapped(_) => vec![self],
            Expression::Negated(of) => of.names(),
            Expression::Binary(_, one, other) => [one.names(), other.names()].concat(),
        }
    }

    /// Its value, with `column` giving those of columns; stops at the first that has none.
    pub fn value<E>(&self, column: &mut impl FnMut(&str) -> Result<f64, E>) -> Result<f64, E> {
        Ok(match self {
            Expression::Number(value) => *value,
            Expression::Column(name) | Expression::OfTable(name) | Expression::Mapped(name) => column(name)?,
            Expression::Negated(of) => -of.value(column)?,
            Expression::Binary(operator, one, other) => {
                let (one, other) = (one.value(column)?, other.value(column)?);
                match operator {
                    Operator::Plus => one + other,
                    Operator::Minus => one - other,
                    Operator::Times => one * other,
                    Operator::Over => one / other,
                }
            }
        })
    }

    /// The same with what [`Expression::names`] lists replaced.
    #[must_use]
    pub fn replaced(&self, with: &impl Fn(&Expression) -> Option<Expression>) -> Expression {
        match self {
            Expression::Number(_) => self.clone(),
            Expression::Column(_) | Expression::OfTable(_) | Expression::Mapped(_) => {
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
            Expression::Column(name) => write!(f, "`{name}`"),
            Expression::OfTable(name) => write!(f, "column:`{name}`"),
            Expression::Mapped(name) => write!(f, "axis:`{name}`"),
            Expression::Negated(of) => write!(f, "-{of}"),
            Expression::Binary(operator, one, other) => {
                let sign = match operator {
                    Operator::Plus => '+',
                    Operator::Minus => '-',
                    Operator::Times => '*',
                    Operator::Over => '/',
                };
                write!(f, "({one} {sign} {other})")
            }
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

    fn factor(&mut self, depth: usize) -> Result<Expression, ExpressionError> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} parentheses or signs in one another")));
        }
        match self.peek() {
            Some('-') => {
                self.at += 1;
                Ok(Expression::Negated(Box::new(self.factor(depth + 1)?)))
            }
            Some('(') => {
                self.at += 1;
                let inner = self.sum(depth + 1)?;
                if self.peek() != Some(')') {
                    return Err(self.error("a `)` is missing"));
                }
                self.at += 1;
                Ok(inner)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() || c == '_' || c == '`' => {
                let first = self.name()?;
                if c == '`' || self.chars.get(self.at) != Some(&':') {
                    return Ok(Expression::Column(first));
                }
                self.at += 1;
                match first.as_str() {
                    "column" => Ok(Expression::OfTable(self.name()?)),
                    "axis" => Ok(Expression::Mapped(self.name()?)),
                    _ => Err(self.error(format!(
                        "`{first}:` is not known; `column:NAME` is a column of the table, `axis:KEY` what \
                                                 is mapped to that key"
                    ))),
                }
            }
            Some(c) => Err(self.error(format!("`{c}` where a number, a column or `(` is expected"))),
            None => Err(self.error("it ends where a number, a column or `(` is expected")),
        }
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
        let value = super::number(&text).ok_or_else(|| self.error(format!("`{text}` is no number")))?;
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
        let mut column = |name: &str| match name {
            "n" => Ok(2.0),
            "Training FLOP" => Ok(120.0),
            other => Err(other.to_owned()),
        };
        expression.value(&mut column).expect(text)
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
        ];
        for (text, wanted) in cases {
            assert!((value(text) - wanted).abs() < 1e-12, "{text} is {}", value(text));
        }
    }

    #[test]
    fn mistakes_are_placed() {
        let said = |text: &str| Expression::parse(text).expect_err(text).to_string();
        assert_eq!(said("6*"), "at character 3: it ends where a number, a column or `(` is expected");
        assert_eq!(said("(1"), "at character 3: a `)` is missing");
        assert!(said("Model Size").starts_with("at character 7: `S` is not expected here; a column whose name"));
        assert_eq!(said("1.2.3"), "at character 1: `1.2.3` is no number");
        assert_eq!(said("`a"), "at character 2: a backtick is missing");
        assert!(said("colum:n*2").starts_with("at character 7: `colum:` is not known; `column:NAME`"));
        assert_eq!(said("axis:*2"), "at character 6: a name is missing");
        assert!(said(&"(".repeat(5000)).contains("more than 100"));
    }

    fn expressions() -> impl Strategy<Value = Expression> {
        let leaf = prop_oneof![
            (0.0..1e12_f64).prop_map(Expression::Number),
            "[a-zA-Z @/-]{1,8}".prop_map(Expression::Column),
            "[a-zA-Z @/-]{1,8}".prop_map(Expression::OfTable),
            "[a-z]{1,8}".prop_map(Expression::Mapped),
        ];
        let operators = prop::sample::select(vec![Operator::Plus, Operator::Minus, Operator::Times, Operator::Over]);
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
