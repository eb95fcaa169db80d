//! Collectives among CUDA devices by NCCL, whose library is loaded at run time: nothing links against it.
//!
//! Not run on a device by any test: the machines that test this crate have none. Tests cover what happens without the
//! library, constants and sizes against `nccl.h` 2.28.9, and which calls with which arguments each collective makes.
//!
//! With even shares of S bytes NCCL's own all_gather and reduce_scatter are used. Uneven ones are grouped sends and
//! receives (a rank sends its share W - 1 times), or grouped reductions, one to each owner. The order of a sum is
//! NCCL's choice and may differ from run to run, with the topology for one.

mod api;

use std::ffi::{CStr, c_int, c_void};

use super::{
    Buffer, BufferMut, Comm, CommError, Device, DeviceMut, Element, Op, TcpRing, check_counts, check_elements,
    check_root, starts,
};
use api::{Api, Handle, Stream, UniqueId};

/// Also the name that a libnccl already in the process, libtorch's say, answers to.
const LIBRARY: &CStr = c"libnccl.so.2";
/// 2.10, the first with bfloat16.
const OLDEST: c_int = 21_000;

/// One rank's end of a group of CUDA devices.
///
/// Values on a device go through NCCL, values on the host over the ring that the group was made with. Work is queued
/// on the stream of the buffers; the call returns before it is done.
pub struct Nccl {
    api: Api,
    handle: Handle,
    rank: usize,
    world: usize,
    control: TcpRing,
}

// SAFETY: a communicator may be used from any one thread at a time; NCCL sets its device itself.
#[expect(unsafe_code, reason = "a communicator is a pointer, which the compiler knows nothing of")]
unsafe impl Send for Nccl {}

impl Nccl {
    /// Makes a group of the ranks of `control`, on the calling thread's current CUDA device, each rank another one.
    ///
    /// NCCL waits for all ranks here, without a deadline; that all could load the library is made sure before.
    pub fn new(control: TcpRing) -> Result<Self, CommError> {
        let loaded = load(LIBRARY);
        let (rank, world) = (control.rank(), control.world());
        // 1 + the highest rank that has no library.
        let mut without = [if loaded.is_err() { i64::from(int(rank)) + 1 } else { 0 }];
        control.all_reduce((&mut without[..]).into(), Op::Max)?;
        let api = loaded?;
        if without[0] > 0 {
            let wrong = format!("rank {} could not; see what it said", without[0] - 1);
            return Err(CommError::Library { library: LIBRARY.to_string_lossy().into_owned(), wrong });
        }
        let mut group = Self { api, handle: std::ptr::null_mut(), rank, world, control };
        let id = group.share_id()?;
        group.init(id)?;
        Ok(group)
    }

    /// Rank 0's unique id, on all ranks.
    #[expect(unsafe_code, reason = "calls NCCL")]
    fn share_id(&self) -> Result<UniqueId, CommError> {
        let mut id = UniqueId([0; 128]);
        let mut code = api::SUCCESS;
        if self.rank == 0 {
            // SAFETY: writes one id.
            code = unsafe { (self.api.unique_id)(&raw mut id) };
        }
        let (words, _) = id.0.as_chunks();
        let mut message: Vec<i64> = words.iter().map(|word| i64::from_ne_bytes(*word)).collect();
        message.push(i64::from(code));
        self.control.broadcast(message.as_mut_slice().into(), 0)?;
        for (to, word) in id.0.chunks_exact_mut(8).zip(&message) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        self.outcome("ncclGetUniqueId on rank 0", message.last().map_or(api::SUCCESS, |code| *code as c_int))?;
        Ok(id)
    }

    #[expect(unsafe_code, reason = "calls NCCL")]
    fn init(&mut self, id: UniqueId) -> Result<(), CommError> {
        // SAFETY: writes one communicator; rank < world.
        let code = unsafe { (self.api.init)(&raw mut self.handle, int(self.world), id, int(self.rank)) };
        self.outcome("ncclCommInitRank", code)
    }

    /// An error that came up since, of a peer that died for one.
    #[expect(unsafe_code, reason = "calls NCCL")]
    fn health(&self) -> c_int {
        let mut code = api::SUCCESS;
        // SAFETY: a communicator; writes one code.
        let asked = unsafe { (self.api.async_error)(self.handle, &raw mut code) };
        if asked == api::SUCCESS { code } else { asked }
    }

