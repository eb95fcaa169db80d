//! Headers byte by byte: what counts, what is counted as unused, what is an error.

use proptest::prelude::*;
use shards::Error;

use crate::support::{END, JPEG, file, header, member, pair, read, sign, told};

fn seen(parts: &[&[u8]]) -> Vec<String> {
    told(&read(parts).unwrap())
}

#[test]
fn names_longer_than_a_header_are_read_in_all_three_forms() {
    let key = "k".repeat(150);
    let gnu = |ending: &str, bytes: &[u8]| {
        let long = member(b"././@LongLink", b'L', format!("{key}.{ending}\0").as_bytes());
        [long, file(&key[..100], bytes)].concat()
    };
    let pax = |ending: &str, bytes: &[u8]| {
        // 3 digits, a space, `path=`, the name, a newline.
        let record = format!("{} path={key}.{ending}\n", 3 + 1 + 5 + key.len() + 1 + ending.len() + 1);
        [member(b"PaxHeader", b'x', record.as_bytes()), file("cut", bytes)].concat()
    };
    let prefixed = |ending: &str, bytes: &[u8]| {
        let mut header = header(format!("b.{ending}").as_bytes(), b'0', bytes.len());
        header[345..345 + key.len()].copy_from_slice(key.as_bytes());
        sign(&mut header);
        let mut all = [&header, bytes].concat();
        all.resize(all.len().next_multiple_of(512), 0);
        all
    };
    assert_eq!(seen(&[&gnu("jpg", JPEG), &gnu("txt", b"words"), &END]), std::slice::from_ref(&key));
    assert_eq!(seen(&[&pax("jpg", JPEG), &pax("txt", b"words"), &END]), std::slice::from_ref(&key));
    assert_eq!(seen(&[&prefixed("jpg", JPEG), &prefixed("txt", b"words"), &END]), [format!("{key}/b")]);
}

