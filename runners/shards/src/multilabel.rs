//! Several classes an image: `KEY.npy` holds NumPy's form of a vector with a number for each class, 1 or 0, as
//! CLIP_benchmark writes its multi-label sets.

/// Most classes: more than any set has, and no reason to ask for all memory.
const CLASSES_MAX: usize = 1 << 20;

/// The classes of the vector in `bytes`, ascending; or why it is none.
pub(crate) fn classes(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not in NumPy's form")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or("it is cut off")?;
    let (length, rest) = if version[0] == 1 {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or("it is cut off")?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or("it is cut off")?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length).ok_or("it is cut off")?;
    let header = String::from_utf8_lossy(header);
    let kind = field(&header, "descr").map(|kind| kind.trim_matches(['\'', '"'])).ok_or("it has no `descr`")?;
    let shape = header.split_once("'shape':").and_then(|(_, rest)| rest.split_once('(')?.1.split_once(')'));
    let (shape, _) = shape.ok_or("it has no `shape`")?;
    let sides: Vec<&str> = shape.split(',').map(str::trim).filter(|side| !side.is_empty()).collect();
    let [side] = sides[..] else { return Err(format!("its shape is ({shape}), a vector has one number")) };
    let count = side.parse::<usize>().ok().filter(|count| *count <= CLASSES_MAX);
    let count = count.ok_or_else(|| format!("its shape is ({shape}), allowed are {CLASSES_MAX} classes"))?;
    let width = match kind {
        "|b1" | "|u1" | "|i1" => 1,
        "<i2" | "<u2" => 2,
        "<i4" | "<u4" | "<f4" => 4,
        "<i8" | "<u8" | "<f8" => 8,
        other => return Err(format!("its numbers are `{other}`; allowed: bool, 8 to 64 bits, little-endian")),
    };
    if data.len() != count * width {
        return Err(format!("it has {} bytes of numbers, {count} of `{kind}` are {}", data.len(), count * width));
    }
    // One has one form in each kind of number: as an integer, or as a float.
    let one: Vec<u8> = match kind {
        "<f4" => 1_f32.to_le_bytes().to_vec(),
        "<f8" => 1_f64.to_le_bytes().to_vec(),
        _ => 1_u64.to_le_bytes()[..width].to_vec(),
    };
    let mut found = Vec::new();
    for (class, number) in data.chunks_exact(width).enumerate() {
        if number == one {
            found.push(class as u32);
        } else if number.iter().any(|byte| *byte != 0) {
            return Err(format!("its number of class {class} is neither 0 nor 1"));
        }
    }
    Ok(found)
}

fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':"))?;
    Some(rest.split_once(',')?.0.trim())
}

/// What stands in for a caption: the names of the classes.
pub(crate) fn caption(classes: &[u32], class_names: &[String]) -> String {
    let names: Vec<&str> =
        classes.iter().filter_map(|class| class_names.get(*class as usize)).map(String::as_str).collect();
    if names.is_empty() { "nothing that has a name".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.save` writes version 1.
    fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn vectors_of_every_kind_of_number_are_read() {
        assert_eq!(classes(&npy("|b1", "(3,)", &[1, 0, 1])), Ok(vec![0, 2]));
        let numbers: Vec<u8> = [0_i64, 1, 1].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(classes(&npy("<i8", "(3,)", &numbers)), Ok(vec![1, 2]));
        let numbers: Vec<u8> = [0_f32, 0.0, 1.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(classes(&npy("<f4", "(3,)", &numbers)), Ok(vec![2]));
        assert_eq!(classes(&npy("|u1", "(2,)", &[0, 0])), Ok(vec![]));
    }

    #[test]
    fn what_is_no_vector_of_0_and_1_says_why() {
        let reason = |bytes: &[u8]| classes(bytes).unwrap_err();
        assert!(reason(b"3").contains("not in NumPy's form"));
        assert!(reason(&npy("|u1", "(2,)", &[0, 2])).contains("class 1 is neither 0 nor 1"));
        assert!(reason(&npy("|u1", "(2, 1)", &[0, 1])).contains("(2, 1)"));
        assert!(reason(&npy(">i4", "(1,)", &[0; 4])).contains("`>i4`"));
        assert!(reason(&npy("|u1", "(3,)", &[0, 1])).contains("2 bytes"));
        assert!(reason(&npy("|u1", "(99999999999,)", &[])).contains("99999999999"));
        assert!(reason(b"\x93NUMPY\x01\x00\xff\xff{").contains("cut off"));
    }

    #[test]
    fn names_stand_in_for_a_caption() {
        let names = ["cat".to_owned(), "dog".to_owned()];
        assert_eq!(caption(&[0, 1], &names), "cat, dog");
        assert_eq!(caption(&[], &names), "nothing that has a name");
    }
}
