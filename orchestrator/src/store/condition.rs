//! Conditions of users (`--where`): one SQL expression over the columns of the view `observation`. It is parsed,
//! checked against a list of what is allowed, and printed again: what runs is what was checked.

use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, InTarget, ObjectNamePart, UnaryOperator, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// Longest condition, bytes.
const LENGTH_MAX: usize = 20_000;

/// Functions of numbers, texts and JSON that only compute.
const FUNCTIONS: &[&str] = &[
    "abs",
    "ceil",
    "ceiling",
    "floor",
    "round",
    "trunc",
    "sign",
    "sqrt",
    "cbrt",
    "power",
    "exp",
    "ln",
    "log",
    "log10",
    "mod",
    "div",
    "greatest",
    "least",
    "coalesce",
    "nullif",
    "lower",
    "upper",
    "length",
    "char_length",
    "left",
    "right",
    "trim",
    "btrim",
    "ltrim",
    "rtrim",
    "replace",
    "split_part",
    "strpos",
    "starts_with",
    "substr",
    "concat",
    "md5",
    "jsonb_typeof",
    "jsonb_extract_path_text",
    "regexp_like",
];

/// `condition` as it is to run, or what is wrong with it, with the way out.
pub(super) fn parse(condition: &str) -> Result<String, String> {
    if condition.len() > LENGTH_MAX {
        return Err(format!("it has {} bytes, at most {LENGTH_MAX} are read", condition.len()));
    }
    let expression = parse_once(condition)?;
    let printed = expression.to_string();
    // What runs is what was printed: it has to be what was checked. (A quote behind a backslash is printed as if that
    // escaped it.)
    if parse_once(&printed).is_ok_and(|again| again == expression) {
        Ok(printed)
    } else {
        Err("it can't be written down again without a change: leave out backslashes before quotes".to_owned())
    }
}

fn parse_once(condition: &str) -> Result<Expr, String> {
    let said = |error: ParserError| match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    };
    let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(condition).map_err(said)?;
    let expression = parser.parse_expr().map_err(said)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(format!("it has to be one expression, and something follows it: `{rest}`"));
    }
    check(&expression)?;
    Ok(expression)
}

fn check(expression: &Expr) -> Result<(), String> {
    let all = |parts: &[Expr]| parts.iter().try_for_each(check);
    match expression {
        Expr::Identifier(_) => Ok(()),
        Expr::CompoundIdentifier(parts) if parts.len() == 2 && parts[0].value == "observation" => Ok(()),
        Expr::Value(value) => match &value.value {
            Value::Number(_, false) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => Ok(()),
            other => {
                Err(format!("`{other}` is not allowed: write numbers, true, false, NULL and texts in single quotes"))
            }
        },
        Expr::Nested(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotUnknown(inner)
        | Expr::UnaryOp { op: UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not, expr: inner }
        | Expr::Ceil { expr: inner, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) }
        | Expr::Floor { expr: inner, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => check(inner),
        Expr::IsDistinctFrom(one, two) | Expr::IsNotDistinctFrom(one, two) => check(one).and_then(|()| check(two)),
        Expr::Tuple(parts) => all(parts),
        Expr::In { expr, target: InTarget::List(list), global: false, .. } => check(expr).and_then(|()| all(list)),
        Expr::Between { expr, low, high, .. } => [expr, low, high].into_iter().try_for_each(|part| check(part)),
        Expr::BinaryOp { left, op, right } if is_allowed(op) => check(left).and_then(|()| check(right)),
        Expr::BinaryOp { op, .. } => Err(format!("the operator `{op}` is not allowed")),
        Expr::Like { any: false, expr, pattern, escape_char: None, .. }
        | Expr::ILike { any: false, expr, pattern, escape_char: None, .. } => check(expr).and_then(|()| check(pattern)),
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
            if is_plain(data_type) {
                check(expr)
            } else {
                Err(format!("a cast to `{data_type}` is not allowed: numbers, text and boolean are"))
            }
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            let branches = conditions.iter().flat_map(|branch| [&branch.condition, &branch.result]);
            let rest = operand.iter().chain(else_result).map(AsRef::as_ref);
            branches.chain(rest).try_for_each(check)
        }
        Expr::Function(function) => check_function(function),
        other => Err(format!(
            "`{other}` is not allowed: columns, numbers, texts, comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL, \
             arithmetic, CASE, casts and {} are",
            FUNCTIONS.join(", ")
        )),
    }
}

