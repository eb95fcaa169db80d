/* The fused GEMMs: CUTLASS 3's persistent cooperative kernel, 128 x 256 x 64, clusters of two down the rows, with the
 * epilogues of epilogue.cuh.
 *
 * ptxas 13.0: 168 registers (the cap of 384 threads; setmaxnreg gives the consumers 232), no spills, all eight.
 */
#ifndef SWEEP_CUDA_HOPPER_CUH
#define SWEEP_CUDA_HOPPER_CUH
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include "epilogue.cuh"

namespace sweep {

/* Features of type Input; Output is void where nothing is stored. */
template <class Input, class Output, class Fusion>
struct Product {
  using Collective = Epilogue<Output, Fusion>;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Input, cutlass::layout::RowMajor, 8, Input,
      cutlass::layout::ColumnMajor, 8, float, OutputTile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<int(sizeof(typename Collective::SharedStorage))>,
      cutlass::gemm::KernelTmaWarpSpecializedCooperative>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Collective>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static int run(const HopperCall &call, typename Fusion::Arguments fusion) {
    typename Gemm::Arguments arguments{};
    arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
    arguments.problem_shape = {call.rows, call.cols, call.depth, 1};
    arguments.mainloop.ptr_A = static_cast<const Input *>(call.images);
    arguments.mainloop.dA = {call.depth, _1{}, 0};
    arguments.mainloop.ptr_B = static_cast<const Input *>(call.texts);
    arguments.mainloop.dB = {call.depth, _1{}, 0};
    arguments.epilogue.thread = fusion;
    arguments.epilogue.ptr_C = nullptr;
    arguments.epilogue.ptr_D = static_cast<Output *>(call.output);
    arguments.epilogue.dD = {call.output_stride, _1{}, 0};
    if (cudaError_t error = cudaGetDevice(&arguments.hw_info.device_id)) return int(error);
    if (cudaError_t error = cudaDeviceGetAttribute(&arguments.hw_info.sm_count, cudaDevAttrMultiProcessorCount,
                                                   arguments.hw_info.device_id)) {
      return int(error);
    }
    /* Eight tiles beside each other before the next row of tiles: their features stay in the second-level cache. */
    arguments.scheduler.max_swizzle_size = 8;
    /* Without split-K nothing needs CUTLASS's own scratch. Its can_implement is not asked: for the output it wants
     * cols % 8 = 0, where the copy engine needs only the stride to be (hopper.cu checks that, pointers and depth). */
    if (Gemm::get_workspace_size(arguments) != 0) return int(cudaErrorNotSupported);
    Gemm gemm;
    cutlass::Status status = gemm.initialize(arguments, nullptr, call.stream);
    if (status == cutlass::Status::kSuccess) status = gemm.run(call.stream);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return int(error);
    return status == cutlass::Status::kSuccess ? 0 : int(cudaErrorUnknown);
  }
};

template <class Input>
int run_sums(const HopperCall &call) {
  typename Sums::Arguments fusion{};
  fusion.op_0.op_0 = {call.scalars, call.positive, call.diagonal};
  fusion.op_0.op_1.ptr_col = call.row_parts;
  fusion.op_1.ptr_row = call.col_parts;
  return Product<Input, void, Sums>::run(call, fusion);
}
template <class Input>
int run_gradient(const HopperCall &call) {
  typename Gradients::Arguments fusion{};
  fusion.op_0.ptr_col = call.row_inverse;
  fusion.op_1.ptr_row = call.col_inverse;
  fusion.op_2 = {call.scalars, call.positive, call.positive_slope};
  return Product<Input, cutlass::half_t, Gradients>::run(call, fusion);
}
template <class Input, bool keep>
int run_sigmoid(const HopperCall &call) {
  using Output = cute::conditional_t<keep, cutlass::half_t, void>;
  typename Sigmoids<keep>::Arguments fusion{};
  fusion.op_1 = {call.scalars, call.positive, call.loss_parts};
  return Product<Input, Output, Sigmoids<keep>>::run(call, fusion);
}

}  // namespace sweep
#endif
