/* The Hopper kernels' epilogues, CUTLASS's nodes and ours, emulated on the CPU: threads hold the accumulators that the
 * tensor cores would leave them, and walk the subtiles as `store` does in sm90_epilogue_tma_warpspecialized.hpp, less
 * its copies. Compiled by a plain C++ compiler with -fpermissive, since the headers name CUDA's functions.
 */
#include <math.h>
#include <stdio.h>

#include "block.h"

inline struct {
  unsigned &x = emulate::index;
  unsigned y = 0, z = 0;
} threadIdx;
inline struct {
  unsigned x = 0, y = 0, z = 0;
} blockIdx, blockDim, gridDim;
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulate::exchange_xor(value, mask);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int step) {
  return emulate::exchange_down(value, step);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulate::exchange(value, emulate::index / 32 * 32 + unsigned(lane));
}
void __syncthreads();
void __syncwarp();
void __threadfence();
#include <cutlass/cutlass.h>
namespace cutlass {
inline int emulated_lane() { return int(emulate::index % 32); }
}  // namespace cutlass
#define canonical_lane_idx emulated_lane
#include "../epilogue.cuh"

namespace {
using namespace cute;
namespace callbacks = cutlass::epilogue::fusion::detail;
int failures = 0;

double noise() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return double(state >> 11) / double(1ull << 52) - 1;
}
void near(const char *what, int64_t at, double found, double wanted, double relative, double absolute = 0) {
  if (fabs(found - wanted) <= relative * fabs(wanted) + absolute) return;
  if (++failures <= 20) printf("FAILED %s [%ld]: %.9g, should be %.9g\n", what, long(at), found, wanted);
}

