#include "stretches.h"
#include "sweep.h"
#include <cmath>

namespace sweep {
namespace {

/* W1's and b1's rows are those of queries, then of keys and values. */
struct Parts {
  const float *query, *query_bias, *rest, *rest_bias;
  Parts(const Branch &branch, const BranchWeights &weights)
      : query(weights.in_weight), query_bias(weights.in_bias), rest(weights.in_weight + branch.width * branch.width),
        rest_bias(weights.in_bias + branch.width) {}
};

/* A sequence of a stretch: its number and first row there, its tokens; the row of x that is pooled, and how many tokens that one sees. */
struct PooledSequence {
  int64_t number, first, tokens, pooled, sees;
};

template <typename F> void each_sequence(const Branch &branch, const Stretch &stretch, const int64_t *pooled, F body) {
  PooledSequence one{};
  for (const Sequences &group : stretch.groups)
    for (int64_t s = 0; s < group.count; ++s, ++one.number, one.first += group.tokens) {
      one.tokens = group.tokens, one.pooled = pooled[stretch.sequence + one.number];
      one.sees = branch.causal ? one.pooled - stretch.first - one.first + 1 : group.tokens;
      body(one);
    }
}

struct Heads {
  int64_t count, width, ld;
  float factor;
  std::unique_ptr<float[]> weights, slopes;

