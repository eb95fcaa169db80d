//! Weights of every form that is read, and files that are none, damaged, or dangerous.

use std::io::Write as _;

use proptest::prelude::*;
use tch::Device;

use super::*;
use crate::parameters::{Declaration, Init};

/// A training checkpoint that torch wrote: `tests/weights.py`.
const TORCH: &[u8] = include_bytes!("../../tests/weights.pt");

fn model(shapes: &[(&str, &[i64])]) -> Parameters {
    let declare = |(name, shape): &(&str, &[i64])| Declaration {
        name: (*name).to_owned(),
        shape: shape.to_vec(),
        init: Init::Constant(-1.0),
    };
    Parameters::new(shapes.iter().map(declare).collect(), 0, Device::Cpu)
}

fn small() -> Parameters {
    model(&[("logit_scale", &[]), ("weight", &[2, 3]), ("bias", &[3]), ("proj", &[3, 2])])
}

fn load_bytes(bytes: &[u8], parameters: &mut Parameters) -> Result<(), WeightsError> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("writes");
    let sha256 = format!("{:x}", Sha256::digest(bytes));
    load(&Weights { path: file.path().to_owned(), sha256 }, Path::new("/"), parameters)
}

fn values(parameters: &Parameters, name: &str) -> Vec<f32> {
    Vec::try_from(parameters.get(name).detach().reshape([-1_i64])).expect("numbers")
}

fn refused(bytes: &[u8]) -> String {
    load_bytes(bytes, &mut small()).expect_err("refused").to_string()
}

fn is_small(parameters: &Parameters) {
    assert_eq!(values(parameters, "logit_scale"), [2.5]);
    assert_eq!(values(parameters, "weight"), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(values(parameters, "bias"), [1., 2., 3.]);
    assert_eq!(values(parameters, "proj"), [0., 3., 1., 4., 2., 5.]);
}

#[test]
fn a_training_checkpoint_of_torch_is_read_with_its_types_views_and_prefix() {
    let mut parameters = small();
    load_bytes(TORCH, &mut parameters).expect("weights");
    is_small(&parameters);
    // The flat buffer is what the optimiser sees.
    let sum = parameters.flat.sum(Kind::Double).double_value(&[]);
    assert!((sum - (2.5 + 15. + 6. + 15.)).abs() < 1e-9, "{sum}");
}

/// A safetensors file of fp32 tensors.
fn safetensors(tensors: &[(&str, &[u64], &[f32])]) -> Vec<u8> {
    let (mut entries, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        entries.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&entries).expect("JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

fn small_safetensors() -> Vec<u8> {
    safetensors(&[
        ("bias", &[3], &[1., 2., 3.]),
        ("logit_scale", &[1], &[2.5]),
        ("proj", &[3, 2], &[0., 3., 1., 4., 2., 5.]),
        ("weight", &[2, 3], &[0., 1., 2., 3., 4., 5.]),
    ])
}

#[test]
fn safetensors_are_read() {
    let mut parameters = small();
    load_bytes(&small_safetensors(), &mut parameters).expect("weights");
    is_small(&parameters);
}

#[test]
fn weights_of_another_model_are_named() {
    let mut other = model(&[("logit_scale", &[]), ("positional_embedding", &[4, 2]), ("weight", &[2, 3])]);
    let file = safetensors(&[
        ("positional_embedding", &[3, 2], &[0.0; 6]),
        ("logit_scale", &[], &[1.0]),
        ("text.weight", &[2], &[0.0; 2]),
    ]);
    let error = load_bytes(&file, &mut other).expect_err("refused").to_string();
    for words in [
        "it lacks `weight`",
        "the model has no `text.weight`",
        "`positional_embedding` is [3, 2] in the file, [4, 2] in the model (positions are not interpolated)",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(values(&other, "logit_scale") == [-1.0], "nothing was changed");
    let error = refused(&safetensors(&[
        ("bias", &[3], &[1., f32::NAN, 3.]),
        ("logit_scale", &[], &[2.5]),
        ("proj", &[3, 2], &[0.; 6]),
        ("weight", &[2, 3], &[0.; 6]),
    ]));
    assert!(error.contains("`bias` holds NaN"), "{error}");
}

#[test]
fn other_bytes_than_were_planned_with_are_refused() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(TORCH).expect("writes");
    let weights = Weights { path: file.path().to_owned(), sha256: "0".repeat(64) };
    let error = load(&weights, Path::new("/"), &mut small()).expect_err("refused").to_string();
    assert!(error.contains("have changed") && error.contains("plan again"), "{error}");
}

/// A stored zip archive as `torch.save` lays it out.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let offset = out.len() as u32;
        let size = (bytes.len() as u32).to_le_bytes();
        let fields = [&[0; 2 + 2 + 2 + 4 + 4][..], &size, &size, &(name.len() as u16).to_le_bytes(), &[0; 2]].concat();
        out.extend([b"PK\x03\x04\x14\0", &fields[2..], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\0\x14\0", &fields[2..], &[0; 10], &offset.to_le_bytes()].concat());
        directory.extend(name.as_bytes());
    }
    let count = (members.len() as u16).to_le_bytes();
    let (start, length) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(
        [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &length.to_le_bytes(), &start.to_le_bytes(), &[0; 2]].concat(),
    );
    out
}

fn of_pickle(pickle: &[u8]) -> String {
    refused(&archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 24])]))
}

