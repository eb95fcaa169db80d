//! What collectives read and write: slices of the host, or memory of a device.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

/// Type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    F32,
    F64,
    I64,
    /// bfloat16; on a device alone.
    Bf16,
    /// IEEE half; on a device alone.
    F16,
}

impl Element {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Element::Bf16 | Element::F16 => 2,
            Element::F32 => 4,
            Element::F64 | Element::I64 => 8,
        }
    }

    /// Its name in messages and in a header on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F64 => "f64",
            Element::I64 => "i64",
            Element::Bf16 => "bf16",
            Element::F16 => "f16",
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Values to send.
#[derive(Debug, Clone, Copy)]
pub enum Buffer<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
    Device(Device<'a>),
}

/// Values to receive into, or to change in place.
#[derive(Debug)]
pub enum BufferMut<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    I64(&'a mut [i64]),
    Device(DeviceMut<'a>),
}

/// Contiguous elements in a device's memory, to be read.
#[derive(Debug, Clone, Copy)]
pub struct Device<'a> {
    pub(super) pointer: *const c_void,
    pub(super) element: Element,
    pub(super) len: usize,
    pub(super) stream: *mut c_void,
    of: PhantomData<&'a ()>,
}

/// Contiguous elements in a device's memory, to be written.
#[derive(Debug)]
pub struct DeviceMut<'a> {
    pub(super) pointer: *mut c_void,
    pub(super) element: Element,
    pub(super) len: usize,
    pub(super) stream: *mut c_void,
    of: PhantomData<&'a mut ()>,
}

impl Device<'_> {
    /// `len` elements at `pointer`, read by work queued on `stream` (a `cudaStream_t`; null for the default stream).
    ///
    /// # Safety
    /// `pointer` is memory of the device that the `Comm` was made on, holds `len` elements, and stays allocated and
    /// unchanged until the work that a collective queues on `stream` is done, which may be after the call returns and
    /// after `'a`. What wrote these elements was queued on `stream`, or `stream` waits for it. `stream` is a stream of
    /// that device, alive until then. Elements of a `DeviceMut` in the same call do not overlap them.
    #[expect(unsafe_code, reason = "whether a device pointer is valid is known to the caller alone")]
    pub unsafe fn new(pointer: *const c_void, element: Element, len: usize, stream: *mut c_void) -> Self {
        Self { pointer, element, len, stream, of: PhantomData }
    }
}

impl DeviceMut<'_> {
    /// `len` elements at `pointer`, written by work queued on `stream` (a `cudaStream_t`; null for the default
    /// stream).
    ///
    /// # Safety
    /// As for [`Device::new`], and nothing else reads or writes the elements until that work is done.
    #[expect(unsafe_code, reason = "whether a device pointer is valid is known to the caller alone")]
    pub unsafe fn new(pointer: *mut c_void, element: Element, len: usize, stream: *mut c_void) -> Self {
        Self { pointer, element, len, stream, of: PhantomData }
    }
}

macro_rules! buffers {
    ($($buffer:ident)*) => {$(
        impl $buffer<'_> {
            pub fn element(&self) -> Element {
                match self {
                    Self::F32(_) => Element::F32,
                    Self::F64(_) => Element::F64,
                    Self::I64(_) => Element::I64,
                    Self::Device(device) => device.element,
                }
            }

            /// Elements.
            pub fn len(&self) -> usize {
                match self {
                    Self::F32(values) => values.len(),
                    Self::F64(values) => values.len(),
                    Self::I64(values) => values.len(),
                    Self::Device(device) => device.len,
                }
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            pub fn is_device(&self) -> bool {
                matches!(self, Self::Device(_))
            }
        }

        impl fmt::Display for $buffer<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let place = if self.is_device() { "device" } else { "host" };
                write!(f, "{} {} on the {place}", self.len(), self.element())
            }
        }
    )*};
}

buffers!(Buffer BufferMut);

macro_rules! from_slices {
    ($($value:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$value]> for Buffer<'a> {
            fn from(values: &'a [$value]) -> Self {
                Buffer::$variant(values)
            }
        }
        impl<'a> From<&'a mut [$value]> for BufferMut<'a> {
            fn from(values: &'a mut [$value]) -> Self {
                BufferMut::$variant(values)
            }
        }
    )*};
}

from_slices!(f32 => F32, f64 => F64, i64 => I64);
