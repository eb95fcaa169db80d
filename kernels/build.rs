//! Builds `csrc/` with its own Makefile, the one that Python users call too, and tells where the library lies.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=csrc");
    for name in ["LIBTORCH", "CXX", "NVCC", "CUTLASS", "CUDART_LIB", "KERNELS_CACHE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_TORCH").is_none() || env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return;
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let libtorch = env::var("LIBTORCH").unwrap_or_else(|_| {
        panic!("LIBTORCH is not set: the feature `torch` of crate `kernels` needs a folder with include/ and lib/ (make setup)")
    });
    let mut make = Command::new("make");
    make.args(["-C", "csrc"]).arg(format!("OUT={}", out.display())).arg(format!("TORCH={libtorch}")).arg("all");
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // `make setup-cuda` lays the compiler and CUTLASS beside the libtorch of `make setup`.
        // As it lies there: its libraries are looked for around it, not around what it links to.
        let venv = PathBuf::from(&libtorch).parent().map(PathBuf::from);
        let beside = |name: &str| venv.as_ref().map(|venv| venv.join(name)).filter(|path| path.exists());
        let found = |variable: &str, place: &str| env::var_os(variable).map(PathBuf::from).or_else(|| beside(place));
        let nvcc = found("NVCC", "cuda/bin/nvcc").unwrap_or_else(|| {
            panic!("no CUDA compiler for the feature `cuda` of crate `kernels`: set NVCC, or run `make setup-cuda`")
        });
        make.arg("cuda").arg(format!("NVCC={}", nvcc.display()));
        if let Some(cutlass) = found("CUTLASS", "cutlass") {
            make.arg(format!("CUTLASS={}", cutlass.display()));
        }
    }
    make.arg(format!("-j{}", env::var("NUM_JOBS").unwrap_or_else(|_| "1".to_owned())));
    // Cargo's own make would have this one ask it for leave to start compilers.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    let status = make.status().unwrap_or_else(|error| panic!("cannot start `make`, which builds csrc/: {error}"));
    assert!(status.success(), "`make -C kernels/csrc` failed (its words are above)");

    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=dylib=sweep_kernels");
    // For dependents, which add both to their rpath: the library, and the libtorch it was linked to.
    println!("cargo:folder={}", out.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", out.display());
    let real = fs::canonicalize(format!("{libtorch}/lib/libtorch_cpu.so")).ok();
    if let Some(folder) = real.as_deref().and_then(std::path::Path::parent) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}
