//! Delimited text of others as rows of cells, each with the line of the file that it begins in. What can't be read is
//! an error with a line, never a row that is shifted, cut or left out.

use csv::{ReaderBuilder, StringRecord, Terminator};

use super::table::TableError;

/// Header and rows.
#[derive(Debug, Default)]
pub(super) struct TextTable {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// Lines that the rows begin in, from 1.
    pub(super) lines: Vec<usize>,
}

/// Reads text whose cells are separated by `separator`, or by `;` or a tab where the header has none of it. Comments
/// (`#`) before the header and empty lines are skipped.
pub(super) fn read(name: &str, bytes: &[u8], separator: u8) -> Result<TextTable, TableError> {
    let text = decoded(bytes).map_err(|(line, reason)| TableError::Text { place: format!("{name}:{line}"), reason })?;
    // Old spreadsheets end lines by CR alone. Beside line feeds, one within a line is no end of it.
    let text = if text.contains('\n') {
        text.split('\n').map(|line| line.trim_end_matches('\r')).collect::<Vec<_>>().join("\n")
    } else {
        text.replace('\r', "\n")
    };
    let is_before = |line: &&str| line.trim().is_empty() || line.starts_with('#');
    let skipped = text.lines().take_while(is_before).count();
    let start: usize = text.split_inclusive('\n').take(skipped).map(str::len).sum();
    let table = &text[start..];
    let header = table.lines().next().unwrap_or_default();
    let separator = separator_of(header, separator);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .terminator(Terminator::Any(b'\n'))
        .from_reader(table.as_bytes());
    let mut read = TextTable::default();
    // The reader's own lines are off where lines are empty.
    let (mut counted, mut line) = (0, skipped + 1);
    for (at, record) in reader.records().enumerate() {
        let record = record.map_err(|error| TableError::Text { place: name.to_owned(), reason: error.to_string() })?;
        let from = record.position().map_or(0, csv::Position::byte) as usize;
        let begin = from + table[from..].bytes().take_while(|&byte| byte == b'\n').count();
        line += table[counted..begin].matches('\n').count();
        counted = begin;
        if at == 0 {
            read.columns = record.iter().map(|name| name.trim().to_owned()).collect();
            continue;
        }
        read.rows.push(row(&record, read.columns.len()).map_err(|cells| TableError::Ragged {
            place: format!("{name}:{line}"),
            cells,
            columns: read.columns.len(),
        })?);
        read.lines.push(line);
    }
    let swallows = |row: &Vec<Option<String>>| row.iter().flatten().any(|cell| cell.contains('\n'));
    if table.matches('"').count() % 2 == 1
        && let Some((line, _)) = read.lines.last().zip(read.rows.last()).filter(|(_, row)| swallows(row))
    {
        let reason = "a quote is opened in this row and not closed".to_owned();
        return Err(TableError::Text { place: format!("{name}:{line}"), reason });
    }
    if read.columns.is_empty() {
        let reason = "it is empty; a table begins with the names of its columns".to_owned();
        return Err(TableError::Text { place: name.to_owned(), reason });
    }
    Ok(read)
}

/// As many cells as there are columns; further ones may only be empty. `Err`: how many there are.
fn row(record: &StringRecord, columns: usize) -> Result<Vec<Option<String>>, usize> {
    let filled = |cell: &str| Some(cell.trim().to_owned()).filter(|cell| !cell.is_empty());
    let mut cells: Vec<Option<String>> = record.iter().map(filled).collect();
    let found = cells.len();
    if found < columns || cells.drain(columns..).any(|cell| cell.is_some()) {
        return Err(found);
    }
    Ok(cells)
}

/// The separator that a header has.
fn separator_of(header: &str, usual: u8) -> u8 {
    let has = |separator: &u8| header.as_bytes().contains(separator);
    [usual, b';', b'\t', b','].into_iter().find(has).unwrap_or(usual)
}

