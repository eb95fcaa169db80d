//! Counters of GPUs (`nvmlDeviceGetTotalEnergyConsumption`: millijoules since the driver was loaded, Volta and later).
//! NVML is loaded at run time; without it nothing is known.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};

use nix::libc;

/// NVIDIA's driver brings it.
pub(super) const LIBRARY: &CStr = c"libnvidia-ml.so.1";

/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// `NVML_DEVICE_NAME_V2_BUFFER_SIZE`.
const NAME_MAX: usize = 96;

type Device = *mut c_void;

/// What of NVML is called.
#[derive(Debug, Clone, Copy)]
struct Api {
    init: unsafe extern "C" fn() -> c_int,
    count: unsafe extern "C" fn(*mut c_uint) -> c_int,
    by_index: unsafe extern "C" fn(c_uint, *mut Device) -> c_int,
    by_uuid: unsafe extern "C" fn(*const c_char, *mut Device) -> c_int,
    name: unsafe extern "C" fn(Device, *mut c_char, c_uint) -> c_int,
    energy: unsafe extern "C" fn(Device, *mut c_ulonglong) -> c_int,
}

/// GPUs with what they had counted when they were opened.
#[derive(Debug)]
pub(super) struct Gpus {
    api: Api,
    counters: Vec<(Device, u64)>,
}

// SAFETY: NVML may be called by any thread, and its devices are names, not memory of ours.
#[expect(unsafe_code, reason = "a device is a pointer, which the compiler knows nothing of")]
unsafe impl Send for Gpus {}

/// Numbers or UUIDs of the GPUs that the processes of a job use: `CUDA_VISIBLE_DEVICES` names those that there are, and
/// a process has the one of its rank. `None`: none, or one that can't be told.
pub(super) fn given(device: &str, visible: Option<&str>, ranks: usize) -> Option<Vec<String>> {
    let first: usize = match device.strip_prefix("cuda")? {
        "" => 0,
        rest => rest.strip_prefix(':')?.parse().ok()?,
    };
    let named: Option<Vec<&str>> = visible.map(|list| list.split(',').map(str::trim).collect());
    (first..first + ranks.max(1))
        .map(|at| match &named {
            None => Some(at.to_string()),
            // A part of a GPU has no counter.
            Some(names) => names.get(at).filter(|name| !name.starts_with("MIG")).map(|name| (*name).to_owned()),
        })
        .collect()
}

impl Gpus {
    /// `None`: no NVML, or not all of them can be found and read.
    pub(super) fn open(library: &CStr, gpus: &[String]) -> Option<Gpus> {
        let api = Api::load(library)?;
        let by_number = gpus.iter().all(|gpu| gpu.parse::<c_uint>().is_ok());
        // CUDA may number GPUs by speed, NVML numbers them by their place on the bus.
        if by_number && std::env::var_os("CUDA_DEVICE_ORDER").is_none_or(|order| order != "PCI_BUS_ID") {
            api.all_alike().then_some(())?;
        }
        let counter = |gpu: &String| {
            let device = api.find(gpu)?;
            Some((device, api.millijoules(device)?))
        };
        let counters = gpus.iter().map(counter).collect::<Option<_>>()?;
        Some(Gpus { api, counters })
    }

    /// Since they were opened.
    pub(super) fn joules(&self) -> Option<f64> {
        let passed = |(device, before): &(Device, u64)| self.api.millijoules(*device)?.checked_sub(*before);
        let all: Vec<u64> = self.counters.iter().map(passed).collect::<Option<_>>()?;
        Some(all.into_iter().sum::<u64>() as f64 / 1e3)
    }
}

