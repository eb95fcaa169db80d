//! Tells the binary where libtorch lives at run time.

use std::path::PathBuf;

fn main() {
    beside_the_binary();
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let Ok(libtorch) = std::env::var("LIBTORCH") else { return };
    // `$LIBTORCH/lib` may be a folder of links into a Python wheel. The wheel's own relative rpaths (to its CUDA
    // runtime) only work from the real folder, so that is the one the loader must be told.
    let library = PathBuf::from(libtorch).join("lib/libtorch_cpu.so");
    if let Some(folder) = library.canonicalize().ok().as_deref().and_then(std::path::Path::parent) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}

/// Puts the losses' library where the binary will lie, so that the two can be copied together; the tests' binaries find
/// it where the crate `kernels` built it.
fn beside_the_binary() {
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    let Some(folder) = std::env::var_os("DEP_SWEEP_KERNELS_FOLDER").map(PathBuf::from) else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    println!("cargo:rerun-if-env-changed=DEP_SWEEP_KERNELS_FOLDER");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let Some(binaries) = out.ancestors().nth(3) else { return };
    for name in ["libsweep_kernels.so", "libsweep_kernels_cuda.so"] {
        let (from, to) = (folder.join(name), binaries.join(name));
        if !from.exists() {
            continue;
        }
        println!("cargo:rerun-if-changed={}", from.display());
        // Renamed over the old one, which a running binary may have mapped.
        let copied = binaries.join(format!(".{name}.{}", std::process::id()));
        if std::fs::copy(&from, &copied).is_ok() {
            let _ = std::fs::rename(&copied, &to);
        }
    }
}