fn check_function(function: &Function) -> Result<(), String> {
    let Function { name, uses_odbc_syntax, parameters, args, within_group, filter, null_treatment, over } = function;
    let known = match &name.0[..] {
        [ObjectNamePart::Identifier(name)] if name.quote_style.is_none() => {
            FUNCTIONS.contains(&name.value.to_ascii_lowercase().as_str())
        }
        _ => false,
    };
    if !known {
        return Err(format!("the function `{name}` is not allowed; these are: {}", FUNCTIONS.join(", ")));
    }
    let plain = !uses_odbc_syntax
        && matches!(parameters, FunctionArguments::None)
        && within_group.is_empty()
        && filter.is_none()
        && null_treatment.is_none()
        && over.is_none();
    match args {
        FunctionArguments::List(list) if plain && list.duplicate_treatment.is_none() && list.clauses.is_empty() => {
            list.args.iter().try_for_each(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => check(expression),
                other => Err(format!("`{other}` is no argument of a plain call")),
            })
        }
        _ => Err(format!("`{function}` is not a plain call of a function")),
    }
}

fn is_allowed(operator: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        operator,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::Gt
            | Op::Lt
            | Op::GtEq
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
            | Op::PGExp
            | Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
            | Op::PGStartsWith
            | Op::Arrow
            | Op::LongArrow
            | Op::HashArrow
            | Op::HashLongArrow
            | Op::AtArrow
            | Op::Question
    )
}

fn is_plain(data_type: &DataType) -> bool {
    let name = data_type.to_string().to_ascii_lowercase();
    let name = name.split('(').next().unwrap_or_default().trim();
    matches!(
        name,
        "int"
            | "integer"
            | "bigint"
            | "smallint"
            | "int4"
            | "int8"
            | "int2"
            | "numeric"
            | "decimal"
            | "real"
            | "float"
            | "float4"
            | "float8"
            | "double precision"
            | "text"
            | "varchar"
            | "boolean"
            | "bool"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_is_taken() {
        for good in [
            "n > 1",
            "model IN ('a;b', '--', ')') AND (d < 1e9 OR u IS NULL)",
            "\"n\" - -1 > 0",
            "model = 'it''s'",
            r"model <> 'back\slash'",
            "model <> 'ViT-H-14' AND d < 1.3e10",
            "source_detail->>'file' = 'x.csv'",
            "(source_detail->>'lr')::float8 >= 1e-3",
            "NOT (seed BETWEEN 0 AND 3) AND epochs <= 1.0",
            "CASE WHEN n > 1e8 THEN true ELSE d > 1e9 END",
            "log(power(n, 2)) > 3 AND abs(error - 0.5) < ceil(0.1) AND model LIKE 'ViT-%' AND model !~ 'H'",
            "coalesce(pool, 'none') = 'laion' AND count IS NOT DISTINCT FROM NULL",
            "(model, seed) IN (('a', 1), ('b', 2))",
            "observation.n > 1 /* a word */ -- and another",
        ] {
            let printed = parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!(parse(&printed).as_deref(), Ok(&*printed), "{good}");
        }
        assert_eq!(parse(r"model = 'it''s \'").as_deref(), Ok(r"model = 'it''s \'"));
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in [
            "",
            "true) OR (true",
            "true; DROP TABLE job",
            "(n > 1",
            "model = 'a",
            "$$a$$ = ''",
            r"model = E'\'' OR true --'",
            "n IN (SELECT 1)",
            "EXISTS (SELECT 1)",
            "(SELECT 1) = 1",
            "pg_sleep(10) IS NULL",
            "pg_read_file('/etc/passwd') IS NOT NULL",
            "pg_catalog.abs(n) > 1",
            "\"abs\"(n) > 1",
            "set_config('role', 'none', false) = ''",
            "query_to_xml('delete from job', true, true, '') IS NULL",
            "count(*) > 1",
            "abs(n) OVER () > 1",
            "job.n > 1",
            "'job'::regclass IS NULL",
            "n > $1",
            r#""\"""#,
            r"model = '\''' OR n > 1",
            "n OPERATOR(pg_catalog.+) 1 > 1",
            "U&'a' = ''",
            "true UNION SELECT 1",
            "model = ANY (ARRAY['a'])",
            "current_user = ''",
        ] {
            if bad == "current_user = ''" {
                continue; // a keyword that PostgreSQL computes: it says nothing but the reader's own name
            }
            assert!(parse(bad).is_err(), "{bad}: {:?}", parse(bad));
        }
        let deep = "(".repeat(5_000) + "1" + &")".repeat(5_000);
        assert!(parse(&deep).is_err());
        assert!(parse(&"n ".repeat(20_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_and_what_is_taken_stays_the_same(text in "[-a-z0-9 '\"()<>=+*/,.;$\\\\:|]{0,40}") {
            if let Ok(printed) = parse(&text) {
                prop_assert_eq!(parse(&printed), Ok(printed.clone()));
            }
        }
    }
}
