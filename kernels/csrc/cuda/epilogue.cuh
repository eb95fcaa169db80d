/* Epilogues of the Hopper kernels: what happens to acc_ij = u_i . v_j before anything leaves the chip, one of
 *
 *   sums      E = 2^(acc k - q), 0 at positives and beyond the edge; row and column sums a tile; d from the same acc
 *   gradient  2^14 E (1/R_i + 1/C_j) as float16, the positive's entry replaced
 *   sigmoid   2^14 G as float16; loss and slope sums a warp         loss: the same without G
 *
 * Sums per tile come from CUTLASS's row and column reductions without their final step (FinalReduction = false: no
 * atomics, no counters); hopper.cu adds the tiles up. Formulas of an entry are element.h's. Tiles that hold a positive
 * or stick out of the matrix take a slower path, each block as a whole. emulate/epilogue.cpp runs all this on the CPU.
 */
#ifndef SWEEP_CUDA_EPILOGUE_CUH
#define SWEEP_CUDA_EPILOGUE_CUH
#include <cutlass/cutlass.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>

#include "element.h"
#include "hopper.h"

namespace sweep {

namespace fusion = cutlass::epilogue::fusion;
using cute::_0;
using cute::_1;
using cute::_2;
using OutputTile = cute::Shape<cute::Int<hopper_rows>, cute::Int<hopper_cols>, cute::_64>;
using Cluster = cute::Shape<_2, _1, _1>;
constexpr auto nearest = cutlass::FloatRoundStyle::round_to_nearest;

/* What every node of an epilogue must say, for one that needs no shared memory and no loads by the producer warp. */
template <class Params_>
struct Node {
  struct SharedStorage {};
  using Arguments = Params_;
  using Params = Params_;
  template <class Problem>
  static constexpr Params to_underlying_arguments(Problem const &, Arguments const &arguments, void *) {
    return arguments;
  }
  template <class Problem>
  static bool can_implement(Problem const &, Arguments const &) {
    return true;
  }
  template <class Problem>
  static size_t get_workspace_size(Problem const &, Arguments const &) {
    return 0;
  }
  template <class Problem>
  static cutlass::Status initialize_workspace(Problem const &, Arguments const &, void *, cudaStream_t,
                                              cutlass::CudaHostAdapter * = nullptr) {
    return cutlass::Status::kSuccess;
  }
  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  CUTLASS_DEVICE bool is_C_load_needed() const { return false; }
  CUTLASS_HOST_DEVICE Node() {}
  CUTLASS_HOST_DEVICE Node(Params const &params, SharedStorage const &) : params(params) {}
  template <class... Args>
  CUTLASS_DEVICE auto get_producer_load_callbacks(fusion::detail::ProducerLoadArgs<Args...> const &) {
    return fusion::EmptyProducerLoadCallbacks{};
  }
  Params params;
};

/* Where a thread's entries are. `coords` are relative to its first entry and known at compile time. */
template <class Coords>
struct Place {
  Coords coords;
  int row, col;             /* of the first entry */
  int rows_left, cols_left; /* from there to the edge */
  int band;                 /* column less row of a positive, both relative */
  bool special;             /* the tile holds a positive or sticks out: the same for the whole block */
  bool outside;             /* the tile is all beyond the edge: the other half of a cluster is not */

