//! A [`Comm`] as the group of ranks that `csrc/` asks: tensors in, buffers out.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Device, Kind, Tensor};

use crate::comm::{self, Buffer, BufferMut, Comm, CommError, Element, Op};
use crate::ffi::{self, borrowed};
use crate::loss::LossError;

/// What a call from `csrc/` comes back to.
struct Ranks<'a> {
    comm: &'a dyn Comm,
    error: Option<LossError>,
}

/// Makes a call with a group that `comm` serves. An error of `comm` ends the call, and is the one that comes out.
pub(crate) fn with(comm: &dyn Comm, call: impl FnOnce(*const ffi::Group) -> c_int) -> Result<c_int, LossError> {
    let mut ranks = Ranks { comm, error: None };
    let group = ffi::Group {
        rank: count(comm.rank()),
        world: count(comm.world()),
        this: (&raw mut ranks).cast(),
        gather_rows,
        scatter_rows,
        all_reduce,
    };
    let code = call(&raw const group);
    ranks.error.map_or(Ok(code), Err)
}

extern "C" fn gather_rows(this: *mut c_void, local: *const c_void, all: *mut c_void, counts: *const i64) -> c_int {
    answer(this, |comm| {
        let (local, all) = (borrowed(local), borrowed(all));
        let counts = elements(counts, comm.world(), &all);
        if let Kind::BFloat16 | Kind::Half = all.kind()
            && all.device() == Device::Cpu
        {
            // Sockets move what they can add up; float32 holds every half exactly.
            let wide = Tensor::empty(all.size(), (Kind::Float, Device::Cpu));
            comm.all_gather(read(&local.to_kind(Kind::Float)), write(&wide), &counts)?;
            all.shallow_clone().copy_(&wide);
            return Ok(());
        }
        comm.all_gather(read(&local), write(&all), &counts)
    })
}

extern "C" fn scatter_rows(this: *mut c_void, all: *const c_void, sum: *mut c_void, counts: *const i64) -> c_int {
    answer(this, |comm| {
        let (all, sum) = (borrowed(all), borrowed(sum));
        let counts = elements(counts, comm.world(), &all);
        comm.reduce_scatter_sum(read(&all), write(&sum), &counts)
    })
}

extern "C" fn all_reduce(this: *mut c_void, values: *mut c_void, maximum: i32) -> c_int {
    answer(this, |comm| {
        let values = borrowed(values);
        comm.all_reduce(write(&values), if maximum == 0 { Op::Sum } else { Op::Max })
    })
}

/// Ranks of a group, as C++ counts.
fn count(ranks: usize) -> i64 {
    i64::try_from(ranks).unwrap_or(i64::MAX)
}

/// No panic may cross into C++.
#[expect(unsafe_code, reason = "the pointer that `with` handed out")]
fn answer(this: *mut c_void, ask: impl FnOnce(&dyn Comm) -> Result<(), CommError>) -> c_int {
    // SAFETY: `with` holds the value and does not touch it while its call runs.
    let ranks = unsafe { &mut *this.cast::<Ranks>() };
    let comm = ranks.comm;
    match catch_unwind(AssertUnwindSafe(|| ask(comm))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            ranks.error = Some(error.into());
            1
        }
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            ranks.error = Some(LossError::Rejected(words.unwrap_or_else(|| "a bug: panic without words".to_owned())));
            1
        }
    }
}

/// Rows of each rank, as elements of `like`.
#[expect(unsafe_code, reason = "an array that csrc/ lends")]
fn elements(counts: *const i64, world: usize, like: &Tensor) -> Vec<usize> {
    // SAFETY: one count a rank.
    let counts = unsafe { std::slice::from_raw_parts(counts, world) };
    let row: i64 = like.size()[1..].iter().product();
    counts.iter().map(|rows| (rows * row) as usize).collect()
}

fn element(tensor: &Tensor) -> Element {
    match tensor.kind() {
        Kind::Float => Element::F32,
        Kind::Double => Element::F64,
        Kind::Int64 => Element::I64,
        Kind::BFloat16 => Element::Bf16,
        Kind::Half => Element::F16,
        other => unreachable!("csrc/ sends floats and ids, not {other:?}"),
    }
}

/// A contiguous tensor's numbers, to be sent: on the host, or on its device, in the order of the current stream.
///
/// # Panics
/// If the tensor is not contiguous, or of a type that no [`Comm`] moves.
pub fn buffer(tensor: &Tensor) -> Buffer<'_> {
    read(tensor)
}

/// Likewise, to be received into or changed.
///
/// # Panics
/// As [`buffer`].
pub fn buffer_mut(tensor: &mut Tensor) -> BufferMut<'_> {
    write(tensor)
}

/// A contiguous tensor's numbers.
#[expect(unsafe_code, reason = "the memory of a tensor")]
fn read(tensor: &Tensor) -> Buffer<'_> {
    let (pointer, len) = (tensor.data_ptr(), tensor.numel());
    assert!(tensor.is_contiguous(), "csrc/ sends contiguous tensors");
    // SAFETY: contiguous, of this type, borrowed while the buffer lives. An empty tensor's pointer may be null.
    unsafe {
        match (tensor.device(), element(tensor)) {
            (Device::Cpu, _) if len == 0 => empty(element(tensor)),
            (Device::Cpu, Element::F32) => Buffer::F32(std::slice::from_raw_parts(pointer.cast(), len)),
            (Device::Cpu, Element::F64) => Buffer::F64(std::slice::from_raw_parts(pointer.cast(), len)),
            (Device::Cpu, Element::I64) => Buffer::I64(std::slice::from_raw_parts(pointer.cast(), len)),
            (_, element) => {
                Buffer::Device(comm::Device::new(pointer, element, len, ffi::stream(tensor.as_ptr().cast())))
            }
        }
    }
}

fn empty(element: Element) -> Buffer<'static> {
    match element {
        Element::F64 => Buffer::F64(&[]),
        Element::I64 => Buffer::I64(&[]),
        _ => Buffer::F32(&[]),
    }
}

/// A contiguous tensor's numbers, to write; the tensor is its caller's alone.
#[expect(unsafe_code, reason = "the memory of a tensor")]
fn write(tensor: &Tensor) -> BufferMut<'_> {
    let (pointer, len) = (tensor.data_ptr(), tensor.numel());
    assert!(tensor.is_contiguous(), "csrc/ sends contiguous tensors");
    // SAFETY: as in `read`, and nobody else reads or writes it during the call.
    unsafe {
        match (tensor.device(), element(tensor)) {
            (Device::Cpu, Element::F64) if len == 0 => BufferMut::F64(&mut []),
            (Device::Cpu, Element::I64) if len == 0 => BufferMut::I64(&mut []),
            (Device::Cpu, _) if len == 0 => BufferMut::F32(&mut []),
            (Device::Cpu, Element::F32) => BufferMut::F32(std::slice::from_raw_parts_mut(pointer.cast(), len)),
            (Device::Cpu, Element::F64) => BufferMut::F64(std::slice::from_raw_parts_mut(pointer.cast(), len)),
            (Device::Cpu, Element::I64) => BufferMut::I64(std::slice::from_raw_parts_mut(pointer.cast(), len)),
            (_, element) => {
                BufferMut::Device(comm::DeviceMut::new(pointer, element, len, ffi::stream(tensor.as_ptr().cast())))
            }
        }
    }
}