    #[expect(unsafe_code, reason = "NCCL gives its texts as C strings")]
    fn outcome(&self, doing: &str, code: c_int) -> Result<(), CommError> {
        if code == api::SUCCESS {
            return Ok(());
        }
        // SAFETY: a C string that lives as long as the library.
        let wrong = unsafe { CStr::from_ptr((self.api.error_string)(code)) }.to_string_lossy().into_owned();
        Err(CommError::Nccl { doing: doing.to_owned(), rank: self.rank, code, wrong })
    }

    /// `calls` as one group, which is ended even if one of them fails.
    #[expect(unsafe_code, reason = "calls NCCL")]
    fn grouped(&self, calls: impl IntoIterator<Item = impl FnOnce() -> c_int>) -> c_int {
        // SAFETY: no arguments.
        let start = unsafe { (self.api.group_start)() };
        if start != api::SUCCESS {
            return start;
        }
        let failed = calls.into_iter().map(|call| call()).find(|code| *code != api::SUCCESS);
        // SAFETY: likewise.
        let end = unsafe { (self.api.group_end)() };
        failed.unwrap_or(end)
    }

    /// The streams of both buffers must be one.
    fn stream(&self, doing: &str, send: &Device<'_>, recv: &DeviceMut<'_>) -> Result<Stream, CommError> {
        if send.stream == recv.stream {
            return Ok(send.stream);
        }
        let wrong = "`send` and `recv` are of two streams; they must be of one".to_owned();
        Err(CommError::Argument { doing: doing.to_owned(), rank: self.rank, wrong })
    }

    #[expect(unsafe_code, reason = "calls NCCL")]
    fn gather(&self, send: &Device<'_>, recv: &DeviceMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        let doing = "all_gather";
        let stream = self.stream(doing, send, recv)?;
        self.outcome(doing, self.health())?;
        let (kind, handle) = (data_type(send.element), self.handle);
        if counts.iter().all(|count| *count == send.len) {
            // SAFETY: `send` holds its elements, `recv` world times as many, by their constructors and `counts`.
            let code = unsafe { (self.api.all_gather)(send.pointer, recv.pointer, send.len, kind, handle, stream) };
            return self.outcome(doing, code);
        }
        let starts = starts(counts);
        let calls = (0..self.world).flat_map(|peer| {
            let share = at(recv.pointer, starts[peer], recv.element);
            let send_it = move || match send.len {
                0 => api::SUCCESS,
                // SAFETY: `send` holds its elements.
                len => unsafe { (self.api.send)(send.pointer, len, kind, int(peer), handle, stream) },
            };
            let take_it = move || match counts[peer] {
                0 => api::SUCCESS,
                // SAFETY: `recv` holds the sum of `counts`, so this share as well.
                len => unsafe { (self.api.recv)(share, len, kind, int(peer), handle, stream) },
            };
            [Box::new(send_it) as Box<dyn Fn() -> c_int>, Box::new(take_it)]
        });
        self.outcome(doing, self.grouped(calls))
    }

    #[expect(unsafe_code, reason = "calls NCCL")]
    fn scatter(&self, send: &Device<'_>, recv: &DeviceMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        let doing = "reduce_scatter_sum";
        let stream = self.stream(doing, send, recv)?;
        self.outcome(doing, self.health())?;
        let (kind, handle) = (data_type(send.element), self.handle);
        if counts.iter().all(|count| *count == recv.len) {
            // SAFETY: `recv` holds its elements, `send` world times as many, by their constructors and `counts`.
            let code = unsafe {
                (self.api.reduce_scatter)(send.pointer, recv.pointer, recv.len, kind, api::SUM, handle, stream)
            };
            return self.outcome(doing, code);
        }
        let starts = starts(counts);
        let owners = (0..self.world).filter(|owner| counts[*owner] > 0);
        let calls = owners.map(|owner| {
            let share = at(send.pointer.cast_mut(), starts[owner], send.element).cast_const();
            // SAFETY: `send` holds the sum of `counts`, so this share as well; only the owner's `recv` is written,
            // and holds its share.
            move || unsafe {
                let (to, root) = (recv.pointer, int(owner));
                (self.api.reduce)(share, to, counts[owner], kind, api::SUM, root, handle, stream)
            }
        });
        self.outcome(doing, self.grouped(calls))
    }
}