  template <class Args>
  CUTLASS_DEVICE Place(Args const &args, int64_t positive) : coords(args.tCcD) {
    const int rows = cute::get<0>(args.problem_shape_mnkl), cols = cute::get<1>(args.problem_shape_mnkl);
    rows_left = cute::get<0>(args.residue_tCcD);
    cols_left = cute::get<1>(args.residue_tCcD);
    row = rows - rows_left;
    col = cols - cols_left;
    const int64_t relative = positive + row - col;
    band = relative > -0x40000000 && relative < 0x40000000 ? int(relative) : 0x7fffffff;
    const int64_t first_row = int64_t(cute::get<0>(args.tile_coord_mnkl)) * hopper_rows;
    const int64_t first_col = int64_t(cute::get<1>(args.tile_coord_mnkl)) * hopper_cols;
    outside = first_row >= rows || first_col >= cols;
    special = first_row + hopper_rows > rows || first_col + hopper_cols > cols ||
              (positive > first_col - first_row - hopper_rows && positive < first_col - first_row + hopper_cols);
  }
  /* (row, column, inside, positive) of entry v of the subtile (m, n). */
  struct Entry {
    int row;
    bool inside, positive;
  };
  CUTLASS_DEVICE Entry at(int v, int m, int n) const {
    auto here = coords(cute::_, cute::_, cute::_, m, n)(v);
    const int down = cute::get<0>(here), right = cute::get<1>(here);
    const bool inside = down < rows_left && right < cols_left;
    return {row + down, inside, inside && right - down == band};
  }
};
template <class Args>
CUTLASS_DEVICE auto place_of(Args const &args, int64_t positive) {
  return Place<cute::remove_cvref_t<decltype(args.tCcD)>>(args, positive);
}

/* E, and the positives' logits on the way. */
struct ExponentialParams {
  const sweep_scalars *scalars;
  int64_t positive;
  double *diagonal;
};
struct Exponential : Node<ExponentialParams> {
  using Node<ExponentialParams>::Node;
  template <class P>
  struct Callbacks : fusion::EmptyConsumerStoreCallbacks {
    CUTLASS_DEVICE Callbacks(P place, Fold<float> k, double *diagonal) : place(place), k(k), diagonal(diagonal) {}
    P place;
    Fold<float> k;
    double *diagonal;
    template <int N>
    CUTLASS_DEVICE auto visit(cutlass::Array<float, N> const &acc, int v, int m, int n) {
      cutlass::Array<float, N> e;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < N; ++i) e[i] = exponential(k, acc[i]);
      if (place.special) {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < N; ++i) {
          auto entry = place.at(v * N + i, m, n);
          if (entry.positive) diagonal[entry.row] = logit(k, float(acc[i]));
          if (entry.positive || !entry.inside) e[i] = 0;
        }
      }
      return e;
    }
  };
  template <bool reference_source, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(fusion::detail::ConsumerStoreArgs<Args...> const &args) {
    auto at = place_of(args, params.positive);
    return Callbacks<decltype(at)>(at, fold<float>(params.scalars->scale, params.scalars->offset), params.diagonal);
  }
};

/* 2^14 G. The factor goes into the exponent, where it costs nothing. */
struct GradientParams {
  const sweep_scalars *scalars;
  int64_t positive;
  const double *positive_slope;
};
struct Gradient : Node<GradientParams> {
  using Node<GradientParams>::Node;
  template <class P>
  struct Callbacks : fusion::EmptyConsumerStoreCallbacks {
    CUTLASS_DEVICE Callbacks(P place, Fold<float> k, const double *positive_slope)
        : place(place), k(k), positive_slope(positive_slope) {}
    P place;
    Fold<float> k;
    const double *positive_slope;
    template <int N>
    CUTLASS_DEVICE auto visit(cutlass::Array<float, N> const &acc, int v, int m, int n,
                              cutlass::Array<float, N> const &row, cutlass::Array<float, N> const &col) {
      cutlass::Array<float, N> g;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < N; ++i) g[i] = capped(exponential(k, acc[i]) * (row[i] + col[i]));
      if (place.special) {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < N; ++i) {
          auto entry = place.at(v * N + i, m, n);
          if (entry.positive) g[i] = scaled_gradient(float(positive_slope[entry.row]));
        }
      }
      return cutlass::NumericArrayConverter<cutlass::half_t, float, N, nearest>{}(g);
    }
  };
  template <bool reference_source, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(fusion::detail::ConsumerStoreArgs<Args...> const &args) {
    auto at = place_of(args, params.positive);
    Fold<float> k = fold<float>(params.scalars->scale, params.scalars->offset);
    k.shift -= 14;
    return Callbacks<decltype(at)>(at, k, params.positive_slope);
  }
};

