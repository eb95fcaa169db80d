//! Delimited text as pandas reads it by default: a header, fields that may be in double quotes, where a separator or a
//! line break is part of the field and two quotes are one.

/// A table's rows, the header first, each with the line that it begins on. Empty lines are none.
pub(super) fn rows(text: &str, separator: char) -> Result<Vec<(usize, Vec<String>)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quoted_at) = (1, 1, None);
    let mut chars = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted_at.is_some() && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted_at.is_some() => quoted_at = None,
            _ if quoted_at.is_some() => field.push(c),
            '"' if field.is_empty() && !is_quoted => (quoted_at, is_quoted) = (Some(line), true),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' => {
                row.push(std::mem::take(&mut field));
                let whole = std::mem::take(&mut row);
                if is_quoted || whole != [""] {
                    rows.push((begun, whole));
                }
                (begun, is_quoted) = (line, false);
            }
            c if c == separator => {
                row.push(std::mem::take(&mut field));
                is_quoted = false;
            }
            c => field.push(c),
        }
    }
    if let Some(at) = quoted_at {
        return Err(format!("the quote of line {at} is never closed"));
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push((begun, row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str, separator: char) -> Vec<Vec<String>> {
        rows(text, separator).unwrap().into_iter().map(|(_, row)| row).collect()
    }

    #[test]
    fn fields_are_read_as_pandas_reads_them() {
        assert_eq!(fields("a\tb\r\n1\t2\n\n3\t\n", '\t'), [["a", "b"], ["1", "2"], ["3", ""]]);
        assert_eq!(
            fields("\u{feff}a,b\n\"x, \"\"y\"\"\nz\",it's 5\" wide", ','),
            [["a", "b"], ["x, \"y\"\nz", "it's 5\" wide"]]
        );
        assert_eq!(fields("a\n\"\"\n", ','), [["a"], [""]]);
        assert_eq!(rows("a,b\n\"x\ny\",1\n2,3\n", ',').unwrap()[2].0, 4, "lines count within quotes");
        assert_eq!(rows("a\n\"x\ny", ',').unwrap_err(), "the quote of line 2 is never closed");
    }
}