/* All tiles of S (rows x cols), two to a cluster along the rows; what the epilogue returns goes to `output`. */
template <class Output, class Fusion>
void epilogue(int rows, int cols, const std::vector<float> &s, typename Fusion::Arguments arguments,
              std::vector<double> &output) {
  using Epilogue = sweep::Epilogue<Output, Fusion>;
  using Subtile = typename Epilogue::EpilogueTile;
  using Staged = conditional_t<is_void_v<Output>, sweep::fusion::get_element_aux_t<Fusion>, Output>;
  constexpr int N = Epilogue::DispatchPolicy::FragmentSize, per_subtile = 128 * 32 / 256 / N;
  const auto problem = make_shape(rows, cols, 64, 1);
  const auto params = Fusion::to_underlying_arguments(problem, arguments, nullptr);
  typename Fusion::SharedStorage storage{};
  std::vector<uint64_t> staging(128 * 32 * sizeof(Staged) / 8, 0x7ff7777777777777u);
  const int tiles_m = (rows + 127) / 128, tiles_n = (cols + 255) / 256;
  for (int tile_n = 0; tile_n < tiles_n; ++tile_n) {
    for (int tile_m = 0; tile_m < (tiles_m + 1) / 2 * 2; ++tile_m) {
      emulate::block(256, [&] {
        const int thread = int(emulate::index);
        Fusion fusion(params, storage);
        /* Two warpgroups of 64 x 256 each, as the mainloop's builder chooses for this tile. */
        constexpr auto K = SM90::GMMA::Major::K;
        auto mma = make_tiled_mma(SM90::GMMA::MMA_64x256x16_F32BF16BF16_SS<K, K>{},
                                  Layout<Shape<_2, _1, _1>>{});
        auto atom = make_tiled_copy_C_atom(typename Epilogue::CopyAtomC{}, mma);
        auto to_shared = make_tiled_copy_S(Copy_Atom<typename Epilogue::CopyOpR2S, Staged>{}, atom);
        auto mine = to_shared.get_slice(thread);
        Tensor whole = make_identity_tensor(make_shape(rows, cols));
        Tensor tile = local_tile(whole, take<0, 2>(sweep::OutputTile{}), make_coord(tile_m, tile_n));
        Tensor places = mine.partition_S(flat_divide(tile, Subtile{}));
        Tensor relative = make_coord_tensor(tile.layout());
        Tensor my_relative = make_coord_tensor(places.layout());
        auto residue = make_coord(rows, cols) - tile(_0{});
        auto my_residue = make_coord(rows, cols) - places(_0{});
        Tensor source = make_tensor<float>(make_shape(Int<N>{}));

        Tensor registers = partition_fragment_C(mma, take<0, 2>(sweep::OutputTile{}));
        Tensor owned = mma.get_slice(thread).partition_C(tile);
        for (int i = 0; i < size(registers); ++i) {
          const int row = get<0>(owned(i)), col = get<1>(owned(i));
          registers(i) = row < rows && col < cols ? s[size_t(row) * size_t(cols) + size_t(col)] : 0;
        }
        Tensor fragments = recast<cutlass::Array<float, N>>(mine.retile_S(registers));

        auto args = callbacks::ConsumerStoreArgs(append<4>(problem, 1), sweep::OutputTile{},
                                                 make_coord(tile_m, tile_n, _, 0), mma, Subtile{}, to_shared, relative,
                                                 residue, my_relative, my_residue, source, thread);
        auto run = fusion.template get_consumer_store_callbacks<true>(args);
        auto synchronize = [] { emulate::yield(); };
        Tensor buffer = make_tensor(make_smem_ptr(reinterpret_cast<Staged *>(staging.data())),
                                    make_layout(make_shape(_128{}, _32{})));
        run.begin();
        if (run.begin_sync_needed()) synchronize();
        for (int n = 0; n < size<4>(places); ++n) {
          run.begin_loop(0, n);
          run.previsit(0, n, 0, false);
          auto results = make_tensor<decltype(run.visit(fragments(0), 0, 0, 0))>(make_shape(Int<per_subtile>{}));
          for (int v = 0; v < per_subtile; ++v) {
            results(v) = run.visit(fragments(n * per_subtile + v), v, 0, n);
            for (int i = 0; i < N; ++i) {
              auto at = places(_, _, _, 0, n)(v * N + i);
              if (get<0>(at) >= rows || get<1>(at) >= cols) continue;
              output[size_t(get<0>(at)) * size_t(cols) + size_t(get<1>(at))] = double(float(results(v)[i]));
            }
          }
          run.reduce(buffer, synchronize, 0, n, n == size<4>(places) - 1, results);
          run.postreduce(0, n, 0, true);
          synchronize();
          run.end_loop(0, n);
        }
        run.end();
      });
    }
  }
}

