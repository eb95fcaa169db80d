//! NCCL without a device: what is said when it is absent, and the calls that collectives make, heard by a fake.

use std::cell::RefCell;
use std::ffi::c_char;
use std::time::Duration;

use super::*;

thread_local! {
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static HEALTH: RefCell<c_int> = const { RefCell::new(api::SUCCESS) };
}

fn heard() -> Vec<String> {
    HEARD.with(RefCell::take)
}

fn note(call: String) -> c_int {
    HEARD.with_borrow_mut(|heard| heard.push(call));
    api::SUCCESS
}

/// A handle and a stream that a call must pass on.
const HANDLE: usize = 0x11;
const STREAM: usize = 0x22;

macro_rules! fake {
    ($($name:ident($($argument:ident: $type:ty),*) -> $format:literal;)*) => {$(
        extern "C" fn $name($($argument: $type,)* handle: Handle, stream: Stream) -> c_int {
            assert_eq!((handle.addr(), stream.addr()), (HANDLE, STREAM));
            note(format!($format))
        }
    )*};
}

fake! {
    all_gather(send: *const c_void, recv: *mut c_void, count: usize, kind: c_int) ->
        "all_gather {send:?} {recv:?} {count} type {kind}";
    reduce_scatter(send: *const c_void, recv: *mut c_void, count: usize, kind: c_int, op: c_int) ->
        "reduce_scatter {send:?} {recv:?} {count} type {kind} op {op}";
    all_reduce(send: *const c_void, recv: *mut c_void, count: usize, kind: c_int, op: c_int) ->
        "all_reduce {send:?} {recv:?} {count} type {kind} op {op}";
    reduce(send: *const c_void, recv: *mut c_void, count: usize, kind: c_int, op: c_int, root: c_int) ->
        "reduce {send:?} {recv:?} {count} type {kind} op {op} root {root}";
    broadcast(send: *const c_void, recv: *mut c_void, count: usize, kind: c_int, root: c_int) ->
        "broadcast {send:?} {recv:?} {count} type {kind} root {root}";
    send(send: *const c_void, count: usize, kind: c_int, peer: c_int) -> "send {send:?} {count} type {kind} to {peer}";
    recv(recv: *mut c_void, count: usize, kind: c_int, peer: c_int) -> "recv {recv:?} {count} type {kind} from {peer}";
}

extern "C" fn group_start() -> c_int {
    note("start".to_owned())
}

extern "C" fn group_end() -> c_int {
    note("end".to_owned())
}

extern "C" fn ended(_: Handle) -> c_int {
    note("destroy".to_owned())
}

extern "C" fn aborted(_: Handle) -> c_int {
    note("abort".to_owned())
}

extern "C" fn error_string(_: c_int) -> *const c_char {
    c"remote process exited".as_ptr()
}

#[expect(unsafe_code, reason = "has the type of NCCL's function")]
unsafe extern "C" fn async_error(_: Handle, code: *mut c_int) -> c_int {
    // SAFETY: the caller's number.
    unsafe { *code = HEALTH.with_borrow(|health| *health) };
    api::SUCCESS
}

extern "C" fn version(_: *mut c_int) -> c_int {
    api::SUCCESS
}

extern "C" fn unique_id(_: *mut UniqueId) -> c_int {
    api::SUCCESS
}

extern "C" fn init(_: *mut Handle, _: c_int, _: UniqueId, _: c_int) -> c_int {
    api::SUCCESS
}

/// Rank 1 of 3.
fn group() -> Nccl {
    let control = TcpRing::connect(0, 1, "localhost:0", Duration::from_mins(1)).expect("one rank needs nobody");
    let api = Api {
        version,
        unique_id,
        init,
        destroy: ended,
        abort: aborted,
        async_error,
        error_string,
        group_start,
        group_end,
        all_gather,
        reduce_scatter,
        all_reduce,
        reduce,
        broadcast,
        send,
        recv,
    };
    Nccl { api, handle: std::ptr::without_provenance_mut(HANDLE), rank: 1, world: 3, control }
}

#[expect(unsafe_code, reason = "no memory is behind these pointers, and the fake reads none")]
fn from(at: usize, element: Element, len: usize) -> Buffer<'static> {
    let (pointer, stream) = (std::ptr::without_provenance(at), std::ptr::without_provenance_mut(STREAM));
    // SAFETY: never dereferenced.
    Buffer::Device(unsafe { Device::new(pointer, element, len, stream) })
}

#[expect(unsafe_code, reason = "no memory is behind these pointers, and the fake writes none")]
fn into(at: usize, element: Element, len: usize, stream: usize) -> BufferMut<'static> {
    let (pointer, stream) = (std::ptr::without_provenance_mut(at), std::ptr::without_provenance_mut(stream));
    // SAFETY: never dereferenced.
    BufferMut::Device(unsafe { DeviceMut::new(pointer, element, len, stream) })
}