  explicit Heads(const Branch &branch)
      : count(branch.heads), width(branch.width / branch.heads), ld(blocks(longest(branch.sequences), LANES) * LANES),
        factor(float(1.0 / std::sqrt(double(width)))), weights(room<float>(count * ld)), slopes(room<float>(count * ld)) {}
};

/* values += bias in each row; if half, what bfloat16 has of it, and that at `kept`. */
void add_bias(bool half, int64_t rows, int64_t n, const float *bias, float *values, const KeptRows &kept, int64_t first) {
  for (int64_t r = 0; r < rows; ++r) {
    if (half) {
      round_biased_row(n, bias, values + r * n, kept.half_row(first + r));
    } else {
      add_row(n, bias, values + r * n);
      if (kept.values) std::copy_n(values + r * n, n, kept.float_row(first + r));
    }
  }
}

template <typename P>
void forward(const Branch &branch, const int64_t *pooled, const BranchWeights &weights, const float *x, float *y, const KeptPooled &kept) {
  using T = typename P::T;
  const int64_t W = branch.width;
  const bool half = branch.half;
  const std::vector<Stretch> all = stretches_of(branch.sequences);
  const int64_t most = most_rows(all);
  const KeptRows kept_z{half, kept.z, 2 * W}, kept_q{half, kept.q, W}, kept_g{half, kept.g, W};
  const Parts parts(branch, weights);
  const auto query = Panels<P>::of_transpose(W, W, parts.query), rest = Panels<P>::of_transpose(W, 2 * W, parts.rest),
             out = Panels<P>::of_transpose(W, W, weights.out_weight);
  in_parts(int64_t(all.size()), [&](int64_t, int64_t begin, int64_t end) {
    const auto row = room<float>(W), z = room<float>(most * 2 * W), q = room<float>(most * W), g = room<float>(most * W);
    const auto factor = room<T>(most * rest.k), own = room<T>(most * rest.k);
    float unkept[2];
    const Heads heads(branch);
    for (int64_t i = begin; i < end; ++i) {
      const Stretch &stretch = all[size_t(i)];
      const int64_t first = stretch.first, sequences = stretch.sequences;
      for (int64_t r = 0; r < stretch.rows; ++r) {
        float *const stats = kept.stats ? kept.stats + (first + r) * 2 : unkept;
        norm_row(W, x + (first + r) * W, weights.norm_weight, weights.norm_bias, branch.eps, stats, row.get());
        left_row<P>(W, row.get(), factor.get() + r * rest.k);
      }
      each_sequence(branch, stretch, pooled, [&](const PooledSequence &one) {
        std::copy_n(factor.get() + (one.pooled - first) * rest.k, rest.k, own.get() + one.number * rest.k);
      });
      rest.multiply(stretch.rows, factor.get(), z.get(), false);
      query.multiply(sequences, own.get(), q.get(), false);
      add_bias(half, stretch.rows, 2 * W, parts.rest_bias, z.get(), kept_z, first);
      add_bias(half, sequences, W, parts.query_bias, q.get(), kept_q, stretch.sequence);
      each_sequence(branch, stretch, pooled, [&](const PooledSequence &one) {
        const int64_t s = one.number;
        const float *const keys = z.get() + one.first * 2 * W;
        float *const to = g.get() + s * W;
        attend_row(one.sees, heads.count, heads.width, heads.factor, q.get() + s * W, keys, keys + W, 2 * W, heads.weights.get(), heads.ld,
                   to);
        if (half && kept.g) bfloat16_row(to, W, kept_g.half_row(stretch.sequence + s));
        else if (kept.g) std::copy_n(to, W, kept_g.float_row(stretch.sequence + s));
        sum_of_rows(W, x + one.pooled * W, weights.out_bias, y + (stretch.sequence + s) * W);
      });
      out.multiply(sequences, left_factor<P>(sequences, W, g.get(), own.get()), y + stretch.sequence * W, true);
    }
  });
}

/* What a chunk leaves for the weights' gradients: left factors u^T (W, rows), that of pooled rows and dy^T (W, sequences); right ones dz
 * (rows, 2 W), dq and g (sequences, W); sums over rows of what is gamma's, beta's, b2's (W each) and b1's (3 W). */
template <typename P> struct Factors {
  using T = typename P::T;
  int64_t W, depth, ld;
  std::unique_ptr<T[]> u, pooled, dy, dz, dq, g;
  std::unique_ptr<float[]> sums;

  Factors(int64_t W, int64_t depth)
      : W(W), depth(depth), ld(depth + LANES), u(room<T>(W * ld)), pooled(room<T>(W * ld)), dy(room<T>(W * ld)),
        dz(room<T>(P::room_for(2 * W, depth))), dq(room<T>(P::room_for(W, depth))), g(room<T>(P::room_for(W, depth))),
        sums(room<float>(6 * W)) {}

  void clear() { std::fill_n(sums.get(), 6 * W, 0.0f); }
  void pad(const Chunk &chunk) {
    pad_left<P>(W, chunk.rows, u.get(), ld), pad_right<P>(chunk.rows, 2 * W, dz.get(), depth);
    for (T *each : {pooled.get(), dy.get()}) pad_left<P>(W, chunk.sequences, each, ld);
    for (T *each : {dq.get(), g.get()}) pad_right<P>(chunk.sequences, W, each, depth);
  }
  void add_sums(const BranchGradients &to) const {
    const float *const from = sums.get();
    add_row(W, from, to.norm_weight), add_row(W, from + W, to.norm_bias);
    add_row(W, from + 2 * W, to.out_bias), add_row(3 * W, from + 3 * W, to.in_bias);
  }
};

/* The way back of one thread's chunks. */
template <typename P> struct Backward {
  using T = typename P::T;
  const Branch &branch;
  const int64_t *pooled;
  const BranchWeights &weights;
  const float *x, *dy;
  const KeptPooled &kept;
  float *dx;
  const Panels<P> &out, &query, &rest;
  int64_t depth, most;

  const int64_t W = branch.width;
  const KeptRows kept_z{branch.half, kept.z, 2 * W}, kept_q{branch.half, kept.q, W}, kept_g{branch.half, kept.g, W};
  std::unique_ptr<float[]> u = room<float>(most * W), own = room<float>(most * W), down = room<float>(most * W), dq = room<float>(most * W),
                           dz = room<float>(most * 2 * W), z_room = room<float>(most * 2 * W), q_room = room<float>(most * W),
                           turned = room<float>(W * (depth + LANES));
  std::unique_ptr<T[]> factor = room<T>(most * even<T>(2 * W));
  const Heads heads{branch};
  const std::vector<float> zeros = std::vector<float>(size_t(W), 0.0f);

  void operator()(const Stretch &stretch, Factors<P> &to) {
    float *const of_gamma = to.sums.get(), *const of_beta = of_gamma + W, *const of_dy = of_beta + W, *const of_dz = of_dy + W;
    const int64_t rows = stretch.rows, first = stretch.first, sequences = stretch.sequences;
    const auto stats = [&](int64_t row) { return kept.stats + row * 2; };
    const float *const upstream = dy + stretch.sequence * W;
    for (int64_t s = 0; s < sequences; ++s) add_row(W, upstream + s * W, of_dy);
    out.multiply(sequences, left_factor<P>(sequences, W, upstream, factor.get()), down.get(), false);
    lay_turned<P>(sequences, W, upstream, turned.get(), to.dy.get() + stretch.laid_sequences, to.ld);
    const float *const z = kept_z.read(first, rows, z_room.get()), *const q = kept_q.read(stretch.sequence, sequences, q_room.get());
    each_sequence(branch, stretch, pooled, [&](const PooledSequence &one) {
      const int64_t s = one.number, from = one.first * 2 * W;
      float *const d_keys = dz.get() + from;
      attend_row_backward(one.sees, heads.count, heads.width, heads.factor, q + s * W, z + from, z + from + W, 2 * W, down.get() + s * W,
                          heads.weights.get(), heads.slopes.get(), heads.ld, dq.get() + s * W, d_keys, d_keys + W);
      std::fill_n(d_keys + one.sees * 2 * W, (one.tokens - one.sees) * 2 * W, 0.0f);
      add_row(W, dq.get() + s * W, of_dz);
    });
    for (int64_t r = 0; r < rows; ++r) add_row(2 * W, dz.get() + r * 2 * W, of_dz + W);
    P::lay(sequences, W, kept_g.read(stretch.sequence, sequences, q_room.get()), W, stretch.laid_sequences, depth, to.g.get());
    P::lay(sequences, W, dq.get(), W, stretch.laid_sequences, depth, to.dq.get());
    P::lay(rows, 2 * W, dz.get(), 2 * W, stretch.laid, depth, to.dz.get());
    for (int64_t r = first; r < first + rows; ++r)
      norm_row_again(W, x + r * W, weights.norm_weight, weights.norm_bias, stats(r), u.get() + (r - first) * W);
    each_sequence(branch, stretch, pooled,
                  [&](const PooledSequence &one) { std::copy_n(u.get() + (one.pooled - first) * W, W, own.get() + one.number * W); });
    lay_turned<P>(rows, W, u.get(), turned.get(), to.u.get() + stretch.laid, to.ld);
    lay_turned<P>(sequences, W, own.get(), turned.get(), to.pooled.get() + stretch.laid_sequences, to.ld);
    /* dL/du in u's place. */
    rest.multiply(rows, left_factor<P>(rows, 2 * W, dz.get(), factor.get()), u.get(), false);
    query.multiply(sequences, left_factor<P>(sequences, W, dq.get(), factor.get()), own.get(), false);
    each_sequence(branch, stretch, pooled,
                  [&](const PooledSequence &one) { add_row(W, own.get() + one.number * W, u.get() + (one.pooled - first) * W); });
    int64_t next = 0; /* rows of x come as their sequences do */
    for (int64_t r = first; r < first + rows; ++r) {
      const bool through = next < sequences && pooled[stretch.sequence + next] == r;
      norm_row_backward(W, x + r * W, weights.norm_weight, stats(r), u.get() + (r - first) * W,
                        through ? upstream + next * W : zeros.data(), dx + r * W, of_gamma, of_beta);
      next += through;
    }
  }
};

template <typename P>
void backward(const Branch &branch, const int64_t *pooled, const BranchWeights &weights, const float *x, const float *dy,
              const KeptPooled &kept, float *dx, const BranchGradients &gradients) {
  using T = typename P::T;
  const int64_t W = branch.width;
  std::vector<Stretch> all = stretches_of(branch.sequences);
  const std::vector<Chunk> chunks = chunks_of<T>(all);
  const int64_t most = most_rows(all), depth = most_padded(chunks);
  const Parts parts(branch, weights);
  const auto out = Panels<P>::of(W, W, weights.out_weight), query = Panels<P>::of(W, W, parts.query),
             rest = Panels<P>::of(2 * W, W, parts.rest);
  const auto query_turned = room<float>(W * W), rest_turned = room<float>(W * 2 * W); /* dW1^T */
  std::vector<Factors<P>> factors;
  for (int64_t i = 0; i < std::min<int64_t>(at::get_num_threads(), int64_t(chunks.size())); ++i) factors.emplace_back(W, depth);
  std::fill_n(gradients.norm_weight, W, 0.0f), std::fill_n(gradients.norm_bias, W, 0.0f);
  std::fill_n(gradients.in_bias, 3 * W, 0.0f), std::fill_n(gradients.out_bias, W, 0.0f);
  const auto back = [&] { return Backward<P>{branch, pooled, weights, x, dy, kept, dx, out, query, rest, depth, most}; };
  in_rounds(all, chunks, factors, W, gradients, back, [&](const Chunk &chunk, const Factors<P> &from, Share share, bool add) {
    const int64_t rows = padded_rows(chunk.rows), sequences = padded_rows(chunk.sequences);
    accumulate<P>(share, 2 * W, rows, depth, from.u.get(), from.ld, from.dz.get(), rest_turned.get(), add);
    accumulate<P>(share, W, sequences, depth, from.pooled.get(), from.ld, from.dq.get(), query_turned.get(), add);
    accumulate<P>(share, W, sequences, depth, from.dy.get(), from.ld, from.g.get(), gradients.out_weight, add);
  });
  turn(W, W, query_turned.get(), gradients.in_weight);
  turn(W, 2 * W, rest_turned.get(), gradients.in_weight + W * W);
}

} // namespace

void pooled_forward(const Branch &branch, const int64_t *pooled, const BranchWeights &weights, const float *x, float *y,
                    const KeptPooled &kept) {
  by_processor(branch.half, [&](auto product) { forward<decltype(product)>(branch, pooled, weights, x, y, kept); });
}

void pooled_backward(const Branch &branch, const int64_t *pooled, const BranchWeights &weights, const float *x, const float *dy,
                     const KeptPooled &kept, float *dx, const BranchGradients &gradients) {
  by_processor(branch.half, [&](auto product) { backward<decltype(product)>(branch, pooled, weights, x, dy, kept, dx, gradients); });
}

} // namespace sweep