void all(int rows, int cols, int64_t positive) {
  const double scale = 20, offset = 3 * sweep::ln_2, bias = -10;
  sweep_scalars scalars{};
  scalars.scale = scale, scalars.offset = offset, scalars.bias = bias;
  const int64_t height = (rows + 127) / 128 * 128, width = (cols + 255) / 256 * 256;
  const int64_t tiles_m = height / 128, tiles_n = width / 256;
  std::vector<float> s;
  for (int i = 0; i < rows * cols; ++i) s.push_back(float(0.5 * noise()));
  auto is_positive = [&](int64_t i, int64_t j) { return j == i + positive; };
  auto l = [&](int64_t i, int64_t j) { return scale * double(s[size_t(i * cols + j)]); };
  auto e = [&](int64_t i, int64_t j) { return is_positive(i, j) ? 0 : exp(l(i, j) - offset); };
  std::vector<double> found(s.size(), -7);

  /* Parts end where they must, for the sanitizer. */
  std::vector<float> row_parts(size_t(tiles_n * height), NAN), col_parts(size_t(tiles_m * width), NAN);
  std::vector<double> diagonal(size_t(rows), -7);
  typename sweep::Sums::Arguments sums{};
  sums.op_0.op_0 = {&scalars, positive, diagonal.data()};
  sums.op_0.op_1.ptr_col = row_parts.data();
  sums.op_1.ptr_row = col_parts.data();
  epilogue<void, sweep::Sums>(rows, cols, s, sums, found);
  for (int64_t i = 0; i < rows; ++i) {
    const bool has = i + positive >= 0 && i + positive < cols;
    near("logit", i, diagonal[size_t(i)], has ? l(i, i + positive) : -7, 2e-7);
    for (int64_t n = 0; n < tiles_n; ++n) {
      double sum = 0;
      for (int64_t j = 256 * n; j < 256 * (n + 1) && j < cols; ++j) sum += e(i, j);
      near("row part", i, row_parts[size_t(n * height + i)], sum, 1e-5);
    }
  }
  for (int64_t j = 0; j < cols; ++j) {
    for (int64_t m = 0; m < tiles_m; ++m) {
      double sum = 0;
      for (int64_t i = 128 * m; i < 128 * (m + 1) && i < rows; ++i) sum += e(i, j);
      near("column part", j, col_parts[size_t(m * width + j)], sum, 1e-5);
    }
  }

  std::vector<float> row_inverse, col_inverse;
  std::vector<double> slope;
  for (int i = 0; i < rows; ++i) {
    row_inverse.push_back(float(1e-5 * (2 + noise())));
    slope.push_back(-1 + 0.5 * noise());
  }
  for (int j = 0; j < cols; ++j) col_inverse.push_back(float(1e-5 * (2 + noise())));
  typename sweep::Gradients::Arguments gradients{};
  gradients.op_0.ptr_col = row_inverse.data();
  gradients.op_1.ptr_row = col_inverse.data();
  gradients.op_2 = {&scalars, positive, slope.data()};
  epilogue<cutlass::half_t, sweep::Gradients>(rows, cols, s, gradients, found);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      const double g = exp(l(i, j) - offset) * (row_inverse[size_t(i)] + col_inverse[size_t(j)]);
      const double wanted = is_positive(i, j) ? slope[size_t(i)] : fmin(g, 65504.0 / 16384);
      near("gradient", i * cols + j, found[size_t(i * cols + j)] / 16384, wanted, 6e-4, 4e-12);
    }
  }

  for (bool keep : {false, true}) {
    std::vector<double> parts(size_t(2 * 8 * tiles_m * tiles_n), NAN);
    if (keep) {
      typename sweep::Sigmoids<true>::Arguments sigmoids{};
      sigmoids.op_1 = {&scalars, positive, parts.data()};
      epilogue<cutlass::half_t, sweep::Sigmoids<true>>(rows, cols, s, sigmoids, found);
    } else {
      typename sweep::Sigmoids<false>::Arguments sigmoids{};
      sigmoids.op_1 = {&scalars, positive, parts.data()};
      epilogue<void, sweep::Sigmoids<false>>(rows, cols, s, sigmoids, found);
    }
    double loss = 0, slopes = 0, losses = 0, sum = 0;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const double z = is_positive(i, j) ? 1 : -1, x = z * (l(i, j) + bias);
        loss += x < -30 ? -x : log1p(exp(-x));
        const double g = -z / (1 + exp(x));
        slopes += g;
        if (keep) near("sigmoid gradient", i * cols + j, found[size_t(i * cols + j)] / 16384, g, 6e-4, 4e-12);
      }
    }
    for (size_t part = 0; part < parts.size(); part += 2) losses += parts[part], sum += parts[part + 1];
    near("sigmoid loss", keep, losses, loss, 1e-6);
    near("sigmoid slopes", keep, sum, slopes, 1e-6, 1e-6);
  }
}
}  // namespace

int main() {
  all(128, 256, 0);
  all(128, 256, 250); /* the first row of tiles has its positives in a corner */
  all(256, 256, -120);
  all(300, 700, 90);
  all(129, 257, -3);
  all(1, 8, 2);
  all(200, 515, -700);
  printf("%s\n", failures ? "failed" : "emulated on the CPU: Hopper's epilogues agree with the formulas");
  return failures != 0;
}