#[test]
fn a_pickle_that_acts_is_refused_with_the_name_of_what_it_wants() {
    assert!(of_pickle(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.").contains("asks Python for `os.system`"));
    assert!(of_pickle(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").contains("`builtins.eval`"));
    // Names that are known, called with what they do not take.
    let call = of_pickle(b"\x80\x02ccollections\nOrderedDict\nX\x02\0\0\0ls\x85R.");
    assert!(call.contains("a call with other arguments"), "{call}");
    // Instructions that make objects of classes.
    assert!(of_pickle(b"\x80\x02(ios\nsystem\n.").contains("instruction 0x69 at byte 3"));
}

#[test]
fn odd_pickles_end_in_an_error() {
    // A dictionary that holds itself, by memo and as its own state dict.
    let inner = b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.";
    assert!(of_pickle(inner).contains("its entry `state_dict` is no tensor"), "{}", of_pickle(inner));
    // A tuple in a tuple, a million deep, and as many values without an end.
    let deep = [&b"\x80\x02)"[..], &vec![0x85; 1_000_000], b"."].concat();
    assert!(of_pickle(&deep).contains("no dictionary of tensors"));
    assert!(of_pickle(&vec![b'('; 1_000_000]).contains("cut off"));
    // A value, a mark or an entry of the memo a byte, without an end.
    for opcode in [b')', b']', b'}', b'(', b'N'] {
        assert!(of_pickle(&vec![opcode; 3_000_000]).contains("more than 2000000 values"));
    }
    assert!(of_pickle(&[&b")"[..], &vec![0x94; 3_000_000]].concat()).contains("more than 2000000 values"));
    // Lengths beyond the end.
    assert!(of_pickle(b"\x80\x02X\xff\xff\xff\xffab").contains("cut off"));
    assert!(of_pickle(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff").contains("cut off"));
}

/// A tensor of a storage of 24 bytes with this offset, shape and stride, as instructions.
fn tensor(offset: u8, extent: &[u8], stride: &[u8]) -> Vec<u8> {
    let storage: &[u8] = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ";
    [b"ctorch._utils\n_rebuild_tensor_v2\n", storage, &[b'K', offset], extent, b"\x85", stride, b"\x85\x89)tR"].concat()
}

#[test]
fn a_tensor_beyond_its_storage_is_refused() {
    let model = |tensor: Vec<u8>| [&b"\x80\x02}X\x04\0\0\0bias"[..], &tensor, b"s."].concat();
    let whole = of_pickle(&model(tensor(3, b"K\x03", b"K\x01")));
    assert!(whole.contains("it lacks `weight`, `proj`, `logit_scale`"), "{whole}");
    let huge: &[u8] = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    for (offset, extent, stride) in
        [(4, &b"K\x03"[..], &b"K\x01"[..]), (0, huge, huge), (0, b"K\x03", huge), (0, huge, b"K\x01")]
    {
        let error = of_pickle(&model(tensor(offset, extent, stride)));
        assert!(error.contains("`bias` is larger than what is stored"), "{error}");
    }
}

#[test]
fn other_files_are_refused_with_a_way_out() {
    let script = archive(&[("a/data.pkl", b"."), ("a/code/model.py", b""), ("a/constants.pkl", b"")]);
    assert!(refused(&script).contains("TorchScript archive") && refused(&script).contains("torch.jit.load"));
    assert!(refused(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j").contains("old form"));
    assert!(refused(b"short").contains("it has 5 bytes"));
    assert!(refused(b"no weights, some words").contains("neither a safetensors file nor"));
    assert!(refused(&archive(&[("word/document.xml", b"")])).contains("no `data.pkl`"));
    let mut packed = archive(&[("a/data.pkl", b"N.")]);
    let at = packed.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    packed[at + 10] = 8;
    assert!(refused(&packed).contains("`a/data.pkl` is compressed"));
    let cut = &TORCH[..TORCH.len() / 2];
    assert!(refused(cut).contains("cut off"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_files_never_panic(
        torch in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = if torch { TORCH.to_vec() } else { small_safetensors() };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        // Whether it loads depends on which byte was changed; it must come back, within the memory of the file.
        let _ = load_bytes(&bytes, &mut small());
    }

    #[test]
    fn drawn_pickles_never_panic(instructions in prop::collection::vec(
        prop::sample::select(b"}])(.QRbtuesaNKqhX\x80\x85\x86\x87\x88\x8a\x8c\x93\x94\x95\0\x01".to_vec()), 0..200,
    )) {
        let _ = load_bytes(&archive(&[("a/data.pkl", &instructions)]), &mut small());
    }
}
