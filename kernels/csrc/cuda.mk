# libsweep_kernels_cuda.so; included by the Makefile beside it, or used alone: make -f cuda.mk OUT=... NVCC=...
#
#   OUT            build folder; the library goes there, objects into OUT/cuda
#   NVCC           the compiler's path; headers and libcudart are looked for around it, as make setup-cuda lays them out
#   CUDART_LIB     folder with libcudart.so (default: lib64 beside the compiler's bin)
#   CUTLASS        CUTLASS 4.2's include folder; without it there are no Hopper kernels and one stub
#   HOST_CXX       nvcc's host compiler (default: its own choice)
#   KERNELS_CACHE  a folder that keeps objects by content (cached.sh)
CSRC := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
override NVCC := $(shell command -v $(or $(NVCC),nvcc))
CUDA_HOME ?= $(patsubst %/bin/,%,$(dir $(NVCC)))
CUDART_LIB ?= $(CUDA_HOME)/lib64
CUDA_LIBRARY := $(OUT)/libsweep_kernels_cuda.so
CUDA_HEADERS := $(wildcard $(CSRC)/*.h $(CSRC)/cuda/*.h $(CSRC)/cuda/*.cuh)

CUDA_FLAGS := -std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden -Xptxas -v
CUDA_FLAGS += $(if $(HOST_CXX),-ccbin $(HOST_CXX))
# Newer GPUs compile the last one's PTX when it is loaded.
PANEL_ARCH := -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90
PANEL_ARCH += -gencode=arch=compute_90,code=compute_90
HOPPER_ARCH := -gencode=arch=compute_90a,code=sm_90a
# CUTLASS's headers are one pinned package: the cache needs its version, not its 1045 files.
CUTLASS_VERSION := $(if $(CUTLASS),$(shell sed -n 's/^\#define CUTLASS_[MP][A-Z]* //p' $(CUTLASS)/cutlass/version.h))
HOPPER := $(filter-out hopper_none,$(basename $(notdir $(wildcard $(CSRC)/cuda/hopper*.cu))))
HOPPER := $(if $(CUTLASS),$(HOPPER),hopper_none)
CUDA_OBJECTS := $(patsubst %,$(OUT)/cuda/%.o,panel register $(HOPPER))

.PHONY: cuda no-nvcc
cuda: $(if $(NVCC),$(CUDA_LIBRARY),no-nvcc)
no-nvcc:
	@echo "error: no CUDA compiler: put nvcc on PATH, or give NVCC=<nvcc> (make setup-cuda fetches one)" >&2; exit 2

# The register hook is in the main library, which loads this one: left undefined here.
$(CUDA_LIBRARY): $(CUDA_OBJECTS)
	$(if $(HOST_CXX),$(HOST_CXX),$(or $(CXX),c++)) -shared -o $@ $^ -L$(CUDART_LIB) -lcudart -Wl,-rpath,$(CUDART_LIB)

$(OUT)/cuda/register.o: $(CSRC)/cuda/register.cpp $(CUDA_HEADERS)
	@mkdir -p $(@D)
	$(if $(HOST_CXX),$(HOST_CXX),$(or $(CXX),c++)) -std=c++17 -O2 -fPIC -fvisibility=hidden -c $< -o $@

$(OUT)/cuda/hopper_%.o: $(CSRC)/cuda/hopper_%.cu $(CUDA_HEADERS) $(CSRC)/cached.sh
	@mkdir -p $(@D)
	KERNELS_CACHE_KEY='cutlass $(CUTLASS_VERSION)' $(CSRC)/cached.sh $@ $< $(NVCC) $(CUDA_FLAGS) $(HOPPER_ARCH) \
	    $(if $(CUTLASS),-isystem $(CUTLASS)) --expt-relaxed-constexpr --expt-extended-lambda -DNDEBUG -c $< -o $@

$(OUT)/cuda/%.o: $(CSRC)/cuda/%.cu $(CUDA_HEADERS) $(CSRC)/cached.sh
	@mkdir -p $(@D)
	$(CSRC)/cached.sh $@ $< $(NVCC) $(CUDA_FLAGS) $(PANEL_ARCH) -c $< -o $@