/// UTF-8, or UTF-16 that says so with its first two bytes. `Err`: the line, and what is wrong with it.
fn decoded(bytes: &[u8]) -> Result<String, (usize, String)> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        text.map_err(|_| (1, "it begins as UTF-16 does and is none; save it as UTF-8".to_owned()))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line_at = |at: usize| bytes[..at].split(|&byte| byte == b'\n').count();
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err((line_at(at), "it holds a zero byte, as text does not; save it as UTF-8".to_owned()));
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let at = error.valid_up_to();
        (line_at(at), format!("the byte 0x{:02X} is not UTF-8 (Latin-1?); save it as UTF-8", bytes[at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(bytes: &[u8]) -> (Vec<String>, Vec<Vec<String>>, Vec<usize>) {
        let table = read("t.csv", bytes, b',').expect("a table");
        let rows = table.rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect());
        (table.columns, rows.collect(), table.lines)
    }

    fn said(bytes: &[u8]) -> String {
        read("t.csv", bytes, b',').expect_err("it can't be read").to_string()
    }

    #[test]
    fn what_other_programs_write_is_one_table() {
        let wanted = cells(b"n,loss\n1,2.5\n3,4\n");
        let utf16 =
            |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(bytes).collect() };
        for written in [
            b"n;loss\n1;2.5\n3;4\n".to_vec(),
            b"n\tloss\n1\t2.5\n3\t4\n".to_vec(),
            b"n,loss\r\n1,2.5\r\n3,4\r\n".to_vec(),
            b"n,loss\r1,2.5\r3,4".to_vec(),
            b"\xef\xbb\xbfn,loss\n1,2.5\n3,4\n".to_vec(),
            [&b"\xff\xfe"[..], &utf16("n,loss\n1,2.5\n3,4\n", u16::to_le_bytes)].concat(),
            [&b"\xfe\xff"[..], &utf16("n,loss\n1,2.5\n3,4\n", u16::to_be_bytes)].concat(),
            b"n,loss\n1,2.5,\n3,4,,\n".to_vec(),
        ] {
            assert_eq!(cells(&written), wanted, "{written:?}");
        }
        // A stray CR is no line, as in editors.
        let (_, rows, lines) = cells(b"a\n1\r \r\r\n\r\n2\n");
        assert_eq!((rows, lines), (vec![vec!["1".to_owned()], vec!["2".to_owned()]], vec![2, 4]));
        let (columns, rows, lines) = cells(b"# made by us\n\n# twice\nn,loss\n\n1,\"2\n.5\"\n3,4\n");
        assert_eq!((columns, lines), (wanted.0, vec![6, 8]), "lines of the file");
        assert_eq!(rows, [["1", "2\n.5"], ["3", "4"]]);
    }

    #[test]
    fn what_is_no_table_has_a_line() {
        assert_eq!(said(b"n,loss\n1,2\n3\n"), "t.csv:3: 1 cell in a table of 2 columns");
        assert_eq!(said(b"n,loss\n1,2,7\n"), "t.csv:2: 3 cells in a table of 2 columns");
        assert_eq!(said(b"n,loss\n1,\"2\n3,4\n5,6\n"), "t.csv:2: a quote is opened in this row and not closed");
        assert_eq!(said(b"n,loss\n1,2\n# end\n"), "t.csv:3: 1 cell in a table of 2 columns");
        assert_eq!(said(b"n,lo\xdfs\n"), "t.csv:1: the byte 0xDF is not UTF-8 (Latin-1?); save it as UTF-8");
        assert_eq!(said(b"n,loss\n1,\x002\n"), "t.csv:2: it holds a zero byte, as text does not; save it as UTF-8");
        assert_eq!(said(b""), "t.csv: it is empty; a table begins with the names of its columns");
        assert_eq!(said(b"# nothing\n"), "t.csv: it is empty; a table begins with the names of its columns");
    }
}
