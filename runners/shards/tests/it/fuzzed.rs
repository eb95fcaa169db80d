//! The body of the fuzz target `shard` (`fuzz/`), with valid shards that are changed at random.

use proptest::prelude::*;

use crate::support::{END, JPEG, file, member, pair};

#[path = "../../../../fuzz/bodies/mutate.rs"]
mod mutate;
#[path = "../../../../fuzz/bodies/shard.rs"]
mod shard;

fn seeds() -> Vec<Vec<u8>> {
    let pax = b"26 path=folder/00000.jpg\n";
    vec![
        [pair("00000"), pair("00001"), END.to_vec()].concat(),
        [member(b"././@PaxHeader", b'x', pax), file("x", JPEG), file("folder/00000.txt", b"words"), END.to_vec()]
            .concat(),
        [member(b"././@LongLink", b'L', b"a/long/name.jpg\0"), file("x", JPEG), END.to_vec(), pair("b"), END.to_vec()]
            .concat(),
        [file("a.jpg", JPEG), file("a.cls", b"1"), member(b"a.txt", b'2', b""), file("a.json", b"{}"), END.to_vec()]
            .concat(),
        Vec::new(),
    ]
}

proptest! {
    #[test]
    fn shards_with_damage(bytes in mutate::mutated(seeds())) {
        shard::check(&bytes);
    }
}
