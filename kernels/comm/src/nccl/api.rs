//! The C interface of NCCL, loaded at run time. Written after `nccl.h` of NCCL 2.28.9.

use std::ffi::{CStr, c_char, c_int, c_void};

/// `ncclUniqueId`: passed by value.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; 128]);

/// `ncclSuccess`.
pub(super) const SUCCESS: c_int = 0;
/// `ncclRedOp_t`.
pub(super) const SUM: c_int = 0;
pub(super) const MAX: c_int = 2;
/// `ncclDataType_t`.
pub(super) const INT64: c_int = 4;
pub(super) const FLOAT16: c_int = 6;
pub(super) const FLOAT32: c_int = 7;
pub(super) const FLOAT64: c_int = 8;
pub(super) const BFLOAT16: c_int = 9;

/// `ncclComm_t`.
pub(super) type Handle = *mut c_void;
/// `cudaStream_t`.
pub(super) type Stream = *mut c_void;
type Read = *const c_void;
type Write = *mut c_void;

macro_rules! api {
    ($($name:ident = $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions in use.
        #[derive(Clone, Copy)]
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Api {
            /// Opens `library` by the loader's rules, and finds all functions. What is loaded stays loaded.
            #[expect(unsafe_code, reason = "a library that may be absent is loaded by hand")]
            pub(super) fn load(library: &CStr) -> Result<Self, String> {
                // SAFETY: a C string; runs the initialisers of NCCL, as linking it would.
                let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
                if handle.is_null() {
                    return Err(last_error());
                }
                Ok(Self {$(
                    // SAFETY: not null, and NCCL's function of this name has this type.
                    $name: unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(
                            find(handle, $symbol)?,
                        )
                    },
                )*})
            }
        }
    };
}

// Arguments: buffers, count, type, (operation or root or peer), communicator, stream.
api! {
    version = c"ncclGetVersion" (*mut c_int) -> c_int;
    unique_id = c"ncclGetUniqueId" (*mut UniqueId) -> c_int;
    init = c"ncclCommInitRank" (*mut Handle, c_int, UniqueId, c_int) -> c_int;
    destroy = c"ncclCommDestroy" (Handle) -> c_int;
    abort = c"ncclCommAbort" (Handle) -> c_int;
    async_error = c"ncclCommGetAsyncError" (Handle, *mut c_int) -> c_int;
    error_string = c"ncclGetErrorString" (c_int) -> *const c_char;
    group_start = c"ncclGroupStart" () -> c_int;
    group_end = c"ncclGroupEnd" () -> c_int;
    all_gather = c"ncclAllGather" (Read, Write, usize, c_int, Handle, Stream) -> c_int;
    reduce_scatter = c"ncclReduceScatter" (Read, Write, usize, c_int, c_int, Handle, Stream) -> c_int;
    all_reduce = c"ncclAllReduce" (Read, Write, usize, c_int, c_int, Handle, Stream) -> c_int;
    reduce = c"ncclReduce" (Read, Write, usize, c_int, c_int, c_int, Handle, Stream) -> c_int;
    broadcast = c"ncclBroadcast" (Read, Write, usize, c_int, c_int, Handle, Stream) -> c_int;
    send = c"ncclSend" (Read, usize, c_int, c_int, Handle, Stream) -> c_int;
    recv = c"ncclRecv" (Write, usize, c_int, c_int, Handle, Stream) -> c_int;
}

/// The address of `symbol`, not null.
#[expect(unsafe_code, reason = "a library that may be absent is loaded by hand")]
fn find(handle: *mut c_void, symbol: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: an open library and a C string.
    let found = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
    if found.is_null() { Err(last_error()) } else { Ok(found) }
}

/// What the loader complained of.
#[expect(unsafe_code, reason = "the loader says why as a C string")]
fn last_error() -> String {
    // SAFETY: null, or a C string that lives until this thread's next call of the loader.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "no reason given".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}