impl Comm for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_gather(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        let doing = ("all_gather", self.rank);
        check_elements(doing, &send, &recv)?;
        check_counts(doing, self.world, counts, ("send", send.len()), ("recv", recv.len()))?;
        match (send, recv) {
            (Buffer::Device(send), BufferMut::Device(recv)) => self.gather(&send, &recv, counts),
            (send, recv) => self.control.all_gather(send, recv, counts),
        }
    }

    fn reduce_scatter_sum(&self, send: Buffer<'_>, recv: BufferMut<'_>, counts: &[usize]) -> Result<(), CommError> {
        let doing = ("reduce_scatter_sum", self.rank);
        check_elements(doing, &send, &recv)?;
        check_counts(doing, self.world, counts, ("recv", recv.len()), ("send", send.len()))?;
        match (send, recv) {
            (Buffer::Device(send), BufferMut::Device(recv)) => self.scatter(&send, &recv, counts),
            (send, recv) => self.control.reduce_scatter_sum(send, recv, counts),
        }
    }

    #[expect(unsafe_code, reason = "calls NCCL")]
    fn all_reduce(&self, values: BufferMut<'_>, op: Op) -> Result<(), CommError> {
        let device = match values {
            BufferMut::Device(device) => device,
            values => return self.control.all_reduce(values, op),
        };
        let doing = "all_reduce";
        self.outcome(doing, self.health())?;
        let op = match op {
            Op::Sum => api::SUM,
            Op::Max => api::MAX,
        };
        let (pointer, kind) = (device.pointer, data_type(device.element));
        // SAFETY: `values` holds its elements, by its constructor; in place is allowed.
        let code = unsafe { (self.api.all_reduce)(pointer, pointer, device.len, kind, op, self.handle, device.stream) };
        self.outcome(doing, code)
    }

    #[expect(unsafe_code, reason = "calls NCCL")]
    fn broadcast(&self, values: BufferMut<'_>, root: usize) -> Result<(), CommError> {
        check_root(self.rank, self.world, root)?;
        let device = match values {
            BufferMut::Device(device) => device,
            values => return self.control.broadcast(values, root),
        };
        let doing = "broadcast";
        self.outcome(doing, self.health())?;
        let (pointer, kind) = (device.pointer, data_type(device.element));
        // SAFETY: likewise.
        let code =
            unsafe { (self.api.broadcast)(pointer, pointer, device.len, kind, int(root), self.handle, device.stream) };
        self.outcome(doing, code)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.control.barrier()
    }
}

impl Drop for Nccl {
    #[expect(unsafe_code, reason = "calls NCCL")]
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        let end = if self.health() == api::SUCCESS { self.api.destroy } else { self.api.abort };
        // SAFETY: a communicator that nobody uses any more. What goes wrong at the end has nowhere to go.
        let _ = unsafe { end(self.handle) };
    }
}

/// NCCL's functions, of a version that knows all types in use.
#[expect(unsafe_code, reason = "calls NCCL")]
fn load(library: &CStr) -> Result<Api, CommError> {
    let failed = |wrong| CommError::Library { library: library.to_string_lossy().into_owned(), wrong };
    let api = Api::load(library).map_err(failed)?;
    let mut version = 0;
    // SAFETY: writes one number.
    let code = unsafe { (api.version)(&raw mut version) };
    if code != api::SUCCESS || version < OLDEST {
        return Err(failed(format!(
            "it is version {version} (code {code}); at least {OLDEST}, that is 2.10, is needed"
        )));
    }
    Ok(api)
}

/// A rank or a world as C has it; the ring's are not that large.
fn int(rank: usize) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

/// `ncclDataType_t`.
fn data_type(element: Element) -> c_int {
    match element {
        Element::F32 => api::FLOAT32,
        Element::F64 => api::FLOAT64,
        Element::I64 => api::INT64,
        Element::Bf16 => api::BFLOAT16,
        Element::F16 => api::FLOAT16,
    }
}

/// `start` elements after `pointer`. Only NCCL reads what is there.
fn at(pointer: *mut c_void, start: usize, element: Element) -> *mut c_void {
    pointer.wrapping_byte_add(start * element.bytes())
}

#[cfg(test)]
mod tests;
