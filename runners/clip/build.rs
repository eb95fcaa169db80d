//! Tells the binary where libtorch lives at run time.

use std::path::PathBuf;

fn main() {
    // The losses' library: beside the binary if it was copied there, else where the crate `kernels` built it.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    if let Ok(folder) = std::env::var("DEP_SWEEP_KERNELS_FOLDER") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
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
