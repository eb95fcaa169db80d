#include "branch.h"
#include "attend.h"
#include "stretches.h"
#include "sweep.h"

namespace sweep {
namespace {

/* Each head of each sequence of a stretch: the sequence's tokens and first row, and the head's first column. */
template <typename F> void each_head(const Branch &branch, const Stretch &stretch, F body) {
  const int64_t d = branch.width / branch.heads;
  int64_t at = 0;
  for (const Sequences &group : stretch.groups)
    for (int64_t s = 0; s < group.count; ++s, at += group.tokens)
      for (int64_t h = 0; h < branch.heads; ++h) body(group.tokens, at, h * d);
}

template <typename P>
void forward(const Branch &branch, const BranchWeights &weights, const float *x, float *y, const Kept &kept) {
  using T = typename P::T;
  const int64_t W = branch.width, N = branch.inner, M = branch.outer;
  const std::vector<Stretch> all = stretches_of(branch.sequences);
  const int64_t most = most_rows(all);
  const bool half = branch.half, in_place = !half && kept.z;
  const KeptRows kept_z{half, kept.z, N}, kept_g{half, kept.g, M};
  const auto in = Panels<P>::of_transpose(W, N, weights.in_weight), out = Panels<P>::of_transpose(M, W, weights.out_weight);
  in_parts(int64_t(all.size()), [&](int64_t, int64_t begin, int64_t end) {
    const auto row = room<float>(std::max(W, M)), z_room = room<float>(in_place ? 0 : most * N);
    const auto g_room = room<float>(branch.attends() && !in_place ? most * M : 0);
    const auto factor = room<T>(most * std::max(in.k, out.k));
    const std::vector<float> zeros(half && !PAIRS<T> ? size_t(N) : 0);
    float unkept[2];
    Attention attention(longest(branch.sequences), branch.attends() ? W / branch.heads : 0, branch.causal);
    for (int64_t i = begin; i < end; ++i) {
      const Stretch &stretch = all[size_t(i)];
      const int64_t rows = stretch.rows, first = stretch.first;
      for (int64_t r = 0; r < rows; ++r) {
        float *const stats = kept.stats ? kept.stats + (first + r) * 2 : unkept;
        norm_row(W, x + (first + r) * W, weights.norm_weight, weights.norm_bias, branch.eps, stats, row.get());
        left_row<P>(W, row.get(), factor.get() + r * in.k);
      }
      float *const z = in_place ? kept_z.float_row(first) : z_room.get();
      in.multiply(rows, factor.get(), z, false);
      if (branch.attends()) {
        for (int64_t r = 0; r < rows; ++r)
          half ? round_biased_row(N, weights.in_bias, z + r * N, kept_z.half_row(first + r)) : add_row(N, weights.in_bias, z + r * N);
        float *const g = in_place ? kept_g.float_row(first) : g_room.get();
        each_head(branch, stretch, [&](int64_t tokens, int64_t at, int64_t column) {
          const float *const q = z + at * N + column;
          attention.forward(tokens, q, q + W, q + 2 * W, N, g + at * M + column, M);
        });
        for (int64_t r = 0; r < rows; ++r) {
          left_row<P>(M, g + r * M, factor.get() + r * out.k);
          if (half && kept.g) bfloat16_row(g + r * M, M, kept_g.half_row(first + r));
        }
      } else {
        for (int64_t r = 0; r < rows; ++r) {
          T *const to = factor.get() + r * out.k;
          uint16_t *const kept_row = half ? kept_z.half_row(first + r) : nullptr;
          if constexpr (PAIRS<T>) {
            activate_half(branch.activation, N, weights.in_bias, z + r * N, kept_row, reinterpret_cast<uint16_t *>(to));
            if (out.k > M) to[M] = T(0.0f);
          } else if (half) {
            round_biased_row(N, weights.in_bias, z + r * N, kept_row);
            activate(branch.activation, N, zeros.data(), z + r * N, row.get());
            left_row<P>(M, row.get(), to);
          } else {
            activate(branch.activation, N, weights.in_bias, z + r * N, to);
          }
        }
      }
      for (int64_t r = first; r < first + rows; ++r) sum_of_rows(W, x + r * W, weights.out_bias, y + r * W);
      out.multiply(rows, factor.get(), y + first * W, true);
    }
  });
}

/* What a chunk leaves for the weights' gradients: u^T and dy^T (W, rows), rows `ld` apart; g(z) and dz as the right factors of
 * products; sums over rows of what is gamma's, beta's, b2's (W each) and b1's (N). */
template <typename P> struct Factors {
  using T = typename P::T;
  int64_t W, N, M, depth, ld;
  std::unique_ptr<T[]> u, dy, g, dz;
  std::unique_ptr<float[]> sums;

  Factors(const Branch &branch, int64_t depth)
      : W(branch.width), N(branch.inner), M(branch.outer), depth(depth), ld(depth + LANES), u(room<T>(W * ld)), dy(room<T>(W * ld)),
        g(room<T>(P::room_for(M, depth))), dz(room<T>(P::room_for(N, depth))), sums(room<float>(3 * W + N)) {}

  void clear() { std::fill_n(sums.get(), 3 * W + N, 0.0f); }
  void pad(const Chunk &chunk) {
    for (T *each : {u.get(), dy.get()}) pad_left<P>(W, chunk.rows, each, ld);
    pad_right<P>(chunk.rows, N, dz.get(), depth), pad_right<P>(chunk.rows, M, g.get(), depth);
  }
  void add_sums(const BranchGradients &to) const {
    const float *const from = sums.get();
    add_row(W, from, to.norm_weight), add_row(W, from + W, to.norm_bias);
    add_row(W, from + 2 * W, to.out_bias), add_row(N, from + 3 * W, to.in_bias);
  }
};

/* The way back of one thread's chunks. */
template <typename P> struct Backward {
  using T = typename P::T;
  const Branch &branch;
  const BranchWeights &weights;
  const float *x, *dy;
  const Kept &kept;
  float *dx;
  const Panels<P> &out, &in;
  int64_t depth, most;

  const int64_t W = branch.width, N = branch.inner, M = branch.outer;
  const KeptRows kept_z{branch.half, kept.z, N}, kept_g{branch.half, kept.g, M};
  std::unique_ptr<float[]> u = room<float>(most * W), down_room = room<float>(most * M), wide = room<float>(most * std::max(N, M)),
                           z_room = room<float>(branch.half ? most * N : 0),
                           turned = room<float>(PAIRS<T> ? W * (depth + LANES) : 0);
  std::unique_ptr<T[]> factor = room<T>(most * std::max(in.k, out.k));
  Attention attention{longest(branch.sequences), branch.attends() ? W / branch.heads : 0, branch.causal};

  /* g and dz of an activation from dL/dg at `down`; `factor` has dz. */
  const T *through_activation(const Stretch &stretch, float *down, Factors<P> &to, float *sums) {
    T *const g = to.g.get() + (PAIRS<T> || P::AS_IT_IS ? stretch.laid * N : 0);
    if constexpr (PAIRS<T>) {
      for (int64_t r = 0; r < stretch.rows; r += 2) {
        const bool both = r + 1 < stretch.rows;
        const uint16_t *const z[] = {kept_z.half_row(stretch.first + r), both ? kept_z.half_row(stretch.first + r + 1) : nullptr};
        const float *const d[] = {down + r * N, both ? down + (r + 1) * N : nullptr};
        uint16_t *const dz[] = {bits(factor.get() + r * in.k), bits(factor.get() + (r + 1) * in.k)};
        activate_backward_half(branch.activation, N, z, d, dz, pairs(g + r * N), pairs(to.dz.get() + (stretch.laid + r) * N), sums);
      }
      end_rows(stretch.rows);
      return factor.get();
    } else {
      const float *const z = kept_z.read(stretch.first, stretch.rows, z_room.get());
      float *const c = P::AS_IT_IS ? g : wide.get();
      for (int64_t r = 0; r < stretch.rows; ++r)
        activate_backward(branch.activation, N, z + r * N, c + r * N, down + r * N, sums);
      if (P::AS_IT_IS) return down;
      P::lay(stretch.rows, M, c, M, stretch.laid, depth, to.g.get());
      P::lay(stretch.rows, N, down, N, stretch.laid, depth, to.dz.get());
      return left_factor<P>(stretch.rows, N, down, factor.get());
    }
  }

  /* The same of attention; `dz` is room for it. */
  const T *through_attention(const Stretch &stretch, const float *down, float *dz, Factors<P> &to, float *sums) {
    const float *const z = kept_z.read(stretch.first, stretch.rows, z_room.get());
    each_head(branch, stretch, [&](int64_t tokens, int64_t at, int64_t column) {
      const float *const q = z + at * N + column;
      float *const dq = dz + at * N + column;
      attention.backward(tokens, q, q + W, q + 2 * W, N, down + at * M + column, M, dq, dq + W, dq + 2 * W);
    });
    if constexpr (PAIRS<T>) {
      for (int64_t r = 0; r < stretch.rows; r += 2) {
        const bool both = r + 1 < stretch.rows;
        const float *const d[] = {dz + r * N, both ? dz + (r + 1) * N : nullptr};
        uint16_t *const rows[] = {bits(factor.get() + r * in.k), bits(factor.get() + (r + 1) * in.k)};
        half_rows(N, d, rows, pairs(to.dz.get() + (stretch.laid + r) * N), sums);
        const uint16_t *const g = kept_g.half_row(stretch.first + r);
        pair_rows(M, g, both ? g + M : nullptr, pairs(to.g.get() + (stretch.laid + r) * M));
      }
      end_rows(stretch.rows);
      return factor.get();
    } else {
      for (int64_t r = 0; r < stretch.rows; ++r) add_row(N, dz + r * N, sums);
      P::lay(stretch.rows, M, kept_g.read(stretch.first, stretch.rows, down_room.get()), M, stretch.laid, depth, to.g.get());
      if (P::AS_IT_IS) return dz;
      P::lay(stretch.rows, N, dz, N, stretch.laid, depth, to.dz.get());
      return left_factor<P>(stretch.rows, N, dz, factor.get());
    }
  }

  void operator()(const Stretch &stretch, Factors<P> &to) {
    const int64_t rows = stretch.rows, first = stretch.first;
    float *const of_gamma = to.sums.get(), *const of_beta = of_gamma + W, *const of_dy = of_beta + W, *const of_dz = of_dy + W;
    const float *const upstream = dy + first * W;
    for (int64_t r = 0; r < rows; ++r) add_row(W, upstream + r * W, of_dy);
    lay_turned<P>(rows, W, upstream, turned.get(), to.dy.get() + stretch.laid, to.ld);
    float *dz = nullptr; /* where it may stay */
    if constexpr (P::AS_IT_IS) dz = to.dz.get() + stretch.laid * N;
    float *const down = P::AS_IT_IS && !branch.attends() ? dz : down_room.get();
    out.multiply(rows, left_factor<P>(rows, W, upstream, factor.get()), down, false);
    const T *const left = branch.attends() ? through_attention(stretch, down, dz ? dz : wide.get(), to, of_dz)
                                           : through_activation(stretch, down, to, of_dz);
    const auto stats = [&](int64_t r) { return kept.stats + (first + r) * 2; };
    for (int64_t r = 0; r < rows; ++r)
      norm_row_again(W, x + (first + r) * W, weights.norm_weight, weights.norm_bias, stats(r), u.get() + r * W);
    lay_turned<P>(rows, W, u.get(), turned.get(), to.u.get() + stretch.laid, to.ld);
    in.multiply(rows, left, u.get(), false); /* dL/du in u's place */
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (first + r) * W;
      norm_row_backward(W, x + at, weights.norm_weight, stats(r), u.get() + r * W, dy + at, dx + at, of_gamma, of_beta);
    }
  }

private:
  static uint16_t *bits(BFloat16 *x) { return reinterpret_cast<uint16_t *>(x); }
  static float *pairs(BFloat16 *x) { return reinterpret_cast<float *>(x); }
  /* Rows of dz end with a zero where N is odd. */
  void end_rows(int64_t rows) {
    for (int64_t r = 0; in.k > N && r < rows; ++r) factor[size_t(r * in.k + N)] = T(0.0f);
  }
};

template <typename P>
void backward(const Branch &branch, const BranchWeights &weights, const float *x, const float *dy, const Kept &kept, float *dx,
              const BranchGradients &gradients) {
  using T = typename P::T;
  const int64_t W = branch.width, N = branch.inner, M = branch.outer;
  std::vector<Stretch> all = stretches_of(branch.sequences);
  const std::vector<Chunk> chunks = chunks_of<T>(all);
  const int64_t most = most_rows(all), threads = at::get_num_threads();
  const int64_t depth = most_padded(chunks);
  const auto out = Panels<P>::of(W, M, weights.out_weight), in = Panels<P>::of(N, W, weights.in_weight);
  const auto in_turned = room<float>(W * N); /* dW1^T */
  std::vector<Factors<P>> factors;
  for (int64_t i = 0; i < std::min<int64_t>(threads, int64_t(chunks.size())); ++i) factors.emplace_back(branch, depth);
  std::fill_n(gradients.norm_weight, W, 0.0f), std::fill_n(gradients.norm_bias, W, 0.0f);
  std::fill_n(gradients.in_bias, N, 0.0f), std::fill_n(gradients.out_bias, W, 0.0f);

  const auto back = [&] { return Backward<P>{branch, weights, x, dy, kept, dx, out, in, depth, most}; };
  in_rounds(all, chunks, factors, W, gradients, back, [&](const Chunk &chunk, const Factors<P> &from, Share share, bool add) {
    const int64_t rows = padded_rows(chunk.rows);
    accumulate<P>(share, N, rows, depth, from.u.get(), from.ld, from.dz.get(), in_turned.get(), add);
    accumulate<P>(share, M, rows, depth, from.dy.get(), from.ld, from.g.get(), gradients.out_weight, add);
  });
  turn(W, N, in_turned.get(), gradients.in_weight);
}

} // namespace

void branch_forward(const Branch &branch, const BranchWeights &weights, const float *x, float *y, const Kept &kept) {
  by_processor(branch.half, [&](auto product) { forward<decltype(product)>(branch, weights, x, y, kept); });
}

void branch_backward(const Branch &branch, const BranchWeights &weights, const float *x, const float *dy, const Kept &kept, float *dx,
                     const BranchGradients &gradients) {
  by_processor(branch.half, [&](auto product) { backward<decltype(product)>(branch, weights, x, dy, kept, dx, gradients); });
}

} // namespace sweep