#[expect(unsafe_code, reason = "calls NVML")]
impl Api {
    fn load(library: &CStr) -> Option<Api> {
        // SAFETY: NVIDIA's library; it stays loaded.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return None;
        }
        let find = |name: &CStr| {
            // SAFETY: a library that was opened, and a name.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        // SAFETY: each has the signature that `nvml.h` gives it.
        let api = unsafe {
            Api {
                init: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(find(c"nvmlInit_v2")?),
                count: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_uint) -> c_int>(find(
                    c"nvmlDeviceGetCount_v2",
                )?),
                by_index: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_uint, *mut Device) -> c_int>(find(
                    c"nvmlDeviceGetHandleByIndex_v2",
                )?),
                by_uuid: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char, *mut Device) -> c_int>(
                    find(c"nvmlDeviceGetHandleByUUID")?,
                ),
                name: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Device, *mut c_char, c_uint) -> c_int>(
                    find(c"nvmlDeviceGetName")?,
                ),
                energy: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Device, *mut c_ulonglong) -> c_int>(
                    find(c"nvmlDeviceGetTotalEnergyConsumption")?,
                ),
            }
        };
        // SAFETY: no arguments; counted, so calling it again does no harm.
        (unsafe { (api.init)() } == SUCCESS).then_some(api)
    }

    fn find(self, gpu: &str) -> Option<Device> {
        let mut device = std::ptr::null_mut();
        let code = if let Ok(index) = gpu.parse::<c_uint>() {
            // SAFETY: writes one device.
            unsafe { (self.by_index)(index, &raw mut device) }
        } else {
            let uuid = CString::new(gpu).ok()?;
            // SAFETY: a C string; writes one device.
            unsafe { (self.by_uuid)(uuid.as_ptr(), &raw mut device) }
        };
        (code == SUCCESS).then_some(device)
    }

    fn millijoules(self, device: Device) -> Option<u64> {
        let mut millijoules = 0;
        // SAFETY: a device that NVML gave; writes one number.
        (unsafe { (self.energy)(device, &raw mut millijoules) } == SUCCESS).then_some(millijoules)
    }

    /// Whether all GPUs have one name.
    fn all_alike(self) -> bool {
        let mut count = 0;
        // SAFETY: writes one number.
        if unsafe { (self.count)(&raw mut count) } != SUCCESS {
            return false;
        }
        let name = |index: c_uint| {
            let device = self.find(&index.to_string())?;
            let mut name = [0; NAME_MAX];
            // SAFETY: a device that NVML gave; writes no more than it is told.
            let code = unsafe { (self.name)(device, name.as_mut_ptr(), NAME_MAX as c_uint) };
            (code == SUCCESS).then_some(name)
        };
        let first = name(0);
        first.is_some() && (1..count).all(|index| name(index) == first)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A library in NVML's place: three GPUs, of which each look counts 1,500 mJ times its number plus one.
    const STUB: &str = r#"
#include <string.h>
static unsigned long long counted[3];
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 2) return 2;
    *device = &counted[index];
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (strcmp(uuid, "GPU-2")) return 6;
    *device = &counted[2];
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    strncpy(name, ODD && device == &counted[2] ? "other" : "one", length);
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    unsigned long long *counter = device;
    *energy = *counter += 1500 * (counter - counted + 1);
    return 0;
}
"#;

    fn library(folder: &Path, odd: bool) -> CString {
        let (source, library) = (folder.join("nvml.c"), folder.join(format!("nvml-{odd}.so")));
        std::fs::write(&source, STUB).expect("a source");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", &format!("-DODD={}", i32::from(odd)), "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler, which the kernels need too");
        assert!(built.success());
        CString::new(library.to_str().expect("UTF-8")).expect("no zeros")
    }

    #[test]
    fn gpus_are_read_by_number_and_by_uuid() {
        let folder = tempfile::tempdir().expect("a folder");
        let alike = library(folder.path(), false);
        let joules = |library: &CStr, gpus: &[&str]| {
            let gpus: Vec<String> = gpus.iter().map(|&gpu| gpu.to_owned()).collect();
            Gpus::open(library, &gpus)?.joules()
        };
        assert_eq!(joules(&alike, &["0"]), Some(1.5));
        assert_eq!(joules(&alike, &["0", "1"]), Some(4.5));
        assert_eq!(joules(&alike, &["GPU-2"]), Some(4.5));
        assert_eq!(joules(&alike, &["3"]), None);
        assert_eq!(joules(&alike, &["0", "GPU-7"]), None);
        assert_eq!(joules(&library(folder.path(), true), &["0"]), None, "which one is CUDA's number 0?");
        assert_eq!(joules(c"libno-such-nvml.so.1", &["0"]), None);
    }

    #[test]
    fn a_job_has_the_gpus_of_its_ranks() {
        let given = |device, visible, ranks| given(device, visible, ranks).map(|gpus| gpus.join(" "));
        assert_eq!(given("cpu", Some("0"), 1), None);
        assert_eq!(given("cuda", None, 1).as_deref(), Some("0"));
        assert_eq!(given("cuda:1", Some("GPU-a, GPU-b"), 1).as_deref(), Some("GPU-b"));
        assert_eq!(given("cuda", Some("2,3"), 2).as_deref(), Some("2 3"));
        assert_eq!(given("cuda", Some("2"), 2), None);
        assert_eq!(given("cuda", Some("MIG-a"), 1), None);
    }
}