#[test]
fn a_size_in_a_pax_header_or_in_binary_holds() {
    let record = b"12 size=512\n";
    let pax = [member(b"PaxHeader", b'x', record), header(b"a.txt", b'0', 0).to_vec(), vec![b'w'; 512]].concat();
    assert_eq!(seen(&[&file("a.jpg", JPEG), &pax, &pair("b"), &END]), ["a", "b"]);
    let mut binary = header(b"a.txt", b'0', 0);
    binary[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    sign(&mut binary);
    assert_eq!(seen(&[&file("a.jpg", JPEG), &binary, &[b'w'; 512], &pair("b"), &END]), ["a", "b"]);
}

#[test]
fn joined_archives_are_read_to_the_end() {
    assert_eq!(seen(&[&pair("a"), &END, &[0; 8192], &pair("b"), &END, &pair("c"), &END]), ["a", "b", "c"]);
    // The second was cut between two members.
    let error = read(&[&pair("a"), &END, &pair("b")]).unwrap_err();
    assert!(matches!(&error, Error::Truncated { at: 5120, .. }), "{error}");
    let error = read(&[&pair("a"), &END, b"something else"]).unwrap_err();
    assert!(matches!(&error, Error::Truncated { .. }), "{error}");
}

#[test]
fn keys_end_at_the_first_dot_of_the_last_part() {
    assert_eq!(
        seen(&[
            &file("holiday.0001.jpg", JPEG),
            &file("holiday.0001.txt", b"x"),
            &file("holiday.0002.jpg", JPEG),
            &file("v1.2/a.JPG", JPEG),
            &file("v1.2/a.Txt", b"x"),
            &file("./b.seg.png", JPEG),
            &file("b.jpg", JPEG),
            &file("b.txt", b"x"),
            &file("no-dot", b"x"),
            &file(".hidden.txt", b"x"),
            &END
        ]),
        ["holiday: no image, a dot in its name", "v1.2/a", "b"]
    );
}

#[test]
fn a_key_that_comes_again_is_counted() {
    assert_eq!(seen(&[&pair("a"), &pair("a"), &pair("b"), &END]), ["a", "a: key twice in its shard", "b"]);
    assert_eq!(seen(&[&pair("a"), &pair("b"), &pair("a"), &END]), ["a", "b", "a: key twice in its shard"]);
    let apart = [file("a.jpg", JPEG), file("b.jpg", JPEG), file("a.txt", b"x"), file("b.txt", b"x")].concat();
    assert_eq!(seen(&[&apart, &END]), ["a: no caption", "b: no caption", "a: members apart", "b: members apart"]);
}

#[test]
fn links_and_sparse_files_are_counted_and_part_nothing() {
    let link = |name: &str, kind| {
        let mut header = header(name.as_bytes(), kind, 77);
        header[157..161].copy_from_slice(b"else");
        sign(&mut header);
        header
    };
    let between = [file("a.jpg", JPEG), link("x.jpg", b'2').to_vec(), file("a.txt", b"x")].concat();
    let hard = [link("h.jpg", b'1').to_vec(), file("h.txt", b"x")].concat();
    let sparse = [member(b"s.jpg", b'S', JPEG), file("s.txt", b"x")].concat();
    let folder = header(b"folder.d/", b'5', 99);
    assert_eq!(
        seen(&[&folder, &between, &hard, &sparse, &pair("z"), &END]),
        ["a", "h: a link", "s: a sparse file", "z", "x: a link"]
    );
    // GNU's PAX form of a sparse file: its bytes start with a map.
    let record = b"30 GNU.sparse.name=sparse.jpg\n";
    let pax = [member(b"PaxHeader", b'x', record), file("GNUSparseFile.0/x", JPEG), file("sparse.txt", b"x")].concat();
    assert_eq!(seen(&[&pax, &END]), ["sparse: a sparse file"]);
}

#[test]
fn captions_that_say_nothing_are_empty() {
    for nothing in ["", " \r\n", "\u{feff}", "\0", "\u{200b}\u{200d} \u{2060}", "\u{feff}\0\u{ad}"] {
        let parts = [file("a.jpg", JPEG), file("a.txt", nothing.as_bytes()), END.to_vec()];
        assert_eq!(seen(&parts.each_ref().map(Vec::as_slice)), ["a: empty caption"], "{nothing:?}");
    }
    let samples = read(&[&file("a.jpg", JPEG), &file("a.txt", "\u{feff}a caf\u{e9}\n\0".as_bytes()), &END]).unwrap();
    assert_eq!(samples[0].content.as_ref().unwrap().caption, "a caf\u{e9}");
}

#[test]
fn images_are_told_by_content() {
    for (bytes, good) in [
        (&b"\xff\xd8\xff\xdb"[..], true),
        (b"\x89PNG\r\n\x1a\n", true),
        (b"RIFF\0\0\0\0WEBPVP8 ", true),
        (b"RIFF\0\0\0\0WAVEfmt ", false),
        (b"<html>404</html>", false),
        (b"", false),
    ] {
        let parts = [file("a.webp", bytes), file("a.txt", b"x"), END.to_vec()];
        let expected = if good { "a" } else { "a: not an image" };
        assert_eq!(seen(&parts.each_ref().map(Vec::as_slice)), [expected], "{bytes:?}");
    }
}

#[test]
fn damage_is_told_with_its_place() {
    let mut shard = [pair("a"), pair("b"), END.to_vec()].concat();
    shard[2048 + 3] ^= 0x40;
    let error = read(&[&shard]).unwrap_err();
    assert!(matches!(error, Error::Damaged { at: 2048, .. }), "{error}");
    let error = read(&[&member(b"PaxHeader", b'x', b"9 path=a\n"), &pair("a"), &END]).map(|samples| told(&samples));
    assert!(error.is_ok(), "9 bytes are 9 bytes");
    let error = read(&[&member(b"PaxHeader", b'x', b"8 path=a\n"), &pair("a"), &END]).unwrap_err();
    assert!(matches!(error, Error::Damaged { at: 512, .. }), "{error}");
    for (start, format) in [(&b"\x1f\x8b\x08\0"[..], "gzip"), (b"BZh91AY&SY", "bzip2")] {
        let error = read(&[start, &[7; 600]]).unwrap_err();
        assert!(error.to_string().contains(format), "{error}");
        assert!(error.hint().contains(" -d < "), "{}", error.hint());
    }
    assert_eq!(seen(&[&pair("BZh"), &END]), ["BZh"]);
}

#[test]
fn the_list_of_a_sparse_file_is_passed_over() {
    let mut sparse = header(b"s.jpg", b'S', 512);
    sparse[482] = 1;
    sign(&mut sparse);
    let mut list = [[0_u8; 512]; 2];
    list[0][504] = 1;
    let parts = [&sparse[..], &list[0], &list[1], &[7; 512], &file("s.txt", b"x"), &pair("a"), &END];
    assert_eq!(seen(&parts), ["s: a sparse file", "a"]);
}

proptest! {
    /// Whatever the bytes, there is an answer, and one that leaves nothing out is all of it.
    #[test]
    fn changed_bytes_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kinds in prop::collection::vec(prop::sample::select(vec![b'0', b'L', b'x', b'g', b'S', b'1', b'5', b'?']), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut shard = pair("first");
        for kind in kinds {
            shard.extend(member(b"k.jpg", kind, b"12 size=512\n"));
        }
        shard.extend(pair("last"));
        shard.extend(END);
        for (at, byte) in changes {
            let at = at.index(shard.len());
            shard[at] = byte;
            // A header whose checksum holds goes further than one that is refused at once.
            let block = at / 512 * 512;
            if shard[block + 257..block + 262] == *b"ustar" {
                let mut header: [u8; 512] = shard[block..block + 512].try_into().unwrap();
                sign(&mut header);
                shard[block..block + 512].copy_from_slice(&header);
            }
        }
        let whole = read(&[&shard]).map(|samples| samples.len());
        let part = read(&[&shard[..cut.index(shard.len())]]).map(|samples| samples.len());
        if let (Ok(whole), Ok(part)) = (whole, part) {
            prop_assert!(part <= whole);
        }
    }
}