#[test]
fn even_shares_are_one_call() {
    let group = group();
    let recv = |len| into(0x2000, Element::Bf16, len, STREAM);
    group.all_gather(from(0x1000, Element::Bf16, 4), recv(12), &[4; 3]).expect("a call");
    assert_eq!(heard(), ["all_gather 0x1000 0x2000 4 type 9"]);
    group.reduce_scatter_sum(from(0x1000, Element::Bf16, 12), recv(4), &[4; 3]).expect("a call");
    assert_eq!(heard(), ["reduce_scatter 0x1000 0x2000 4 type 9 op 0"]);
    group.all_reduce(into(0x2000, Element::F64, 5, STREAM), Op::Max).expect("a call");
    assert_eq!(heard(), ["all_reduce 0x2000 0x2000 5 type 8 op 2"]);
    group.broadcast(into(0x2000, Element::F16, 5, STREAM), 2).expect("a call");
    assert_eq!(heard(), ["broadcast 0x2000 0x2000 5 type 6 root 2"]);
    drop(group);
    assert_eq!(heard(), ["destroy"]);
}

#[test]
fn uneven_shares_are_grouped_and_empty_ones_left_out() {
    let group = group();
    let counts = [3, 2, 0];
    group.all_gather(from(0x1000, Element::F32, 2), into(0x2000, Element::F32, 5, STREAM), &counts).expect("a call");
    assert_eq!(
        heard(),
        [
            "start",
            "send 0x1000 2 type 7 to 0",
            "recv 0x2000 3 type 7 from 0",
            "send 0x1000 2 type 7 to 1",
            "recv 0x200c 2 type 7 from 1",
            "send 0x1000 2 type 7 to 2",
            "end"
        ]
    );
    group
        .reduce_scatter_sum(from(0x1000, Element::I64, 5), into(0x2000, Element::I64, 2, STREAM), &counts)
        .expect("a call");
    assert_eq!(
        heard(),
        ["start", "reduce 0x1000 0x2000 3 type 4 op 0 root 0", "reduce 0x1018 0x2000 2 type 4 op 0 root 1", "end"]
    );
}

#[test]
fn bad_arguments_reach_nobody() {
    let group = group();
    let send = from(0x1000, Element::F32, 2);
    for (recv, counts, says) in [
        (into(0x2000, Element::F32, 5, STREAM), [3, 3, 0], "`counts` [3, 3, 0] add up to 6 elements"),
        (into(0x2000, Element::F64, 5, STREAM), [3, 2, 0], "must be of one type and in one place"),
        (into(0x2000, Element::F32, 5, STREAM + 1), [3, 2, 0], "of two streams"),
        (BufferMut::F32(&mut [0.0; 5]), [3, 2, 0], "must be of one type and in one place"),
    ] {
        let error = group.all_gather(send, recv, &counts).expect_err("does not fit").to_string();
        assert!(error.contains(says), "{error}");
    }
    let error = group.broadcast(into(0x2000, Element::F32, 5, STREAM), 3).expect_err("no such rank").to_string();
    assert!(error.contains("the root is rank 3; allowed are 0 to 2"), "{error}");
    assert!(heard().is_empty());
}

#[test]
fn an_error_of_a_peer_is_told_and_the_communicator_aborted() {
    let group = group();
    HEALTH.set(6);
    let error = group.all_reduce(into(0x2000, Element::F32, 5, STREAM), Op::Sum).expect_err("a peer is gone");
    let error = error.to_string();
    assert!(error.contains("all_reduce on rank 1: NCCL says: remote process exited (code 6)"), "{error}");
    drop(group);
    assert_eq!(heard(), ["abort"]);
}

#[test]
fn a_library_that_is_not_there_is_named() {
    let error = load(c"libnccl-of-nobody.so.2").err().expect("no such library").to_string();
    assert!(error.contains("libnccl-of-nobody.so.2: cannot open shared object"), "{error}");
    assert!(error.contains("LD_LIBRARY_PATH"), "{error}");
    let error = load(c"libc.so.6").err().expect("no NCCL").to_string();
    assert!(error.contains("ncclGetVersion"), "{error}");
}

#[test]
fn sizes_and_numbers_are_those_of_the_header() {
    assert_eq!((size_of::<UniqueId>(), align_of::<UniqueId>()), (128, 1));
    assert_eq!(size_of::<Handle>(), size_of::<usize>());
    let elements = [Element::I64, Element::F16, Element::F32, Element::F64, Element::Bf16];
    assert_eq!(elements.map(data_type), [4, 6, 7, 8, 9]);
    assert_eq!((api::SUM, api::MAX), (0, 2));
}