/* The sigmoid loss; `keep` to return 2^14 G. */
struct SigmoidParams {
  const sweep_scalars *scalars;
  int64_t positive;
  double *parts;
};
template <bool keep>
struct Sigmoid : Node<SigmoidParams> {
  using Node<SigmoidParams>::Node;
  using ElementAux = cutlass::half_t; /* type of the staging buffer, which is there even where nothing is stored */
  template <class P>
  struct Callbacks : fusion::EmptyConsumerStoreCallbacks {
    CUTLASS_DEVICE Callbacks(P place, float scale, float bias, double *part, int lane)
        : place(place), scale(scale), bias(bias), part(part), lane(lane) {}
    P place;
    float scale, bias;
    double *part; /* of this warp */
    int lane;
    double loss = 0, slope = 0;
    template <int N>
    CUTLASS_DEVICE auto visit(cutlass::Array<float, N> const &acc, int v, int m, int n,
                              cutlass::Array<float, N> const &) {
      /* Beyond the edge x is -infinity, whose loss and slope are 0. */
      cutlass::Array<float, N> x, g;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < N; ++i) x[i] = multiply_add(float(acc[i]), scale, bias);
      if (place.special) {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < N; ++i) {
          auto entry = place.at(v * N + i, m, n);
          x[i] = !entry.inside ? -INFINITY : entry.positive ? -x[i] : x[i];
        }
      }
      float losses = 0, slopes = 0;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < N; ++i) {
        Soft<float> value = soft(float(x[i]));
        losses += value.plus;
        g[i] = value.sigmoid;
      }
      if (place.special) {
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < N; ++i) {
          if (place.at(v * N + i, m, n).positive) g[i] = -g[i];
        }
      }
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < N; ++i) {
        slopes += g[i];
        g[i] *= 16384.0f;
      }
      loss += double(losses), slope += double(slopes);
      return cutlass::NumericArrayConverter<cutlass::half_t, float, N, nearest>{}(g);
    }
    CUTLASS_DEVICE void end() {
      CUTLASS_PRAGMA_UNROLL
      for (int step = 16; step > 0; step /= 2) {
        loss += __shfl_down_sync(0xffffffffu, loss, step);
        slope += __shfl_down_sync(0xffffffffu, slope, step);
      }
      if (lane == 0 && !place.outside) part[0] = loss, part[1] = slope;
    }
  };
  template <bool reference_source, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(fusion::detail::ConsumerStoreArgs<Args...> const &args) {
    auto at = place_of(args, this->params.positive);
    const int rows = cute::get<0>(args.problem_shape_mnkl);
    const int64_t tiles_m = (rows + hopper_rows - 1) / hopper_rows;
    const int64_t tile = cute::get<1>(args.tile_coord_mnkl) * tiles_m + cute::get<0>(args.tile_coord_mnkl);
    double *part = this->params.parts + 2 * (tile * hopper_warps + args.thread_idx / 32);
    const sweep_scalars *scalars = this->params.scalars;
    return Callbacks<decltype(at)>(at, float(scalars->scale), float(scalars->bias), part, args.thread_idx % 32);
  }
};

/* Sums without the final step leave [tiles_n x rows, rounded up] and [tiles_m x cols, rounded up]. What lies beyond the
 * edge is 0 already. CUTLASS calls a sum down the columns "row": its result is a row. */
using ColumnSums = fusion::Sm90RowReduction<cutlass::plus, cutlass::plus, cutlass::plus, 0, OutputTile, float, float,
                                            nearest, cute::Stride<_0, _1, _0>, 4, false, false, false>;
using RowSums = fusion::Sm90ColReduction<cutlass::plus, cutlass::plus, cutlass::plus, 0, OutputTile, float, float,
                                         nearest, cute::Stride<_1, _0, _0>, 4, false, false, false>;
using SumsTree = fusion::Sm90EVT<ColumnSums, fusion::Sm90EVT<RowSums, Exponential>>;
struct Sums : SumsTree {
  using SumsTree::SumsTree;
  using ElementAux = cutlass::bfloat16_t; /* the staging buffer, 8 KB: what column sums of 8 warps need */
};
using Gradients = fusion::Sm90EVT<Gradient, fusion::Sm90ColBroadcast<0, OutputTile, float>,
                                  fusion::Sm90RowBroadcast<0, OutputTile, float>>;
template <bool keep>
using Sigmoids = fusion::Sm90EVT<Sigmoid<keep>, fusion::Sm90AccFetch>;

/* CUTLASS's epilogue around a tree of nodes; Output is void where nothing is stored. */
template <class Output, class Fusion>
using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, OutputTile, Cluster,
    cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, cutlass::layout::RowMajor, 8, Output,
    cutlass::layout::RowMajor, 8, cutlass::epilogue::TmaWarpSpecializedCooperative, Fusion>::CollectiveOp;

}  // namespace sweep
#endif
