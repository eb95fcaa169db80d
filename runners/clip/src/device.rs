//! Where tensors live: finds CUDA at run time, sets threads and the allocator. Nothing else here talks to the system.

use std::ffi::CStr;
use std::sync::Once;

use protocol::Resources;
use tch::{Cuda, Device, Kind, Tensor};

/// Why a device can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not a device's name.
    #[error("device `{0}` is not known: give `cpu`, `cuda` or `cuda:N`")]
    Unknown(String),
    /// CUDA is missing.
    #[error(
        "device `{0}` needs CUDA, which is not there: run on `cpu`, or install a libtorch with CUDA and check that `nvidia-smi` works"
    )]
    NoCuda(String),
    /// Fewer devices.
    #[error("device `{name}` is not there: this machine has {count} CUDA devices, counted from 0")]
    NoSuchDevice {
        /// The device asked for.
        name: String,
        /// CUDA devices.
        count: i64,
    },
    /// A device that this process can't take as its own.
    #[error("device `{name}` can't be made the current one ({wrong}), which the ranks of a job need")]
    NotCurrent {
        /// The device asked for.
        name: String,
        /// What CUDA said.
        wrong: String,
    },
    /// No threads.
    #[error("`resources.threads` is 0: give at least 1")]
    NoThreads,
}

/// libtorch takes this number once in a process.
static INTEROP_THREADS: Once = Once::new();

/// Opens the device a job asks for and sets up arithmetic threads, before any tensor of the job is made. Of several
/// ranks on a machine (`local_rank`) each takes the GPU of its number where the job says `cuda`.
pub fn open(resources: &Resources, local_rank: Option<usize>) -> Result<Device, DeviceError> {
    keep_freed_memory();
    if resources.threads == 0 {
        return Err(DeviceError::NoThreads);
    }
    tch::set_num_threads(resources.threads as i32);
    INTEROP_THREADS.call_once(|| tch::set_num_interop_threads(1));
    let name = resources.device.as_str();
    let Device::Cuda(index) = parse(name)? else { return Ok(Device::Cpu) };
    let index = local_rank.filter(|_| name == "cuda").unwrap_or(index);
    load_cuda();
    if !Cuda::is_available() {
        return Err(DeviceError::NoCuda(name.into()));
    }
    let count = Cuda::device_count();
    if index as i64 >= count {
        return Err(DeviceError::NoSuchDevice { name: format!("cuda:{index}"), count });
    }
    if local_rank.is_some() {
        let name = || format!("cuda:{index}");
        make_current(index).map_err(|wrong| DeviceError::NotCurrent { name: name(), wrong })?;
    }
    Ok(Device::Cuda(index))
}

fn parse(name: &str) -> Result<Device, DeviceError> {
    let unknown = || DeviceError::Unknown(name.to_owned());
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::Cpu),
        None if name == "cuda" => Ok(Device::Cuda(0)),
        Some(("cuda", index)) => index.parse().map(Device::Cuda).map_err(|_| unknown()),
        _ => Err(unknown()),
    }
}

/// Devices that can be used here, best first.
pub fn devices() -> Vec<String> {
    load_cuda();
    let count = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    (0..count).map(|index| format!("cuda:{index}")).chain(["cpu".to_owned()]).collect()
}

/// A device in words, for `started`: of one process, or of each of several ranks.
pub fn name(device: Device, threads: usize, ranks: usize) -> String {
    let of_one = match device {
        Device::Cuda(_) if ranks > 1 => "cuda".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        _ if threads == 1 => "cpu (1 thread)".to_owned(),
        _ => format!("cpu ({threads} threads)"),
    };
    if ranks > 1 { format!("{ranks} ranks, each {of_one}") } else { of_one }
}

/// Most memory that a job on this device took since [`reset_peak_memory`], bytes: what tensors take on a GPU, what is
/// resident of this process on a CPU.
pub fn peak_memory_bytes(device: Device) -> Option<u64> {
    match device {
        Device::Cpu => usage().map(|usage| usage.ru_maxrss as u64 * 1024),
        _ => kernels::peak_device_bytes(&nothing_on(device)),
    }
}

/// Forgets the most of jobs before this one in the same process; what they left in use counts on. Where `/proc` can't
/// be written, the most of all jobs is reported.
pub fn reset_peak_memory(device: Device) {
    match device {
        Device::Cpu => drop(std::fs::write("/proc/self/clear_refs", "5")),
        _ => kernels::reset_peak_device_bytes(&nothing_on(device)),
    }
}

/// Names a device to what takes tensors.
fn nothing_on(device: Device) -> Tensor {
    Tensor::empty([0_i64], (Kind::Float, device))
}

/// Processor time of this process so far, seconds over all its threads.
pub fn processor_secs() -> Option<f64> {
    let secs = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    usage().map(|usage| secs(usage.ru_utime) + secs(usage.ru_stime))
}

#[expect(unsafe_code, reason = "getrusage has no safe wrapper among our dependencies")]
fn usage() -> Option<libc::rusage> {
    // SAFETY: zeros are a valid rusage, which the call then fills.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) == 0).then_some(usage)
    }
}

/// Asks the kernel to kill this process when the supervisor that started it dies, so that nothing trains on unseen.
#[expect(unsafe_code, reason = "prctl has no safe wrapper among our dependencies")]
pub fn die_with_parent() {
    // SAFETY: sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Brings libtorch's CUDA half in, if it is installed: the binary is linked against the CPU half alone and runs with
/// both.
#[expect(unsafe_code, reason = "a library that may be absent is loaded by hand")]
fn load_cuda() {
    const LIBRARY: &CStr = c"libtorch_cuda.so";
    // SAFETY: runs libtorch's own initialisers, as linking it would. A null handle means that it is not there.
    unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
}

/// Makes a device this thread's current one, which is the one that NCCL takes. tch has no call for it; the CUDA runtime
/// came in with libtorch.
#[expect(unsafe_code, reason = "a function of a library that was loaded by hand")]
fn make_current(index: usize) -> Result<(), String> {
    const FUNCTION: &CStr = c"cudaSetDevice";
    // SAFETY: looks a name up; where it is found it is CUDA's `cudaError_t cudaSetDevice(int)`.
    let code = unsafe {
        let function = libc::dlsym(libc::RTLD_DEFAULT, FUNCTION.as_ptr());
        if function.is_null() {
            return Err("no cudaSetDevice was loaded with libtorch".to_owned());
        }
        let set: unsafe extern "C" fn(libc::c_int) -> libc::c_int = std::mem::transmute(function);
        set(index as libc::c_int)
    };
    if code == 0 { Ok(()) } else { Err(format!("cudaSetDevice gives {code}")) }
}

/// Keeps freed memory in the process. A step frees and asks for the same hundred megabytes again; by default glibc
/// gives large blocks back to the kernel, which then clears each page anew.
#[expect(unsafe_code, reason = "mallopt has no safe wrapper among our dependencies")]
fn keep_freed_memory() {
    // SAFETY: sets parameters of glibc's allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_cpu_cuda_and_cuda_with_a_number() {
        assert_eq!(parse("cpu"), Ok(Device::Cpu));
        assert_eq!((parse("cuda"), parse("cuda:3")), (Ok(Device::Cuda(0)), Ok(Device::Cuda(3))));
        for name in ["gpu", "cuda:x", "cpu:0", "cuda:", ""] {
            assert_eq!(parse(name), Err(DeviceError::Unknown(name.into())));
        }
    }
}
